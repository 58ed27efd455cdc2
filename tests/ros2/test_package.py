"""The ament_python package around the node: what colcon and ros2 launch will look for is there."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

import edgeco

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "ros2" / "edgeco_ros"


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module and not n.level}
    return {name.split(".")[0] for name in names}


def test_package_xml_names_what_is_imported() -> None:
    root = ElementTree.parse(PACKAGE / "package.xml").getroot()
    depends = {entry.text for entry in root.findall("exec_depend")}
    used = imported(PACKAGE / "edgeco_ros" / "node.py") | imported(PACKAGE / "launch" / "classifier.launch.py")
    outside = used - set(sys.stdlib_module_names) - {"edgeco", "ament_index_python"}
    assert outside <= depends
    assert root.findtext("name") == "edgeco_ros" and root.findtext("license") == "Apache-2.0"
    assert root.findtext("version") == edgeco.__version__
    assert root.findtext("export/build_type") == "ament_python"


def test_setup_installs_what_ros_looks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setitem(sys.modules, "setuptools", ModuleType("setuptools"))
    monkeypatch.setattr(sys.modules["setuptools"], "setup", lambda **options: given.update(options), raising=False)
    monkeypatch.chdir(PACKAGE)
    exec(compile((PACKAGE / "setup.py").read_text(), "setup.py", "exec"), {})
    files = {Path(name).name for _, names in given["data_files"] for name in names}
    assert files == {"edgeco_ros", "package.xml", "classifier.launch.py", "classifier.yaml"}
    assert all((PACKAGE / name).is_file() for _, names in given["data_files"] for name in names)
    assert given["entry_points"] == {"console_scripts": ["classifier = edgeco_ros.node:main"]}
    assert given["version"] == edgeco.__version__
    config = configparser.ConfigParser()
    config.read(PACKAGE / "setup.cfg")
    assert config["install"]["install_scripts"] == config["develop"]["script_dir"] == "$base/lib/edgeco_ros"


class Recorder:
    """Stands for the actions of launch: keeps what it was made with."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.arguments, self.options = arguments, options


@pytest.fixture
def description(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in (
        *("ament_index_python", "ament_index_python.packages", "launch", "launch.actions", "launch.substitutions"),
        *("launch_ros", "launch_ros.actions", "launch_ros.parameter_descriptions"),
    ):
        module = ModuleType(name)
        for member in ("LaunchDescription", "DeclareLaunchArgument", "LaunchConfiguration", "LifecycleNode"):
            setattr(module, member, Recorder)
        vars(module).update(ParameterValue=Recorder, get_package_share_directory=lambda name: str(PACKAGE))
        monkeypatch.setitem(sys.modules, name, module)
    path = PACKAGE / "launch" / "classifier.launch.py"
    names: dict[str, Any] = {}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
    return names["generate_launch_description"]()


def test_the_launch_file_gives_only_parameters_that_there_are(description: Any) -> None:
    *arguments, node = description.arguments[0]
    assert node.options["package"] == "edgeco_ros" and node.options["executable"] == "classifier"
    known = parameters() | {"use_sim_time"}
    _, given = node.options["parameters"]
    assert given.keys() <= known
    defaults = {entry.arguments[0]: entry.options.get("default_value") for entry in arguments}
    assert defaults["bundle"] is None and Path(defaults["params"]).is_file()
    assert all(isinstance(value, str) for value in defaults.values() if value is not None)
    assert [old for old, _ in node.options["remappings"]] == ["~/image", "~/image/compressed", "~/array"]
    written = set(re.findall(r"^    (\w+):", (PACKAGE / "config" / "classifier.yaml").read_text(), re.MULTILINE))
    assert written and written <= known


def parameters() -> set[str]:
    names: dict[str, Any] = {}
    exec((PACKAGE / "edgeco_ros" / "parameters.py").read_text(), names)
    return {name for name, _, _ in names["PARAMETERS"]}


def test_the_page_describes_every_parameter() -> None:
    page = (ROOT / "docs" / "robots.md").read_text(encoding="utf-8")
    assert not [name for name in parameters() if f"`{name}`" not in page]


def test_it_is_said_plainly_that_no_real_ros_has_run_it() -> None:
    for path in (PACKAGE / "README.md", ROOT / "docs" / "robots.md"):
        assert "never run under a real ROS 2" in path.read_text(encoding="utf-8")
