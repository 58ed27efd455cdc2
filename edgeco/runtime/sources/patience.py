"""How long a live source is waited for, and how it is tried again."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from edgeco.errors import SpecError


@dataclass(frozen=True, slots=True)
class Patience:
    """Times in seconds. Given to ``open_source`` as options, or behind a ``#`` of a network URI.

    Args:
        open_timeout: for opening a network stream or a pipeline.
        read_timeout: for one frame of it; then the connection counts as lost. (OpenCV's own for cameras is 10 s.)
        stall: without a frame for so long, a running source is called stalled.
        hang: a driver that does not return for so long is given up, and the source fails.
        attempts: how often in a row a lost source is opened again before it fails; None for ever.
        patient: whether a source that cannot be opened the first time is tried again too, rather than failing at once.
        first_pause, longest_pause: pauses before an attempt begin at the first and double up to the longest.
        max_age: frames older than this when they are asked for are dropped; None for any age.
    """

    open_timeout: float = 10.0
    read_timeout: float = 5.0
    stall: float = 2.0
    hang: float = 30.0
    attempts: int | None = None
    patient: bool = False
    first_pause: float = 0.5
    longest_pause: float = 30.0
    max_age: float | None = None

    def __post_init__(self) -> None:
        for name in ("open_timeout", "read_timeout", "stall", "hang", "first_pause", "longest_pause", "max_age"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
                raise SpecError(f"{name} is {value!r}: give seconds above 0")
        if self.attempts is not None and (isinstance(self.attempts, bool) or self.attempts < 0):
            raise SpecError(f"attempts is {self.attempts!r}: give a whole number from 0 on, or nothing for no limit")


class Pauses:
    """Growing pauses between attempts: each is drawn from the upper half of a bound that doubles up to a cap.

    Many clients that lost one server then do not come back all at once.
    """

    def __init__(self, first: float, longest: float, generator: random.Random | None = None) -> None:
        self._first, self._longest = first, longest
        self._random = generator or random.Random()
        self.reset()

    def reset(self) -> None:
        self._bound = min(self._first, self._longest)

    def __next__(self) -> float:
        bound, self._bound = self._bound, min(self._bound * 2, self._longest)
        return bound * self._random.uniform(0.5, 1.0)
