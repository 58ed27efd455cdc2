"""What a robot installs: edgeco alone in a bare virtual environment, counted, and the run side's tests in it.

    python benchmarks/install_size.py --python python3.12
    python benchmarks/install_size.py --python python3.10 --with numpy==1.26.4 --with onnxruntime==1.23.2

Packages and bytes are counted before anything that tests need is installed. Neither torch nor onnx may be there, then
or later. The exit status is that of the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

TESTS = (
    *("tests/attacks", "tests/bundle", "tests/devices", "tests/engines", "tests/examples", "tests/ros2"),
    *("tests/runtime", "tests/show", "tests/test_cli.py", "tests/test_cli_devices.py", "tests/test_files.py"),
    "tests/test_layering.py",
)
"""Tests of the run side, of its front and of what both sides share."""

FOR_TESTS = ("pytest", "pytest-xdist", "hypothesis")
NOT_THERE = ("torch", "onnx", "cv2")
_TOOLS = {"pip", "setuptools", "wheel"}

_COUNT = """
import importlib.metadata as metadata, importlib.util as util, json, pathlib, sys
packages = {}
for found in metadata.distributions():
    sizes = [pathlib.Path(found.locate_file(file)) for file in found.files or []]
    packages[found.name] = (found.version, sum(path.stat().st_size for path in sizes if path.is_file()))
import edgeco
there = [name for name in sys.argv[1:] if util.find_spec(name)]
print(json.dumps([packages, there, edgeco.__file__, sys.version.split()[0]]))
"""


def call(*command: str | Path) -> str:
    """Output of a command that must succeed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    ran = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, env=environment)
    if ran.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{ran.stdout}{ran.stderr}")
    return ran.stdout


def install(python: str, folder: Path, pins: list[str]) -> Path:
    """A fresh environment with edgeco and what it needs; returns its interpreter."""
    call(python, "-m", "venv", folder)
    made = folder / "bin" / "python"
    call(made, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-compile", ROOT, *pins)
    return made


def count(python: Path) -> dict[str, Any]:
    """Packages with version and bytes on disk, without pip's own."""
    packages, there, place, version = json.loads(call(python, "-I", "-c", _COUNT, *NOT_THERE))
    if there:
        raise SystemExit(f"{', '.join(there)} came with edgeco; the run side must do without")
    if Path(place).is_relative_to(ROOT):
        raise SystemExit(f"edgeco was imported from {place}, not from the environment")
    kept = {name: entry for name, entry in sorted(packages.items()) if name not in _TOOLS}
    return {"python": version, "packages": kept, "bytes": sum(size for _, size in kept.values())}


def run_tests(python: Path, jobs: int) -> int:
    """Exit status of the run side's tests; nothing of the tree is imported but the tests."""
    call(python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", *FOR_TESTS)
    command = [str(python.with_name("pytest")), "-q", "-m", "not slow", "-n", str(jobs), *TESTS]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(command, cwd=ROOT, env={**environment, "OMP_NUM_THREADS": "1"}, check=False, text=True)
    count(python)  # what tests need must not have brought torch or onnx along
    return ran.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environment")
    parser.add_argument("--with", dest="pins", action="append", default=[], help="a requirement that replaces a range")
    parser.add_argument("--no-tests", action="store_true", help="count only")
    parser.add_argument("--jobs", type=int, default=2, help="tests side by side")
    parser.add_argument("--json", action="store_true", help="one JSON document in place of the table")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = install(given.python, Path(folder), given.pins)
        found = count(python)
        if given.json:
            print(json.dumps(found))
        else:
            for name, (version, size) in found["packages"].items():
                print(f"{name:20} {version:12} {size / 1e6:8.1f} MB")
            total = f"{len(found['packages'])} packages, {found['bytes'] / 1e6:.0f} MB"
            print(f"Python {found['python']}: {total}, without {', '.join(NOT_THERE)}", flush=True)
        if not given.no_tests:
            raise SystemExit(run_tests(python, given.jobs))


if __name__ == "__main__":
    main()
