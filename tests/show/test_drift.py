"""Drift as a table and a curve."""

from __future__ import annotations

import io

from rich.console import Console

from edgeco.show.drift import curve, drift_table, floats_table


def test_a_curve_shows_the_worst_of_each_part() -> None:
    assert curve([0.0, 1.0, 2.0], 3) == " ▄█"
    assert curve([0, 4, 0, 0, 0, 2], 2) == "█▄"
    assert curve([], 5) == "" and curve([0.0, 0.0], 2) == "  "


def test_tables_of_forms() -> None:
    drift = {"output": "y", "steps": 9, "cosine": 0.99, "mean_error": 0.01, "agreement": None, "growth": 1.0}
    forms = {"int8": {"drift": [{**drift, "errors": [0, 1]}], "floats": {f"w{i}": "narrow" for i in range(6)}}}
    written = io.StringIO()
    console = Console(width=200, file=written)
    console.print(drift_table(forms))
    console.print(floats_table(forms))
    text = written.getvalue()
    assert "0.99000" in text and " █" in text and "w0, w1, w2, w3 and 2 more" in text
