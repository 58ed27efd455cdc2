"""What is installed: the wheel's contents, and the promises of pyproject.toml."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

import edgeco

ROOT = Path(__file__).parents[1]
SHIPPED = ("edgeco/models/weights/camera-motion.safetensors", "edgeco/models/bundles/camera-motion.edgeco")


@pytest.fixture(scope="module")
def project() -> Any:
    if sys.version_info < (3, 11) and importlib.util.find_spec("tomli") is None:
        pytest.skip("reading TOML on Python 3.10 needs tomli")
    return msgspec.toml.decode((ROOT / "pyproject.toml").read_bytes())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built by the installed backend: nothing is downloaded."""
    for name in ("pip", "hatchling"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"building the wheel without a network needs {name} to be installed")
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder), str(ROOT)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    (built,) = folder.glob("*.whl")
    return built


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_is_pure_and_has_the_packages_version(wheel: Path) -> None:
    assert wheel.name == f"edgeco-{edgeco.__version__}-py3-none-any.whl"


def test_the_wheel_holds_one_package_and_nothing_else(wheel: Path) -> None:
    """No import name but edgeco is claimed: no tests, no examples, no top-level modules."""
    assert {name.split("/")[0] for name in names(wheel)} == {"edgeco", f"edgeco-{edgeco.__version__}.dist-info"}
    assert not [name for name in names(wheel) if "test" in name or name.endswith((".pyc", ".pkl", ".pt"))]


def test_the_wheel_holds_every_module_and_its_marker(wheel: Path) -> None:
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "edgeco").rglob("*.py")}
    assert sources | {"edgeco/py.typed"} <= names(wheel)


def test_the_wheel_holds_every_device_profile(wheel: Path) -> None:
    data = {str(path.relative_to(ROOT)) for path in (ROOT / "edgeco/devices").rglob("*.toml")}
    assert len(data) > 3 and data <= names(wheel)


@pytest.mark.parametrize("member", SHIPPED)
def test_the_wheel_holds_the_shipped_network(wheel: Path, member: str) -> None:
    """Also what .gitignore would hide from the backend."""
    assert (ROOT / member).is_file(), f"{member} is not in the tree"
    assert member in names(wheel)


def test_the_wheel_installs_the_command_and_the_licence(wheel: Path) -> None:
    info = f"edgeco-{edgeco.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        assert "edgeco = edgeco.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
        metadata = archive.read(f"{info}/METADATA").decode()
        licence = archive.read(f"{info}/licenses/LICENSE")
    assert "License-Expression: Apache-2.0" in metadata
    assert licence == (ROOT / "LICENSE").read_bytes()
    assert "Requires-Python: >=3.10" in metadata


def test_the_base_is_the_run_side(project: Any) -> None:
    """A robot installs neither torch nor onnx, and OpenCV only if it asks for it."""
    base = {name(requirement) for requirement in project["dependencies"]}
    assert base == {"click", "msgspec", "numpy", "onnxruntime", "rich", "safetensors", "tomli"}
    extras = project["optional-dependencies"]
    assert {"torch", "onnx"} <= {name(requirement) for requirement in extras["build"]}
    assert {name(requirement) for requirement in extras["camera"]} == {"opencv-python"}


def test_ranges_are_open_and_development_is_pinned(project: Any) -> None:
    users = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    users = [requirement.split(";")[0] for requirement in users if name(requirement) != "edgeco"]
    assert not [requirement for requirement in users if re.search(r"<|==|~=|!=", requirement)]
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert not [
        pin for pin in pins if not re.fullmatch(r"[a-z0-9.-]+==[^;=<> ]+(; python_version [<>]=? '3\.\d+')?", pin)
    ]
    unpinned = {name(requirement) for requirement in users} - {name(pin) for pin in pins} - {"opencv-python"}
    assert not unpinned


def name(requirement: str) -> str:
    return re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0]
