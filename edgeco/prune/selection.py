"""Which units go: ranked over all families in portions that keep widths round, as many as a budget asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgeco.errors import SpecError
from edgeco.graph.channels import Family
from edgeco.prune.importance import Scores

Removed = dict[str, "np.ndarray[tuple[int], np.dtype[np.int64]]"]
"""Unit numbers by family, ascending."""


@dataclass(frozen=True)
class Limits:
    """What every family keeps.

    Attributes:
        round_to: widths are multiples of it, or stay as they were.
        least: units that stay at least.
        cap: the share of a family that may go.
        widths: least units for single families, by name.
    """

    round_to: int = 1
    least: int = 2
    cap: float = 0.9
    widths: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        if self.round_to < 1 or self.least < 1 or not 0 <= self.cap < 1:
            raise SpecError(
                f"round_to {self.round_to} and min_width {self.least} must be at least 1, "
                f"and the cap {self.cap} from 0 to below 1."
            )

    def portions(self, family: Family) -> list[int]:
        """How many units go at a time, in turn: after each, the width is one that is allowed."""
        least = max(self.least, (self.widths or {}).get(family.name, 1), int(np.ceil(family.units * (1 - self.cap))))
        step = self.round_to // int(np.gcd(self.round_to, family.each))
        sizes = [k for k in range(family.units - 1, least - 1, -1) if k % step == 0]
        return [a - b for a, b in zip([family.units, *sizes], sizes, strict=False)]


@dataclass(frozen=True)
class Ranking:
    """Portions of all families, the least important first: (family, unit numbers)."""

    portions: list[tuple[str, tuple[int, ...]]]

    def first(self, count: int) -> Removed:
        """The units of the first so many portions."""
        found: dict[str, list[int]] = {}
        for name, units in self.portions[:count]:
            found.setdefault(name, []).extend(units)
        return {name: np.array(sorted(units), dtype=np.int64) for name, units in found.items()}


def rank(families: Sequence[Family], scores: Sequence[Scores], limits: Limits) -> Ranking:
    """All portions in the order in which they would go: by the mean score of their units."""
    rows: list[tuple[float, int, int, tuple[int, ...]]] = []
    for place, (family, own) in enumerate(zip(families, scores, strict=True)):
        order = np.argsort(own, kind="stable")
        done, before = 0, -np.inf
        for turn, count in enumerate(limits.portions(family)):
            units = order[done : done + count]
            done += count
            before = max(before, float(own[units].mean()))
            rows.append((before, place, turn, tuple(units.tolist())))
    rows.sort(key=lambda row: row[:3])
    return Ranking([(families[place].name, units) for _, place, _, units in rows])


MEASURED = 12
"""Prunings that are tried where a figure is measured, spread evenly over the ranking."""


def first_that_keeps(ranking: Ranking, figure: Callable[[Removed], float], allowed: float) -> Removed | None:
    """The first of some prunings, ever more of the ranking, that brings a measured figure to what is allowed.

    Time does not fall with every channel: engines work on blocks of 8 or 16, and a width between may cost more than
    the whole. So it is tried, from the least pruning on, and none is taken that was not measured.
    """
    whole = len(ranking.portions)
    for count in sorted({-(-whole * i // MEASURED) for i in range(1, MEASURED + 1)}):
        removed = ranking.first(count)
        if figure(removed) <= allowed:
            return removed
    return None


def fewest(ranking: Ranking, figure: Callable[[Removed], float], allowed: float) -> Removed | None:
    """The fewest portions that bring a figure to what is allowed; None if all of them do not."""
    low, high = 0, len(ranking.portions)
    if figure(ranking.first(high)) > allowed:
        return None
    while low < high:
        middle = (low + high) // 2
        if figure(ranking.first(middle)) <= allowed:
            high = middle
        else:
            low = middle + 1
    return ranking.first(high)
