"""The real CUDA packages over a mock of the public driver API, where there is a compiler and they are installed."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MOCK = Path(__file__).resolve().parents[1] / "helpers" / "mock_cuda"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("there is no C compiler")
    library = tmp_path_factory.mktemp("mock") / "libcuda.so.1"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", library, MOCK / "libcuda.c", "-ldl"],
        check=True,
    )
    return library


def installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False


def checked(driver: Path, cache: Path, package: str, folder: Path | None = None) -> list[str]:
    environment = {
        **os.environ,
        **({"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"} if folder is not None else {}),
        "LD_LIBRARY_PATH": str(driver.parent),
        "EDGECO_MOCK_DRIVER": str(driver),
        "EDGECO_CACHE": str(cache),
    }
    ran = subprocess.run(
        [sys.executable, MOCK / "check.py", package], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr, ran.stderr  # pycuda complains there of what it could not give back
    return ran.stdout.split()


@pytest.mark.skipif(not installed("cuda.bindings"), reason="cuda-bindings is not installed")
def test_cuda_bindings(driver: Path, tmp_path: Path) -> None:
    assert checked(driver, tmp_path, "cuda.bindings")[:2] == ["100", "12"]


@pytest.mark.skipif(not installed("pycuda"), reason="pycuda is not installed")
def test_pycuda(driver: Path, tmp_path: Path) -> None:
    phases = "12" if installed("cuda.bindings") else "0"
    assert checked(driver, tmp_path, "pycuda")[:2] == ["100", phases]


@pytest.mark.slow
def test_pycuda_built_from_its_source(driver: Path, tmp_path: Path) -> None:
    """The recipe of docs/tensorrt.md, as a machine without CUDA follows it; takes minutes and the packages' index."""
    source = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "pycuda"]
    if subprocess.run([*source, "--dest", tmp_path, "pycuda==2026.1"], capture_output=True, check=False).returncode:
        pytest.skip("pycuda's source cannot be had here")
    folder = tmp_path / "built"
    ran = subprocess.run(
        ["bash", MOCK / "build_pycuda.sh", folder, sys.executable], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    phases = "12" if installed("cuda.bindings") else "0"
    assert checked(driver, tmp_path, "pycuda", folder)[:2] == ["100", phases]
    without_a_driver(folder)


def without_a_driver(folder: Path) -> None:
    """What was built says in one sentence that there is no driver, where there is none."""
    if ctypes.util.find_library("cuda") is not None:
        return
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}
    code = "from edgeco.engines.cuda import open_cuda; open_cuda('pycuda')"
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "EngineError: there is no CUDA driver: libcuda.so.1 was not found; install" in ran.stderr.splitlines()[-1]
