"""An estimate as a person reads it."""

from __future__ import annotations

import io

from rich.console import Console

from edgeco.devices.estimate import Estimate, Floor, Kernel
from edgeco.show.estimate import show_estimate


def shown(stride: int, fits: bool | None) -> str:
    shares = {"compute": 0.25, "memory": 0.75, "launch": 0.0}
    floor = Floor("fp16", 4, 0.0015, 0.0025, 2666.67, 3 * 2**20, fits, shares)
    kernel = Kernel("conv\x1b2d", 2_000_000, 1536, 4e-6, 5e-6, 5e-6, "memory", 1)
    console = Console(file=io.StringIO(), width=140, highlight=False, markup=False)
    show_estimate(Estimate("net", "card", 2e-6, stride, (floor,), {"fp16": (kernel,)}, ("one thing",)), console)
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().split())


def test_floors_kernels_and_assumptions() -> None:
    text = shown(1, True)
    assert "net on card: floor of a step" in text
    assert "fp16 4 1.500 2667 3.0 MiB compute 25%, memory 75%" in text
    assert "0 conv\\x1b2d 2.00 M 1.5 KiB 4.00 5.00 5.00 100.0% memory" in text
    assert "1 one thing" in text and "dearest step" not in text and "TOO LARGE" not in text


def test_a_strided_network_shows_its_dearest_step() -> None:
    assert "fp16 4 1.500 2.500 2667" in shown(2, None)


def test_what_does_not_fit_is_seen() -> None:
    assert "3.0 MiB TOO LARGE" in shown(1, False)
