"""The figures of ``precision.py`` as a page: every network's cosine, error and agreement by step, in every form.

``python benchmarks/precision_page.py precision.json -o precision.html``
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeco.page import bars, chart, document, paragraph, section, table

CURVES = (
    ("cosines", "Cosine with FP32's answer, by step: the least of all streams", {"high": 1.0}),
    ("errors", "Relative error, by step: the greatest of all streams", {"logarithmic": True}),
    ("agreements", "Answers with FP32's greatest class, by parts of the streams", {"high": 1.0, "percent": True}),
)
HEAD = ("form", "answers", "cosine, least", "error, mean", "last / second tenth", "top-1", "right, held out")


def page(known: Sequence[Mapping[str, Any]]) -> str:
    """One HTML document."""
    return document("FP16 and INT8 against FP32", [_network(told) for told in known])


def _network(told: Mapping[str, Any]) -> str:
    rows = [_row(name, drift, told.get("accuracy")) for name, drift in told["drift"].items()]
    about = (
        f"Receptive field {told['receptive_field']} frames, {told['streams']} streams of {told['steps']} steps each."
    )
    charts = []
    for key, title, options in CURVES:
        curves = {name: _points(drift[key], told["steps"]) for name, drift in told["drift"].items() if drift[key]}
        low = {"low": min(0.9, *(y for line in curves.values() for _, y in line))} if key == "agreements" else {}
        charts.append(chart(curves, title=title, across="step", **options, **low) if curves else "")
    return section(told["name"], paragraph(about), table(HEAD, rows), *charts, *_speed(told.get("milliseconds", {})))


def _row(name: str, drift: Mapping[str, Any], right: Mapping[str, Sequence[int]] | None) -> tuple[str | int, ...]:
    agreed = "" if drift["agreement"] is None else f"{drift['agreement']:.1%}"
    counted = "" if right is None else f"{right[name][0]} of {right[name][1]}, FP32 {right['fp32'][0]}"
    figures = (f"{drift['cosine']:.5f}", f"{drift['mean_error']:.1e}", f"{drift['growth']:.2f}")
    return (name, drift["steps"], *figures, agreed, counted)


def _points(values: Sequence[float], steps: int) -> list[tuple[float, float]]:
    return [(round((place + 0.5) * steps / len(values)), value) for place, value in enumerate(values)]


def _speed(milliseconds: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    made = []
    for threads, forms in milliseconds.items():
        rows = [(name, found["median"], found["median"], f"{found['median']:.4g} ms") for name, found in forms.items()]
        made.append(bars(rows, f"Median of a step, {threads} thread{'s' if threads != '1' else ''}"))
    return made


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("precision.html"))
    options = parser.parse_args()
    options.out.write_text(page(json.loads(options.figures.read_text())), encoding="utf-8")


if __name__ == "__main__":
    main()
