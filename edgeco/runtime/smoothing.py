"""Calmer answers: a moving mean of the scores, and classes that must hold for a while before they are shown."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from edgeco.errors import SpecError
from edgeco.runtime.result import Result, Score, activate

MOST = 100_000


class Smoother:
    """Smooths the valid answers of one stream, of its first output.

    Args:
        mean: answers that the moving mean is over; 1 for none. The first answers after a reset are meaned over as many
            as there are.
        dwell: answers in a row that a class must be the best in before it replaces the one shown; 1 for none.

    Raises:
        SpecError: a count below 1.
    """

    def __init__(self, mean: int = 1, dwell: int = 1) -> None:
        for name, count in (("mean", mean), ("dwell", dwell)):
            if not 1 <= count <= MOST:
                raise SpecError(f"{name} of smoothing is {count}: give a number of answers from 1 to {MOST}")
        self.mean, self.dwell = mean, dwell
        self.reset()

    def reset(self) -> None:
        """Forget all answers."""
        self._scores: deque[np.ndarray[Any, Any]] = deque(maxlen=self.mean)
        self._shown: int | None = None
        self._rival: int | None = None
        self._wins = 0

    def __call__(self, result: Result, top: int = 5) -> tuple[Score, ...]:
        """The best classes after smoothing, the one shown first and the others by score; empty if not valid."""
        if not result.valid:
            return ()
        answer = next(iter(result.outputs.values()))
        self._scores.append(activate(np.asarray(answer).astype(np.float64).ravel(), result.activation))
        scores = np.mean(self._scores, axis=0)  # anew each time: a running sum would drift over a month
        order = np.argsort(-scores, kind="stable")[:top].tolist()
        shown = self._choose(int(order[0]))
        order = [shown, *(index for index in order if index != shown)][:top]
        return tuple(Score(index, result.name_of(index), float(scores[index])) for index in order)

    def _choose(self, best: int) -> int:
        if self._shown is None:
            self._shown = best
        if best == self._shown:
            self._wins = 0
            return best
        self._wins = self._wins + 1 if best == self._rival else 1
        self._rival = best
        if self._wins >= self.dwell:
            self._shown, self._wins = best, 0
        return self._shown


def parse_smoothing(text: str) -> Smoother:
    """A smoother from text such as ``mean=8,dwell=5``.

    Raises:
        SpecError: the text says something else.

    Example:
        >>> parse_smoothing("mean=8").mean
        8
    """
    given: dict[str, int] = {}
    for part in text.split(","):
        name, _, count = part.strip().partition("=")
        if name not in ("mean", "dwell") or name in given or not (count.isascii() and count.isdigit()):
            raise SpecError(f"smoothing {part.strip()!r}: give mean=N, dwell=N or both, as in mean=8,dwell=5")
        given[name] = int(count[:20])
    return Smoother(**given)
