"""The figures that ``edgeco models`` prints: those the step networks have, and those the papers state."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from edgeco.factory import find_factory
from edgeco.models.catalogue import NETWORKS, known

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "zoo_figures.py"
KNOWN = {entry["name"]: entry for entry in known()}
TRAINED = ("camera-motion", "fingertip-gesture", "watch-activity", "hand-digit-motion")
CHEAP = (*TRAINED, "audio-transformer")


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("zoo_figures", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", [name if name in CHEAP else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_the_file_says_what_the_step_network_is(name: str) -> None:
    """If it fails after a change meant to do so: ``python benchmarks/zoo_figures.py NAME``."""
    assert script().figures(name) == KNOWN[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_input(name: str) -> None:
    factory = find_factory(name)
    with torch.device("cpu" if name in TRAINED else "meta"):
        net = factory()
    assert sum(p.numel() for p in net.parameters()) == KNOWN[name]["parameters"]
    assert list(factory.clip) == KNOWN[name]["input"] and list(KNOWN) == list(NETWORKS)


PUBLISHED: dict[str, dict[str, Any]] = {
    # receptive field, delay and rate as run in the reference library
    "x3d-xs": {"receptive_field": 60, "delay": 31, "rate": 1},
    "x3d-s": {"receptive_field": 69, "delay": 40, "rate": 1},
    "x3d-m": {"receptive_field": 72, "delay": 43, "rate": 1},
    "x3d-l": {"receptive_field": 130, "delay": 72, "rate": 1},
    "slow-r50": {"receptive_field": 26, "delay": 16, "rate": 1},
    "i3d-r50": {"receptive_field": 42, "delay": 24, "rate": 2},
    "st-gcn-star": {"receptive_field": 300, "delay": 299, "rate": 1},
    "agcn-star": {"receptive_field": 300, "delay": 299, "rate": 1},
    "s-tr-star": {"receptive_field": 300, "delay": 299, "rate": 1},
    # There the delay is 296: the last mean is padded by 19 elements of zeros, 4 frames apart, and given so much
    # earlier, over 56 elements of features and 19 of nothing. Here it waits for all 75.
    "st-gcn": {"receptive_field": 449, "delay": 296 + 4 * 19, "rate": 4},
    "agcn": {"receptive_field": 449, "delay": 296 + 4 * 19, "rate": 4},
    "s-tr": {"receptive_field": 449, "delay": 296 + 4 * 19, "rate": 4},
    "oad-b1": {"receptive_field": 64, "delay": 63, "rate": 1},
    "oad-b2": {"receptive_field": 64, "delay": 63, "rate": 1},
    "oad-deep": {"receptive_field": 4 * 63 + 1, "delay": 63, "rate": 1},  # 63 more frames for each layer
    "audio-transformer": {"receptive_field": 120, "delay": 119, "rate": 1},
    "tsm-mobilenetv2": {"receptive_field": 11, "delay": 0, "rate": 1},
    # The convolutions see 29 frames; each of 16 running means sees all frames so far, of which a clip has 49 more.
    "movinet-a0": {"receptive_field": 29 + 16 * 49, "delay": 0, "rate": 1},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_times_as_published(name: str) -> None:
    assert PUBLISHED[name] == {figure: KNOWN[name][figure] for figure in PUBLISHED[name]}


BILLIONS = {
    # multiply-accumulates of a clip and of a step, mean over the phases, in units of 10^9
    "x3d-xs": (0.606, 0.153),
    "x3d-s": (1.965, 0.153),
    "x3d-m": (4.735, 0.298),
    "x3d-l": (18.373, 1.150),
    "slow-r50": (54.52, 6.81),
    "i3d-r50": (28.41, 3.55),
    "st-gcn": (17.25, 0.0575),
    "st-gcn-star": (37.78, 0.159),
    "tsm-mobilenetv2": (8 * 0.2995, 0.2995),
    "movinet-a0": (50 * 0.050697, 0.050697),
    "oad-b1": (None, 0.00960),
}


@pytest.mark.parametrize("name", BILLIONS)
def test_costs_as_published(name: str) -> None:
    """To one part in a hundred of a clip, and in fifty of a step.

    What a step counts less: a convolution over time alone is a product and a sum of elements there, which count as no
    multiply-accumulate of a matrix. What it counts more: positions are taken from their table by a product.
    """
    clip, step = BILLIONS[name]
    assert clip is None or KNOWN[name]["clip_macs"] == pytest.approx(clip * 1e9, rel=0.01)
    assert KNOWN[name]["step_macs"] == pytest.approx(step * 1e9, rel=0.02)


def test_a_step_of_st_gcn_star_is_as_cheap_as_promised() -> None:
    assert KNOWN["st-gcn-star"]["step_macs"] <= 0.165e9
    for name, least in (("x3d-l", 15.3), ("x3d-m", 15.1), ("x3d-s", 12.1), ("st-gcn-star", 107)):
        assert KNOWN[name]["clip_macs"] / KNOWN[name]["step_macs"] >= least, name
