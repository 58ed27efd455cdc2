"""The page of the precision figures: every network and form that was measured is drawn."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from precision_page import page  # noqa: E402  (it is no part of the package)


def test_every_network_is_drawn_in_every_form() -> None:
    known = json.loads((BENCHMARKS / "precision.json").read_text(encoding="utf-8"))
    root = ElementTree.fromstring(re.sub(r"<meta([^>]*)>", r"<meta\1/>", page(known).removeprefix("<!doctype html>\n")))
    assert [heading.text for heading in root.iter("h2")] == [told["name"] for told in known]
    curves = list(root.iter("polyline"))
    assert len(curves) == sum(3 * len(told["drift"]) for told in known)
    right = [cell.text for cell in root.iter("td") if "FP32" in (cell.text or "")]
    assert len(right) == sum(len(told["drift"]) for told in known if "accuracy" in told)


def test_the_targets_of_precision_hold_in_the_figures() -> None:
    """As docs/precision.md says: FP16 within 1e-2, no error that grows, a point or a case lost in INT8 at most."""
    for told in json.loads((BENCHMARKS / "precision.json").read_text(encoding="utf-8")):
        for form, drift in told["drift"].items():
            assert drift["growth"] <= 1.2, (told["name"], form)
            assert form != "fp16" or drift["error"] <= 1e-2, told["name"]
            assert drift["steps"] >= 10 * told["receptive_field"], told["name"]
        for form, (right, count) in told.get("accuracy", {}).items():
            assert told["accuracy"]["fp32"][0] - right <= max(1, 0.01 * count), (told["name"], form)
