"""What a step gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from edgeco.errors import SpecError


class Score(NamedTuple):
    """One class: ``label`` is its number as text where the network has no labels."""

    index: int  # type: ignore[assignment]  # shadows tuple.index, which nobody asks of a score
    label: str
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The answer to one frame. Everything in it is a copy and may be kept.

    Args:
        outputs: arrays by output name: (*shape) for one row, (rows, *shape) for more. To be read only if ``valid``.
        valid: whether this step gave an answer that describes real frames. Of several outputs at unequal rates,
            those not due in this step are as they were.
        warm: whether that answer rests on a whole receptive field of real frames.
        stamp: the frame's own time in seconds, None for an array.
        latency: seconds from the frame in hand to the answer in hand: preprocessing, copy in, run, copy out.
        step: number of the step since reset, from 0.
    """

    outputs: dict[str, np.ndarray[Any, Any]]
    valid: bool
    warm: bool
    stamp: float | None
    latency: float
    step: int
    rows: int = 1
    labels: tuple[str, ...] | None = None
    activation: str = "none"

    def top(self, k: int = 5, *, row: int = 0, output: str | None = None) -> tuple[Score, ...]:
        """The ``k`` best classes of one row, best first; equal scores in the order of the classes.

        Args:
            k: how many; fewer if the output has fewer.
            row: which row of a stream of several.
            output: which output; the first if None. It is read as one flat list of classes.

        Returns:
            Scores after the network's activation (softmax or sigmoid, in float64); an empty tuple if not ``valid``.

        Raises:
            SpecError: ``k``, ``row`` or ``output`` is not of this result.
        """
        if k < 1:
            raise SpecError(f"top takes at least 1 class, not {k}")
        if not 0 <= row < self.rows:
            raise SpecError(f"row {row} is not one of the {self.rows} rows of this result, 0 to {self.rows - 1}")
        name = next(iter(self.outputs)) if output is None else output
        if name not in self.outputs:
            raise SpecError(f"there is no output {name!r}; the network has {', '.join(self.outputs)}")
        if not self.valid:
            return ()
        answer = self.outputs[name]
        values = activate((answer if self.rows == 1 else answer[row]).astype(np.float64).ravel(), self.activation)
        best = np.argsort(-values, kind="stable")[:k]
        return tuple(Score(int(index), self.name_of(int(index)), float(values[index])) for index in best)

    def name_of(self, index: int) -> str:
        labels = self.labels
        return labels[index] if labels is not None and index < len(labels) else str(index)


def activate(values: np.ndarray[Any, Any], activation: str) -> np.ndarray[Any, Any]:
    """Scores of one flat list of classes: "softmax", "sigmoid" or "none"."""
    if activation == "softmax":
        weights = np.exp(values - values.max())
        return np.asarray(weights / weights.sum())
    if activation == "sigmoid":
        return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)))  # cannot overflow
    return values
