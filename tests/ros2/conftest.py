"""The node of ros2/edgeco_ros in a process where the fake ROS 2 stands for the real one."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

import fake_ros
from robots import ROOT, Robot


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The node's module, imported anew."""
    fake_ros.install(monkeypatch)
    monkeypatch.syspath_prepend(str(ROOT / "ros2" / "edgeco_ros"))
    forget()
    yield importlib.import_module("edgeco_ros.node")
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.startswith("edgeco_ros")]:
        del sys.modules[name]


@pytest.fixture
def robot(module: ModuleType) -> Iterator[Callable[..., Robot]]:
    """Makes robots, and takes them apart."""
    made: list[Robot] = []

    def make(**parameters: Any) -> Robot:
        made.append(Robot(module, **parameters))
        return made[-1]

    yield make
    for one in made:
        if not one.node.destroyed:
            one.node.destroy_node()
