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
from typing import Literal, get_args

from edgeco.errors import SpecError

Gap = Literal["skip", "repeat", "reset"]
POLICIES: tuple[str, ...] = get_args(Gap)
THRESHOLD = 1.0
"""Seconds: the longest gap that ``repeat`` and ``reset`` bridge unless told."""

MOST_REPEATED = 60.0
"""Seconds: the longest gap that ``repeat`` may bridge, for a frame's steps are not interrupted."""
FARTHEST = 1e12
"""Seconds: a stamp beyond it is none."""

RATE, STAMP, CLOCK, GAP = "rate", "stamp", "clock", "gap"
"""Why: between two points of the grid; a stamp that does not rise; a clock that began anew; points were missed."""

_COUNTED = ("stepped", "passed", "repeats", "gaps", "missed", "resets", RATE, STAMP, CLOCK)

_FOLLOW = 0.02
"""Share of a frame's distance from its point by which the grid moves: follows a clock one percent off, not jitter."""
_DELTAS = 8
"""Earlier distances between frames whose median is the source's own frame time."""


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
_BETWEEN = Decision(0, why=RATE)
_NO_STAMP = Decision(0, why=STAMP)


class Pacer:
    """Decides frame by frame. Holds no thread and reads no clock: one pacer per stream.

    Args:
        fps: frames per second the network was trained at; None or 0 steps with every frame.
        gap: what a gap does: ``skip``, ``repeat`` or ``reset``.
        threshold: seconds; a longer gap resets. None for a second, and for never under ``skip``; a minute at most
            under ``repeat``.

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
        if gap == "repeat" and (threshold or 0) > MOST_REPEATED:
            raise SpecError(
                f"the threshold of a gap is {threshold}: frames are repeated for {MOST_REPEATED:g} seconds at most; "
                "give less, or the policy skip"
            )
        self.fps = fps or None
        self.gap = gap
        self.threshold = (math.inf if gap == "skip" else THRESHOLD) if threshold is None else threshold
        self._period = 1.0 / self.fps if self.fps else 0.0
        self._counts = Counter(dict.fromkeys(_COUNTED, 0))
        self.restart()

    @property
    def counts(self) -> Mapping[str, int]:
        """So far: ``stepped`` and ``passed`` frames, ``repeats`` beyond a frame's first step, ``gaps``, points
        ``missed`` in them, ``resets``, and under ``RATE``, ``STAMP`` and ``CLOCK`` the frames of these decisions."""
        return dict(self._counts)

    def restart(self) -> None:
        """Forget all stamps: the next frame is the first. Counts stay."""
        self._due: float | None = None
        self._seen = -math.inf
        self._deltas: deque[float] = deque(maxlen=_DELTAS)
        self._taken = 0

    def due(self, stamp: float, *, ahead: bool = False) -> bool:
        """Whether ``decide`` would step with a frame of this stamp; nothing is changed.

        Args:
            stamp: of the next frame, or of a later one.
            ahead: frames before it may be undecided, and another thread may be deciding on them. True then means
                "perhaps", and false is still certain.
        """
        due = self._due
        if due is None or not self._period:
            return True
        if not self._seen < stamp:
            return ahead or self._seen - stamp > THRESHOLD
        return stamp >= due - (self._period / 2 if ahead else self._slack(stamp))

    def decide(self, stamp: float) -> Decision:
        """Take the next frame's stamp, in seconds, and say what to do with the frame."""
        decision = self._decide(stamp) if self._period else _STEP
        counts = self._counts
        counts["stepped" if decision.times else "passed"] += 1
        counts["repeats"] += max(0, decision.times - 1)
        counts["gaps"] += decision.missed > 0
        counts["missed"] += decision.missed
        counts["resets"] += decision.reset
        if decision.why and decision.why != GAP:
            counts[decision.why] += 1
        return decision

    def _decide(self, stamp: float) -> Decision:
        if not abs(stamp) <= FARTHEST:
            return _NO_STAMP
        if self._due is None:
            self._begin(stamp)
            return _STEP
        if stamp <= self._seen:
            if self._seen - stamp <= THRESHOLD:
                return _NO_STAMP
            self._begin(stamp)
            return Decision(1, math.isfinite(self.threshold), CLOCK)
        slack = self._slack(stamp)
        self._deltas.append(stamp - self._seen)
        self._seen = stamp
        late = stamp - self._due
        return self._take(stamp, late) if late >= -slack else _BETWEEN

    def _slack(self, stamp: float) -> float:
        """How far before its point a frame of this stamp may lie: half of what usually lies between two frames."""
        deltas = sorted((*self._deltas, stamp - self._seen))
        return 0.5 * min(self._period, deltas[len(deltas) // 2])

    def _take(self, stamp: float, late: float) -> Decision:
        """Step with a frame that is so late for its point, and move the grid on."""
        period = self._period
        missed = max(0, math.floor(late / period + 0.5))
        if missed * period > self.threshold:
            self._begin(stamp)
            return Decision(1, True, GAP, missed)
        # The grid begins where the first frame happens to lie: the first dozens count more than those after them.
        follow = max(_FOLLOW, 1 / (self._taken + 1))
        self._due = stamp - late + (missed + 1) * period + follow * (late - missed * period)
        self._taken += 1
        if not missed:
            return _STEP
        return Decision(1 + missed if self.gap == "repeat" else 1, False, GAP, missed)

    def _begin(self, stamp: float) -> None:
        self._deltas.clear()
        self._seen, self._due, self._taken = stamp, stamp + self._period, 1
