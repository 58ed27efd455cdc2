"""What an evaluation counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class Confusion:
    """Answers counted by true class (row) and answered class (column).

    Example:
        >>> counted = Confusion(("a", "b"))
        >>> for truth, told in ((0, 0), (0, 1), (1, 1)):
        ...     counted.add(truth, told)
        >>> counted.accuracy, counted.recall["a"]
        (0.6666666666666666, 0.5)
    """

    labels: tuple[str, ...]
    counts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.labels), len(self.labels)), np.int64)

    def add(self, truth: int, told: int) -> None:
        """Count one answer."""
        self.counts[truth, told] += 1

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @property
    def accuracy(self) -> float | None:
        """Share of right answers; None where there is no answer."""
        return float(np.trace(self.counts)) / self.total if self.total else None

    @property
    def recall(self) -> dict[str, float | None]:
        """Share of right answers of every class; None of a class that the data have not."""
        sums = self.counts.sum(1)
        return {label: float(self.counts[i, i] / sums[i]) if sums[i] else None for i, label in enumerate(self.labels)}


@dataclass
class Mode:
    """A network in one way of using it.

    Attributes:
        windows: its answers at the end of every window.
        cases: one answer a case: the class with the greatest mean score over its windows.
    """

    windows: Confusion
    cases: Confusion

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "accuracy": self.windows.accuracy,
            "case_accuracy": self.cases.accuracy,
            "answers": self.windows.total,
            "recall": self.windows.recall,
            "confusion": self.windows.counts.tolist(),
            "case_confusion": self.cases.counts.tolist(),
        }


@dataclass
class EvalReport:
    """An evaluation.

    Attributes:
        network: its name. engine: what ran the step network, and why. data: where they are from, and their
            ``fingerprint`` as they were read.
        cases, frames: how many there were, frames as the network was stepped with them.
        clip_length, receptive_field: in frames.
        clip: None where only a bundle was given. step: at the same moments.
        every: the step network's answers at every frame from the first window's end on.
        seen: by the number of frames seen so far, right and all answers of the step network.
        short: cases shorter than a clip, which the clip network got led by copies of their first frame.
        agreement: share of windows of which both say the same class; difference: greatest between their answers,
            relative to the greatest answer.
    """

    network: str
    engine: str
    data: str
    fingerprint: str
    labels: tuple[str, ...]
    clip_length: int
    receptive_field: int
    step: Mode
    every: Confusion
    clip: Mode | None = None
    cases: int = 0
    frames: int = 0
    short: int = 0
    agreement: float | None = None
    difference: float | None = None
    seen: dict[int, tuple[int, int]] = field(default_factory=dict)

    def growth(self) -> list[tuple[int, float, int]]:
        """Frames seen, the step network's accuracy with so many, and over how many cases that is."""
        return [(n, right / total, total) for n, (right, total) in sorted(self.seen.items())]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "network": self.network,
            "engine": self.engine,
            "data": self.data,
            "fingerprint": self.fingerprint,
            "labels": list(self.labels),
            "cases": self.cases,
            "frames": self.frames,
            "short": self.short,
            "clip_length": self.clip_length,
            "receptive_field": self.receptive_field,
            "clip": None if self.clip is None else self.clip.to_json(),
            "step": self.step.to_json(),
            "every_frame": {"accuracy": self.every.accuracy, "answers": self.every.total},
            "agreement": self.agreement,
            "difference": self.difference,
            "frames_seen": [{"frames": n, "accuracy": share, "cases": total} for n, share, total in self.growth()],
        }
