"""The real Python bindings of TensorRT, without its library: every name that the package uses resolves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from trt_names import PATHS

WHEELS = Path(__file__).resolve().parents[1] / "helpers" / "trt_wheels"
PACKAGES = {"8": "tensorrt-bindings", "10": "tensorrt-cu12-bindings", "11": "tensorrt-cu13-bindings"}
"""By major version what the wheel of the bindings alone, a megabyte, is called."""


def unpacked(version: str, folder: Path) -> Path:
    """The bindings as a package ``tensorrt`` in a folder; skips where they cannot be had."""
    wanted = f"{PACKAGES[version.split('.')[0]]}=={version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder]
    ran = subprocess.run([*command, wanted], capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if ran.returncode or not wheels:
        pytest.skip(f"{wanted} cannot be had for this Python: {(ran.stderr.strip().splitlines() or ['?'])[-1]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(folder)
    return (folder / "tensorrt_bindings").rename(folder / "tensorrt")


def stubbed(bindings: Path, folder: Path) -> None:
    """A stub for each library of TensorRT's that the bindings name."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    ran = subprocess.run(["ldd", bindings / "tensorrt.so"], capture_output=True, text=True, check=True)
    names = [line.split()[0] for line in ran.stdout.splitlines() if line.split()[0].startswith("libnv")]
    assert len(names) >= 3
    for name in names:
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", folder / name, WHEELS / "stub.c"]
        subprocess.run(command, check=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the wheels are Linux's")
@pytest.mark.parametrize("version", PATHS)
def test_every_name_resolves_in_the_real_bindings(version: str, tmp_path: Path) -> None:
    bindings = unpacked(version, tmp_path)
    stubbed(bindings, tmp_path)
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, WHEELS / "check.py"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [version]
