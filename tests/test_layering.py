"""The walls between the layers: what each part may import, read from the source and seen in a fresh interpreter."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "edgeco"

BOTH = {"bundle", "devices", "errors", "files", "named", "page"}
RUN = {"engines", "runtime"}
FRONT = {"show", "command", "cli"}
BUILD = {
    *("graph", "continual", "export", "calibration", "models", "train", "adapters", "prune", "evaluation"),
    *("stages", "building", "factory", "spec"),
}

HEAVY_BUILD = {"torch", "onnx", "onnxscript"}
"""Packages that the run side does without."""

MAY_USE: dict[str, set[str]] = {
    "errors": set(),
    "files": {"errors"},
    "named": {"errors"},
    "page": set(),
    "bundle": {"files", "errors"},
    "devices": {"bundle", "files", "errors"},
    "engines": {"devices", "bundle", "files", "errors"},
    "runtime": {"engines", "devices", "bundle", "files", "named", "errors"},
    "show": {
        *("runtime", "engines", "devices", "bundle", "files", "page", "errors", "command"),
        *("building", "calibration", "spec", "evaluation", "prune", "adapters", "train"),
    },
    "command": {"errors"},
    "cli": {
        "show",
        "command",
        "runtime",
        "engines",
        "devices",
        "bundle",
        "files",
        "errors",
        "building",
        "calibration",
        "prune",
        "spec",
        "models",
    },
    "graph": {"errors"},
    "continual": {"graph", "errors"},
    "models": {"continual", "errors"},
    "spec": {"bundle", "errors"},
    "factory": {"models", "spec", "files", "named", "errors"},
    "export": {"continual", "graph", "spec", "runtime", "engines", "bundle", "files", "errors"},
    "calibration": {"export", "train", "spec", "runtime", "engines", "devices", "bundle", "files", "named", "errors"},
    "train": {"factory", "models", "runtime", "engines", "bundle", "command", "files", "errors"},
    "evaluation": {"stages", "train", "spec", "models", "runtime", "engines", "bundle", "files", "errors"},
    "adapters": {"prune", "train", "factory", "spec", "continual", "graph", "models", "files", "page", "errors"},
    "prune": {
        *("train", "export", "factory", "spec", "models", "continual", "graph"),
        *("runtime", "engines", "devices", "bundle", "files", "page", "errors"),
    },
    "stages": {"prune", "adapters", "factory", "spec", "errors"},
    "building": {
        *("calibration", "stages", "adapters", "factory", "spec", "export", "continual", "graph"),
        *("runtime", "engines", "devices", "bundle", "files", "errors"),
    },
}
"""Which parts each part may import besides itself. A new part must be entered here, with its place in the order."""

LAZY = {
    *(("show", part) for part in ("building", "calibration", "spec", "evaluation", "prune", "adapters", "train")),
    *(("cli", part) for part in ("building", "calibration", "spec", "models", "prune")),
}
"""Allowed only where it costs nothing until it is used: inside a function, or for type checkers."""

ENGINE_FACE = {
    "edgeco.engines",
    "edgeco.engines.protocol",
    "edgeco.engines.rows",
    "edgeco.engines.checks",
    "edgeco.engines.selection",
    "edgeco.engines.session",
    "edgeco.engines.threads",
}
"""What the runtime may know of engines: how to open one, the protocol, and what runs over any of them."""


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules(*parts: str) -> Iterator[Path]:
    """Source files of the parts, or of the whole package; its own face, ``edgeco/__init__.py``, is not a part."""
    for path in sorted(PACKAGE.rglob("*.py")):
        part = part_of(path)
        if part != "__init__" and (not parts or part in parts):
            yield path


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[str, bool, int]]:
    """Every module that a file imports, whether only when a function runs or a type checker reads it, and its line."""

    def walk(node: ast.AST, lazy: bool) -> Iterator[tuple[str, bool, int]]:
        if isinstance(node, ast.Import):
            yield from ((alias.name, lazy, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            assert node.module is not None
            yield node.module, lazy, node.lineno
            if node.module == "edgeco" or (ROOT / Path(*node.module.split("."))).is_dir():
                yield from ((f"{node.module}.{alias.name}", lazy, node.lineno) for alias in node.names)
        inner = lazy or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)) or for_types(node)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inner)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), False)


def for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def used_parts(path: Path) -> Iterator[tuple[str, bool, str]]:
    """Parts of edgeco that a file uses: the part, whether lazily, and where."""
    for name, lazy, line in imports(path):
        steps = name.split(".")
        if steps[0] == "edgeco" and len(steps) > 1 and steps[1] in MAY_USE and steps[1] != part_of(path):
            yield steps[1], lazy, f"{path.relative_to(ROOT)}:{line}"


def fresh(code: str) -> set[str]:
    """Modules loaded after some code ran in a fresh interpreter."""
    program = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return set(json.loads(ran.stdout.splitlines()[-1]))


def test_every_part_has_its_place() -> None:
    assert {part_of(path) for path in modules()} == set(MAY_USE) == BOTH | RUN | FRONT | BUILD


def test_no_part_imports_above_itself() -> None:
    wrong = [
        f"{where}: {part_of(path)} must not import {part}"
        for path in modules()
        for part, lazy, where in used_parts(path)
        if part not in MAY_USE[part_of(path)] or ((part_of(path), part) in LAZY and not lazy)
    ]
    assert not wrong, "\n".join(wrong)


def test_parts_form_layers() -> None:
    """No part reaches itself through others."""

    def reached(part: str, seen: set[str]) -> set[str]:
        for used in MAY_USE[part] - seen:
            seen |= {used}
            reached(used, seen)
        return seen

    assert not [part for part in MAY_USE if part in reached(part, set())]


def test_the_run_side_never_reaches_the_build_side() -> None:
    """Not even lazily: only the front may start a build, and it checks first that the build side is installed."""
    for part in BOTH | RUN:
        assert not MAY_USE[part] & (BUILD | FRONT), part
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for path in modules(*BOTH, *RUN, *FRONT)
        for name, _, line in imports(path)
        if name.split(".")[0] in HEAVY_BUILD or name.startswith("safetensors.torch")
    ]
    assert not wrong, "\n".join(wrong)


def test_the_runtime_knows_engines_by_the_protocol() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for path in modules("runtime")
        for name, _, line in imports(path)
        if name == "onnxruntime" or (name.startswith("edgeco.engines") and not face(name))
    ]
    assert not wrong, "\n".join(wrong)


def face(name: str) -> bool:
    return name in ENGINE_FACE or name == "edgeco.engines.open_engine" or name == "edgeco.engines.NAMES"


@pytest.mark.parametrize(
    ("package", "doors"),
    [
        ("onnxruntime", {"engines", "export", "calibration"}),
        ("tensorrt", {"engines"}),
        ("pycuda", {"engines"}),
        ("cuda", {"engines"}),
        ("cv2", {"runtime", "train"}),
        ("click", {"cli", "command"}),
        ("rich", {"show", "train"}),
    ],
)
def test_few_doors_for_each_dependency(package: str, doors: set[str]) -> None:
    """What may be missing on a device, or be replaced one day, is imported in few places."""
    found = {part_of(path) for path in modules() for name, _, _ in imports(path) if name.split(".")[0] == package}
    assert found <= doors


def test_opencv_is_an_extra() -> None:
    eager = [dotted(path) for path in modules(*RUN) for name, lazy, _ in imports(path) if name == "cv2" and not lazy]
    assert not eager


def test_importing_edgeco_is_light() -> None:
    heavy = {"numpy", "onnxruntime", "torch", "onnx", "cv2", "msgspec", "safetensors", "click", "rich"}
    assert not fresh("import edgeco") & heavy


def test_the_run_side_loads_nothing_of_the_build_side() -> None:
    names = [dotted(path) for path in modules(*BOTH, *RUN, *FRONT)]
    assert len(names) > 40
    loaded = fresh("import importlib\n" + "\n".join(f"importlib.import_module({name!r})" for name in names))
    assert set(names) <= loaded
    assert not loaded & HEAVY_BUILD
    assert not {name for name in loaded if name.startswith("edgeco.") and name.split(".")[1] in BUILD}


def test_the_walls_would_be_noticed(tmp_path: Path) -> None:
    """The reader of imports sees every form of them."""
    path = tmp_path / "probe.py"
    path.write_text(
        "from __future__ import annotations\n"
        "import torch.nn\n"
        "from edgeco import building\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import onnx\n"
        "def f():\n    from edgeco.runtime import run\n"
        "try:\n    import cv2\nexcept ImportError:\n    pass\n"
    )
    found = {(name, lazy) for name, lazy, _ in imports(path)}
    assert {("torch.nn", False), ("edgeco.building", False), ("onnx", True), ("cv2", False)} <= found
    assert {("edgeco.runtime", True), ("edgeco.runtime.run", True)} <= found
