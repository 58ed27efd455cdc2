"""Pages: well-formed, escaped, and drawings that show the numbers they are given."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeco.page import bars, chart, document, folded, histogram, note, paragraph, section, table

NASTY = """<script>alert('&')</script>"""


def parsed(html: str) -> ElementTree.Element:
    """A document as XML, which ours are but for the doctype and ``meta``."""
    text = re.sub(r"<(meta|br)([^>]*)>", r"<\1\2/>", html.removeprefix("<!doctype html>\n"))
    return ElementTree.fromstring(text)


def drawn(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def test_every_text_is_escaped() -> None:
    made = document(
        NASTY,
        [
            section(NASTY, paragraph(NASTY), folded(NASTY, note(NASTY, NASTY))),
            table((NASTY, "b"), [(NASTY, 1), (NASTY, None)]),
            chart({NASTY: [(0, 1), (1, 2)], "b": [(0, 1), (1, 2)]}, title=NASTY, across=NASTY),
            chart({NASTY: []}, title=NASTY, across=NASTY),
            bars([(NASTY, 1.0, 1.0, NASTY)], NASTY),
            table(("", "drawn"), [("a", histogram([1, 2], title=NASTY))], drawn=(1,)),
        ],
    )
    root = parsed(made)
    assert "script" not in {element.tag for element in root.iter()}
    assert "".join(root.itertext()).count(NASTY) >= 12


def test_a_page_loads_nothing() -> None:
    made = document("a", [chart({"x": [(0, 0), (1, 1)]}, title="t", across="x")])
    assert not re.search(r"(href|src)=|url\(|@import|<script|http", made)


def test_what_is_empty_is_left_out() -> None:
    assert section("a") == section("a", "", "") == folded("a", "") == table(("a",), []) == bars([], "a") == ""
    assert histogram([]) == histogram([0, 0]) == ""


def test_figures_stand_to_the_right_and_texts_to_the_left() -> None:
    root = drawn(table(("a", "b", "c"), [("x", "12 %", 1234567), ("y", "-1.5e-3", None)]))
    assert [cell.get("class") for cell in root.iter("td")] == [None, "n", "n"] * 2
    assert [cell.get("class") for cell in root.iter("th")] == [None, "n", "n"]
    assert [cell.text for cell in root.iter("td")][2::3] == ["1,234,567", "unavailable"]


def points(svg: str) -> list[tuple[float, float]]:
    line = next(drawn(svg).iter("polyline")).attrib["points"]
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.split())]


def test_a_curve_rises_where_its_numbers_do() -> None:
    made = points(chart({"a": [(0, 0.0), (5, 1.0), (10, 0.5)]}, title="t", across="x", low=0, high=1))
    (x0, y0), (x1, y1), (x2, y2) = made
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11) and y1 < y2 < y0
    assert y2 == pytest.approx((y0 + y1) / 2, abs=0.11)


def test_a_logarithmic_curve_has_equal_steps_for_equal_factors() -> None:
    made = points(chart({"a": [(0, 1e-4), (1, 1e-3), (2, 1e-2), (3, 0.0)]}, title="t", across="x", logarithmic=True))
    ys = [y for _, y in made]
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.11) and ys[3] == max(ys)


@given(
    st.lists(st.floats(allow_nan=False, width=32), min_size=2, max_size=20),
    st.booleans(),
    st.one_of(st.none(), st.floats(-1, 2)),
)
def test_any_numbers_stay_within_the_drawing(values: list[float], logarithmic: bool, limit: float | None) -> None:
    svg = chart({"a": list(enumerate(values))}, title="t", across="x", logarithmic=logarithmic, limit=limit)
    for x, y in points(svg):
        assert 0 <= x <= 860 and 0 <= y <= 190 and math.isfinite(x + y)


def test_only_several_curves_have_a_legend_and_many_are_told_apart() -> None:
    one = chart({"alone": [(0, 0), (1, 1)]}, title="t", across="x")
    assert "alone" not in {text.text for text in drawn(one).iter("text")}
    several = drawn(chart({f"form {i}": [(0, i), (1, i)] for i in range(9)}, title="t", across="x"))
    assert {f"form {i}" for i in range(9)} <= {text.text for text in several.iter("text")}
    assert len({line.get("class") for line in several.iter("polyline")}) == 9


def test_what_is_clipped_is_red() -> None:
    whole, cut = (drawn(histogram([5, 3, 1, 1], kept=kept)) for kept in (1.0, 0.5))
    assert [path.get("class") for path in whole.iter("path")] == ["kept"]
    assert [path.get("class") for path in cut.iter("path")] == ["kept", "clipped", "edge"]


def test_bars_are_as_long_as_their_numbers() -> None:
    root = drawn(bars([("a", 4.0, 1.0, "1 of 4"), ("b", 2.0, 2.0, "")], "t"))
    widths = [float(bar.get("width", "0")) for bar in root.iter("rect")]
    assert widths == pytest.approx([430, 107.5, 215, 215], abs=0.1)
