"""How INT8 forms drift from FP32, as a table and a curve in one line of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from edgeco.show.console import plain, table

_LEVELS = " ▁▂▃▄▅▆▇█"
WIDTH = 32
"""Characters of a curve."""


def curve(values: Sequence[float], width: int = WIDTH) -> str:
    """Numbers as a line of blocks from 0 to their greatest, the worst of each part of them.

    Example:
        >>> curve([0.0, 1.0, 2.0], 3)
        ' ▄█'
    """
    if not values:
        return ""
    greatest = max(values)
    parts = min(width, len(values))
    worst = [max(values[len(values) * i // parts : len(values) * (i + 1) // parts]) for i in range(parts)]
    return "".join(_LEVELS[round(8 * value / greatest) if greatest > 0 else 0] for value in worst)


def drift_table(forms: Mapping[str, Mapping[str, Any]]) -> Table:
    """The drift of every form of a build report, with the error of each answer over the stream."""
    made = table(
        "Against FP32", "form", "output", "answers", "cosine ≥", "mean error", "top-1", "last/second tenth",
        "error by step, 0 … greatest", right=(2, 3, 4, 5, 6),
    )  # fmt: skip
    for name, told in forms.items():
        for drift in told.get("drift", ()):
            agreement = "" if drift["agreement"] is None else f"{drift['agreement']:.1%}"
            made.add_row(
                plain(name), plain(drift["output"]), str(drift["steps"]), f"{drift['cosine']:.5f}",
                f"{drift['mean_error']:.2e}", agreement, f"{drift['growth']:.2f}", curve(drift["errors"]),
            )  # fmt: skip
    return made


def floats_table(forms: Mapping[str, Mapping[str, Any]]) -> Table:
    """What the forms leave in float, by reason."""
    made = table("Left in float", "form", "reason", "layers and histories")
    for name, told in forms.items():
        reasons: dict[str, list[str]] = {}
        for layer, reason in told.get("floats", {}).items():
            reasons.setdefault(reason, []).append(layer)
        for reason, layers in reasons.items():
            shown = ", ".join(layers[:4]) + (f" and {len(layers) - 4} more" if len(layers) > 4 else "")
            made.add_row(plain(name), plain(reason), plain(shown))
    return made
