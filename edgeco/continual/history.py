"""Histories: values that later steps read again, their ages and their border.

Readers share a history only where they agree on what lies before its first element: a padded convolution wants zeros,
a padded max-pool minus infinity, and a reader that never looks there is content with either.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import fx

from edgeco.graph.timeline import Border, Timeline

MAX_PERIOD = 16
MAX_RATE = 16
"""Steps after which the work of the steps repeats, at most."""

Mode = Literal["ages", "ring", "ordered"]
Storage = Literal["slots", "ring", "mirror", "carry"]


@dataclass
class Draft:
    """A history under construction.

    Attributes:
        base: node of the step graph whose element is kept, stored as (rows * rows_per_stream, *shape).
        rate, phase: it is written at steps congruent to `phase` modulo `rate`.
        mode: single ages; the whole past in any order; the whole past in order.
        needs_from, needs_until: steps between which some reader needs elements as computed, not as border.
        ends: timeline that tells where a recording's elements end.
        reads: node standing for the element of each age (mode "ages").
        past: node standing for the past as one tensor (other modes).
        newest: alias of the newest element, for readers with a border, and its axis of rows (`batch`).
        name: name of the history it becomes, if it does.
    """

    base: fx.Node
    mode: Mode
    shape: tuple[int, ...]
    dtype: torch.dtype
    rows_per_stream: int
    border: Border | None
    starts_at: int
    ends: Timeline
    needs_from: int
    needs_until: int
    rate: int = 1
    phase: int = 0
    depth: int = 1
    reads: dict[int, fx.Node] = field(default_factory=dict)
    past: fx.Node | None = None
    newest: fx.Node | None = None
    batch: int = 0
    name: str | None = None

    def serves(self, border: Border | None, timeline: Timeline) -> bool:
        """Whether a reader that wants `border` before ``timeline.starts_at`` may read this history (and join it)."""
        if border is None:
            inside = self.starts_at <= timeline.starts_at and timeline.ends_at(0) <= self.ends.ends_at(0)
            return self.border is None or inside
        if self.border is None:
            return timeline.starts_at <= self.needs_from and self.needs_until <= timeline.ends_at(0)
        same_span = self.starts_at == timeline.starts_at and self.ends.ends_at(0) == timeline.ends_at(0)
        return self.border == border and same_span

    def join(self, border: Border | None, timeline: Timeline) -> None:
        """Let that reader in."""
        if border is not None and self.border is None:
            self.border, self.starts_at, self.ends = border, timeline.starts_at, timeline
        if border is None:
            self.needs_from = min(self.needs_from, timeline.starts_at)
            self.needs_until = max(self.needs_until, timeline.ends_at(0))
            self.starts_at = self.starts_at if self.border is not None else self.needs_from

    @property
    def bytes(self) -> int:
        """Bytes of one element of one stream."""
        count = self.rows_per_stream * self.dtype.itemsize
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class Mark:
    """What an alias of the newest element becomes after the end of a recording: border.

    Where that is a copy of the last element, `history` holds it, rows outermost; the alias has them in axis `batch`.
    """

    border: Border
    ends: Timeline
    history: str | None
    batch: int


@dataclass(frozen=True)
class History:
    """A history of the finished step program; field for field what the manifest says of it, plus where it ends.

    Attributes:
        name: ``h000`` and so on; graph inputs are ``h000_a1`` (age 1) or ``h000_past``, the output is ``h000_new``.
        storage: slots, ring, mirror, or carry for what becomes itself.
        shape: one row's element.
        depth: elements kept, the greatest age read.
        ages: ages read one by one (slots, carry); empty where the past is read whole.
        border: what lies before the first element.
        starts_at: what is written before this step counts as border.
        before: "first" where copies of the element written in step `starts_at` lie before it, instead of `border`.
        buffers: buffers a runtime keeps.
        rate, phase: steps congruent to `phase` modulo `rate` write an element; ages count elements.
        ends: timeline that tells where a recording's elements end; None where no reader looks beyond.
    """

    name: str
    storage: Storage
    shape: tuple[int, ...]
    dtype: torch.dtype
    depth: int
    ages: tuple[int, ...]
    border: float
    starts_at: int
    rows_per_stream: int
    buffers: int
    ends: Timeline | None
    rate: int = 1
    phase: int = 0
    before: Literal["border", "first"] = "border"

    def written(self, step: int) -> bool:
        """Whether a step writes an element."""
        return step % self.rate == self.phase

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the graph inputs this history feeds."""
        return tuple(f"{self.name}_a{age}" for age in self.ages) if self.ages else (f"{self.name}_past",)

    @property
    def output(self) -> str:
        """Name of the graph output that holds the newest element."""
        return f"{self.name}_new"


def longest_period(repeat: int) -> int:
    """Steps of the longest period, where the work of the steps repeats after `repeat`."""
    return max(MAX_PERIOD, 4 * repeat) // repeat * repeat


def choose_period(needs: list[tuple[int, int, int]], repeat: int = 1) -> tuple[int, list[int]]:
    """The common period of all slots and the buffers of each: least bytes, then the shortest period.

    Args:
        needs: (buffers at least, bytes of one buffer, rate) per history, each done in the longest period.
        repeat: the work of the steps repeats after so many, a multiple of every rate; the period is a multiple of it.

    Returns:
        The period in steps, and per history the smallest divisor of its turns in a period that is large enough.

    >>> choose_period([(3, 100, 1), (5, 100, 1), (2, 100, 1)])
    (6, [3, 6, 2])
    >>> choose_period([(3, 100, 1), (2, 100, 2)], repeat=2)
    (4, [4, 2])
    """
    best: tuple[int, int, list[int]] | None = None
    shortest = max((need * rate for need, _, rate in needs), default=1)
    for period in range(-(-shortest // repeat) * repeat, longest_period(repeat) + 1, repeat):
        counts = [next(d for d in range(need, period + 1) if period // r % d == 0) for need, _, r in needs]
        size = sum(count * bytes_ for count, (_, bytes_, _) in zip(counts, needs, strict=True))
        if best is None or (size, period) < best[:2]:
            best = (size, period, counts)
    assert best is not None, "a history deeper than the period belongs in a mirror"
    return best[1], best[2]
