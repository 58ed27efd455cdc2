"""Preprocessing by the user's own callable: how it is named, and what it may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeco.errors import SpecError
from edgeco.runtime.pre import load_pre

FILE = """
import beside
class Pose:
    def __init__(self):
        self.count = 0
    def __call__(self, frame):
        self.count += 1
        return self.count
class Dumb:
    pass
class Broken:
    def __init__(self):
        raise RuntimeError("no camera model")
def plain(frame):
    return beside.VALUE
number = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "pose.py").write_text(FILE)
    (tmp_path / "beside.py").write_text("VALUE = 7\n")
    return str(tmp_path / "pose.py")


def test_functions_and_classes_of_a_file(file: str) -> None:
    assert load_pre(f"{file}:plain")(None) == 7
    pose = load_pre(f"{file}:Pose")
    assert (pose(None), pose(None)) == (1, 2), "one object for all frames"
    assert load_pre("operator:neg")(3) == -3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plain", "names no callable; give package.module:name or file.py:name"),
        ("{file}:none", "has no callable named 'none'"),
        ("{file}:number", "has no callable named 'number'"),
        ("{file}:Dumb", "cannot be called with a frame"),
        ("{file}:Broken", "raised RuntimeError: no camera model"),
        ("none.py:plain", "There is no file none.py"),
        ("no_such_module_here:plain", "cannot be imported"),
    ],
)
def test_what_is_no_preprocessing(file: str, name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_pre(name.format(file=file))
