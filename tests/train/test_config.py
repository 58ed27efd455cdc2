"""A recipe from TOML and flags, and what is drawn from its search space."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Annotated

import pytest
from msgspec import Meta

from edgeco.errors import SpecError
from edgeco.train.config import Recipe, Space, add_flags, flags_of, make_recipe, recipe_from


class Wider(Recipe, frozen=True, kw_only=True):
    width: Annotated[int, Meta(ge=1, description="channels")] = 8


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_flags(parser, Wider())
    return parser.parse_args(arguments)


def test_every_field_is_a_flag() -> None:
    assert [flag.name for flag in flags_of(Wider(steps=9))] == list(Wider.__struct_fields__)
    recipe, _ = recipe_from(parsed("--peak", "0.1", "--width", "16", "--patience", "4", "--precision", "bf16"), Wider())
    assert (recipe.peak, recipe.width, recipe.patience, recipe.precision) == (0.1, 16, 4, "bf16")
    assert recipe.steps == Wider().steps and flags_of(Wider(steps=9))[0].default == 9


def test_flags_have_the_last_word_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "how.toml").write_text("steps = 50\npeak = 0.02\nwidth = 4\n[search]\nwidth = [4, 8]\n")
    recipe, space = recipe_from(parsed("--config", str(tmp_path / "how.toml"), "--peak", "0.5"), Wider())
    assert (recipe.steps, recipe.peak, recipe.width) == (50, 0.5, 4) and space.search == {"width": [4, 8]}


def test_a_recipe_makes_schedule_and_options() -> None:
    recipe = Recipe(steps=7, peak=0.5, average=0.9, seed=3)
    assert recipe.schedule().steps == 7 and recipe.schedule().peak == 0.5
    options = recipe.options(clip_norm=1.0)
    assert (options.average, options.seed, options.clip_norm) == (0.9, 3, 1.0)


def test_a_search_space_draws_within_it_and_always_the_same() -> None:
    space = Space(
        Wider(steps=9),
        {"peak": {"low": 1e-4, "high": 1e-1, "log": True}, "width": {"low": 2, "high": 5}, "batch": [16, 64]},
    )
    drawn = space.draw(1, 200)
    assert drawn[:20] == space.draw(1, 20) != space.draw(2, 20)
    assert all(1e-4 <= r.peak <= 1e-1 and 2 <= r.width <= 5 and r.batch in (16, 64) and r.steps == 9 for r in drawn)
    assert 50 < sum(r.peak < 3e-3 for r in drawn) < 150  # by factors, not by differences
    assert {r.width for r in drawn} == {2, 3, 4, 5}


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({"peek": [1]}, "unknown field 'peek'"),
        ({"peak": []}, "search.peak: give a list"),
        ({"peak": {"low": 2, "high": 1}}, "search.peak"),
        ({"peak": {"low": 0, "high": 1, "log": True}}, "search.peak"),
        ({"batch": [0]}, "Expected `int` >= 1"),
    ],
)
def test_what_is_no_space_is_refused(search: dict[str, object], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        Space(Wider(), search).draw(0, 1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("steps = ", "not valid TOML"),
        ("stepz = 1", "unknown field"),
        ("steps = 0", "Expected `int` >= 1"),
        ("search = 3", "search must be a table"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "how.toml").write_text(text)
    with pytest.raises(SpecError, match=told):
        recipe_from(parsed("--config", str(tmp_path / "how.toml")), Wider())


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        recipe_from(parsed("--config", "nowhere.toml"), Wider())
    assert make_recipe(Wider, {"width": 3}).width == 3
