"""Holds a network to the frame rate it was trained at: which frames it is stepped with, told by their stamps.

A network of moving pictures learnt from frames a fixed time apart. The pacer lays a grid of that period over the
stamps and gives every point of the grid the frame nearest to it: frames between are passed over, points without a frame
are a gap, and a gap is treated by policy.

==========  =======================================================  ============================
policy      a gap of up to ``threshold`` seconds                     a longer one
==========  =======================================================  ============================
``skip``    the next frame is stepped once, as if nothing were lost  likewise; with a threshold: reset
``repeat``  the next frame is stepped for every point missed, too    reset
``reset``   the next frame is stepped once                           reset
==========  =======================================================  ============================

Stamps need not be regular: the grid follows a source whose clock runs up to one percent fast or slow, and jitter of
less than half a frame time passes over nothing.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal, get_args

from edgeco.errors import SpecError

Gap = Literal["skip", "repeat", "reset"]
POLICIES: tuple[str, ...] = get_args(Gap)
THRESHOLD = 1.0
"""Seconds: the longest gap that ``repeat`` and ``reset`` bridge unless told."""

RATE, STAMP, CLOCK, GAP = "rate", "stamp", "clock", "gap"
"""Why: between two points of the grid; a stamp that does not rise; a clock that began anew; points were missed."""

_FOLLOW = 0.02
"""Share of a frame's distance from its point by which the grid moves: follows a clock one percent off, not jitter."""
_DELTAS = 9
"""Distances between frames whose median is the source's own frame time."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a frame.

    Args:
        times: how often the network is stepped with it: 0 is passed over.
        reset: whether its state is reset before.
        why: ``RATE``, ``STAMP``, ``CLOCK`` or ``GAP`` where the frame is not simply the next; empty where it is.
        missed: points of the grid without a frame just before it.
    """

    times: int
    reset: bool = False
    why: str = ""
    missed: int = 0


_STEP = Decision(1)


class Pacer:
    """Decides frame by frame. Holds no thread and reads no clock: one pacer per stream.

    Args:
        fps: frames per second the network was trained at; None or 0 steps with every frame.
        gap: what a gap does: ``skip``, ``repeat`` or ``reset``.
        threshold: seconds; a longer gap resets. None for a second, and for never under ``skip``.

    Raises:
        SpecError: a rate, policy or threshold that is none.

    Example:
        >>> pacer = Pacer(10.0)
        >>> [pacer.decide(stamp).times for stamp in (0.0, 0.05, 0.1, 0.15, 0.2)]
        [1, 0, 1, 0, 1]
    """

    def __init__(self, fps: float | None, gap: Gap = "skip", threshold: float | None = None) -> None:
        if fps is not None and not (math.isfinite(fps) and 0 <= fps <= 100_000):
            raise SpecError(f"the rate of the network is {fps}: give frames per second above 0, or 0 for every frame")
        if gap not in POLICIES:
            raise SpecError(f"gap is {gap!r}; choose {', '.join(POLICIES[:-1])} or {POLICIES[-1]}")
        if threshold is not None and not (math.isfinite(threshold) and threshold >= 0):
            raise SpecError(f"the threshold of a gap is {threshold}: give seconds, 0 or more")
        self.fps = fps or None
        self.gap = gap
        self.threshold = (math.inf if gap == "skip" else THRESHOLD) if threshold is None else threshold
        self._period = 1.0 / self.fps if self.fps else 0.0
        self._counts: Counter[str] = Counter()
        self.restart()

    @property
    def counts(self) -> Mapping[str, int]:
        """So far: ``stepped`` and ``passed`` frames, ``repeats`` beyond a frame's first step, ``gaps``, points
        ``missed`` in them, ``resets``, and frames passed over or begun anew by why."""
        return dict(self._counts)

    def restart(self) -> None:
        """Forget all stamps: the next frame is the first. Counts stay."""
        self._due: float | None = None
        self._seen = -math.inf
        self._deltas: deque[float] = deque(maxlen=_DELTAS)
        self._frames = 0

    def due(self, stamp: float) -> bool:
        """Whether ``decide`` could step with a frame of this stamp, whatever else is decided before; changes nothing.

        May be called from another thread, to spare frames that are passed over their preprocessing.
        """
        due = self._due
        return due is None or not self._period or stamp >= due - self._slack or stamp < self._seen

    def decide(self, stamp: float) -> Decision:
        """Take the next frame's stamp, in seconds, and say what to do with the frame."""
        raise NotImplementedError
