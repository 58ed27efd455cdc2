"""Histograms in the terminal."""

from __future__ import annotations

import io

from rich.console import Console

from edgeco.bundle.ranges import Ranges, TensorRange
from edgeco.show.ranges import calibration_facts, histogram, show_ranges

FOUND = TensorRange(low=-1.0, high=3.0, amax=2.0, method="mse", count=10, limit=4.0, histogram=(6, 3, 0, 1))
DEAD = TensorRange(low=0.0, high=0.0, amax=0.0, method="mse", count=10)


def shown(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_histogram_reaches_to_the_greatest_and_marks_what_is_clipped() -> None:
    assert histogram(FOUND).plain == "█▆│ ▃"
    whole = TensorRange(low=0, high=3.9, amax=3.9, method="max", count=10, limit=4.0, histogram=(6, 3, 0, 1))
    assert histogram(whole).plain == "█▆ ▃"
    many = TensorRange(low=0, high=63.9, amax=63.9, method="max", count=128, limit=64.0, histogram=(1,) * 128)
    assert histogram(many).plain == "█" * 32
    assert histogram(DEAD).plain == ""


def test_all_ranges_are_listed_once() -> None:
    history = TensorRange(**{name: getattr(FOUND, name) for name in FOUND.__struct_fields__} | {"border": 0.0})
    other = TensorRange(low=-1.0, high=1.0, amax=1.0, method="mse", count=3)
    tensors = {"conv_1": FOUND, "h000_new": history, "relu_2": DEAD, "conv_1@1": FOUND, "conv_2@1": other}
    ranges = Ranges(
        model="a" * 64, data="b" * 64, frames=9, streams=2, reset=5, method="mse", sources=tuple("vwxyz"),
        tensors=tensors, histories={"h000": history},
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=140)
    show_ranges(ranges, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text.count("conv_1") == 1 and "conv_2@1" in text
    assert text.count("h000") == 1 and "conv_1" in text and "always 0" in text
    assert "Ranges of tensors (3 that no history holds, of 5)" in text
    assert "9 of 2 streams, reset every 5" in text and "v, w, x, y and 1 more" in text


def test_what_fp16_cannot_hold_is_named() -> None:
    summary = {"method": "max", "frames": 3, "streams": 1, "reset": None, "tensors": 9, "histories": 2, "dead": []}
    half = {"beyond": ["a", "b", "c", "d", "e"], "near": [], "vanishing": ["v"]}
    text = shown(calibration_facts({**summary, "half": half}))
    assert "cannot hold a, b, c, d and 1 more; rounds coarsely v" in text and "none of them" in text
    clipped = {**summary, "method": "percentile", "percentile": 99.9999, "half": half}
    assert "percentile 99.9999" in shown(calibration_facts(clipped))
    assert "holds every tensor" in shown(calibration_facts({**summary, "half": {key: [] for key in half}}))
