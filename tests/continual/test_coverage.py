"""docs/operators.md says what the rules do: its table is theirs, its example runs."""

from __future__ import annotations

import re
from pathlib import Path

from edgeco.continual.coverage import OVER_TIME, name_of, table
from edgeco.continual.registry import registered

PAGE = (Path(__file__).parents[2] / "docs" / "operators.md").read_text(encoding="utf-8")


def test_the_page_holds_the_table() -> None:
    assert table() in PAGE, "print it with: python -m edgeco.continual.coverage"


def test_every_rule_is_described_and_none_that_is_gone() -> None:
    own = {name_of(rule) for rule in registered().values() if rule.__module__.startswith("edgeco.")}
    assert own | {"pointwise.pointwise"} == set(OVER_TIME)


def test_the_example_of_a_custom_operator_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(example, "operators.md", "exec"), {"__name__": "example"})
