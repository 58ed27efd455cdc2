"""docs/zoo.md: its ratios and rows, and that it is what its figures are drawn as. Nothing is measured here."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgeco.models.catalogue import NETWORKS, known

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RESULT: dict[str, Any] = {
    "name": "st-gcn",
    "rate": 4,
    "clip_macs": 17.2e9,
    "step_macs": 0.05e9,
    "step_macs_executed": 0.1e9,
    "state_bytes": 5_000_000,
    "clip": {"torch": 0.4, "onnxruntime": 0.2, "openvino": "RuntimeError: no such operator"},
    "step": {"edgeco": 0.001, "openvino": 0.002},
    "peer": {"reason": "its steps are wrong"},
    "rounds": 5,
    "machine": "a machine",
}


def drawing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("zoo_drawing", BENCHMARKS / "zoo_drawing.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def test_an_answer_takes_the_steps_of_a_round() -> None:
    page = drawing()
    assert page.operations_ratio(RESULT, executed=False) == pytest.approx(17.2 / (4 * 0.05))
    assert page.operations_ratio(RESULT, executed=True) == pytest.approx(17.2 / (4 * 0.1))
    assert page.speed_ratio(RESULT) == pytest.approx(0.2 / (4 * 0.001))  # the fastest of both sides
    assert page.speed_ratio(RESULT, "torch") == pytest.approx(0.4 / (4 * 0.001))
    assert page.speed_ratio(RESULT, "openvino") is None


def test_what_does_not_run_is_no_time() -> None:
    page = drawing()
    assert page.least({"torch": "it failed", "onnxruntime": 3.0, "openvino": 2.0}) == 2.0
    assert page.least({"torch": "it failed"}) is None
    nothing = {**RESULT, "step": {"edgeco": "it failed"}}
    assert page.speed_ratio(nothing) is None
    assert page.peer_ratio(RESULT) is None
    assert page.peer_ratio({**RESULT, "peer": {"seconds": 0.01, "state_bytes": 1}}) == pytest.approx(10)


def test_rows_say_what_was_published_and_measured() -> None:
    page = drawing()
    row = page.operations_row(RESULT)
    assert row[:3] == ["st-gcn (an answer every 4 steps)", "16.7", "0.27 an answer"]
    assert row[3:] == ["17.2", "0.05", "86", "0.1", "43", "5", "–"]
    assert page.times_row(RESULT)[1:] == ["400", "200", "–", "1", "2", "100", "50", "50", "–", "–"]
    assert len(page.operations_row({**RESULT, "name": "unheard-of"})) == len(row)


def test_the_page_gives_every_reason_once_and_names_whom_it_is_of() -> None:
    other = {**RESULT, "name": "agcn"}
    text = drawing().draw([RESULT, other], "a machine")
    assert text.count("its steps are wrong") == 1 and "st-gcn, agcn: no step of the reference library" in text
    assert "no clip in openvino: RuntimeError: no such operator." in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 2, "two tables, each as wide as its head"


def test_a_network_counted_but_not_timed() -> None:
    text = drawing().draw([RESULT, {**RESULT, "name": "agcn", "clip": {}, "step": {}, "rounds": 0}], "a machine")
    assert "- agcn: not timed yet." in text
    assert len([line for line in text.splitlines() if line.startswith("| agcn")]) == 1


def test_the_page_in_docs_is_drawn_from_the_figures_kept() -> None:
    """If it fails: ``python benchmarks/zoo_table.py --only draw``, or measure the network that changed."""
    rows = json.loads((BENCHMARKS / "zoo.json").read_text(encoding="utf-8"))
    machines = "; ".join(dict.fromkeys(row["machine"] for row in rows if row["rounds"]))
    written = (BENCHMARKS.parent / "docs" / "zoo.md").read_text(encoding="utf-8")
    assert written == drawing().draw(rows, machines)
    assert [row["name"] for row in rows] == [name for name in NETWORKS if name in {row["name"] for row in rows}]


def test_the_figures_kept_are_of_these_networks() -> None:
    counted = {entry["name"]: entry for entry in known()}
    for row in json.loads((BENCHMARKS / "zoo.json").read_text(encoding="utf-8")):
        now = counted[row["name"]]
        assert (row["clip_macs"], row["step_macs"], row["rate"]) == (now["clip_macs"], now["step_macs"], now["rate"])


@pytest.mark.parametrize(("name", "least"), [("x3d-l", 15.3), ("x3d-m", 15.1), ("x3d-s", 12.1), ("st-gcn-star", 107)])
def test_a_step_executes_so_many_times_less(name: str, least: float) -> None:
    page, rows = drawing(), json.loads((BENCHMARKS / "zoo.json").read_text(encoding="utf-8"))
    result = next(row for row in rows if row["name"] == name)
    assert page.operations_ratio(result, executed=True) >= least
