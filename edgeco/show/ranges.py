"""The ranges of a calibration, and their histograms drawn in the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeco.bundle.ranges import Ranges, TensorRange
from edgeco.show.console import count_text, facts, plain, table

COLUMNS = 32
"""Of a histogram."""

_BARS = " ▁▂▃▄▅▆▇█"
_NAMED = 4
"""Tensors that are called by name in a line; of more the number is told."""


def show_ranges(ranges: Ranges, console: Console) -> None:
    """Print all ranges of a bundle."""
    for made in ranges_tables(ranges):
        console.print(made)


def ranges_tables(ranges: Ranges, tensors: bool = True) -> list[Table]:
    """What the ranges rest on, those of the histories, and of all other tensors if they are asked for."""
    made = [_head(ranges)]
    if ranges.histories:
        made.append(_table(f"Ranges of histories ({len(ranges.histories)})", ranges.histories))
    others: dict[str, TensorRange] = {}
    for key, found in ranges.tensors.items():  # what a later graph computes like an earlier one is shown once
        if found not in ranges.histories.values() and not ("@" in key and found in others.values()):
            others[key] = found
    if tensors and others:
        title = f"Ranges of tensors ({len(others)} that no history holds, of {len(ranges.tensors)})"
        made.append(_table(title, others))
    return made


def calibration_facts(summary: Mapping[str, Any]) -> Table:
    """The summary of a calibration, as it is kept in the build report."""
    values = {
        "method": method_text(summary["method"], summary.get("percentile")),
        "frames": _frames(summary["frames"], summary["streams"], summary["reset"]),
        "tensors": f"{summary['tensors']}, histories {summary['histories']}",
        "always 0": _names(summary["dead"]) or "none of them",
        "FP16": _half(summary["half"]),
    }
    return facts("Calibration", values)


def _head(ranges: Ranges) -> Table:
    sources = ", ".join(ranges.sources[:_NAMED]) + (
        f" and {len(ranges.sources) - _NAMED} more" * (len(ranges.sources) > _NAMED)
    )
    values = {
        "method": method_text(ranges.method, ranges.percentile),
        "frames": _frames(ranges.frames, ranges.streams, ranges.reset),
        "sources": sources or "arrays",
        "of the data": ranges.data,
        "of the model": ranges.model,
    }
    return facts("Calibration", values)


def method_text(method: str, percentile: float | None) -> str:
    """How ranges were chosen; the share that was kept, where the method has one."""
    return method if percentile is None else f"{method} {percentile:g}"


def _frames(frames: int, streams: int, reset: int | None) -> str:
    text = f"{frames} of {streams} stream{'s' if streams > 1 else ''}"
    return text + (f", reset every {reset}" if reset else ", never reset but at their beginning")


def _half(half: Mapping[str, Any]) -> str:
    """What FP16 does with the tensors."""
    told = (("cannot hold", "beyond"), ("comes near its end with", "near"), ("rounds coarsely", "vanishing"))
    return "; ".join(f"{what} {_names(half[which])}" for what, which in told if half[which]) or "holds every tensor"


def _names(keys: list[str] | tuple[str, ...]) -> str:
    return ", ".join(keys[:_NAMED]) + (f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else "")


def _table(title: str, ranges: Mapping[str, TensorRange]) -> Table:
    columns = ("name", "least", "most", "INT8 to", "numbers", "magnitudes, 0 to most")
    made = table(title, *columns, right=(1, 2, 3, 4))
    made.columns[5].no_wrap = True
    for name, found in ranges.items():
        amax = "always 0" if found.dead else f"{found.amax:.4g}"
        made.add_row(
            plain(name), f"{found.low:.4g}", f"{found.high:.4g}", amax, count_text(found.count), histogram(found)
        )
    return made


def histogram(found: TensorRange) -> Text:
    """Magnitudes from 0 to the greatest as bars of a logarithmic height; those that are clipped stand behind a line.

    Example:
        >>> histogram(TensorRange(low=0, high=3, amax=2, method="mse", count=10, limit=4, histogram=(6, 3, 0, 1))).plain
        '█▆│ ▃'
    """
    if not found.histogram:
        return Text("")
    whole = len(found.histogram)
    used = min(int(whole * found.peak / found.limit) + 1, whole)
    columns = min(COLUMNS, used)
    edges = [used * place // columns for place in range(columns + 1)]
    sums = [sum(found.histogram[start:end]) for start, end in pairwise(edges)]
    most = math.log1p(max(sums))
    bars = [_BARS[math.ceil((len(_BARS) - 1) * math.log1p(number) / most)] if most else " " for number in sums]
    kept = columns if found.amax >= found.peak else max(1, round(columns * whole * found.amax / (used * found.limit)))
    text = Text("".join(bars[:kept]), style="green")
    if kept < columns:
        text.append("│", style="dim").append("".join(bars[kept:]), style="red")
    return text
