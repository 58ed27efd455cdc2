"""The learning rate as a function of the step alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi


@dataclass(frozen=True)
class Schedule:
    """One-cycle learning rate: linear warm-up to ``peak``, then cosine decay to ``peak * floor`` at ``steps``."""

    steps: int
    peak: float = 3e-3
    warmup: float = 0.1
    floor: float = 1e-3

    def rate(self, step: int) -> float:
        """Learning rate of a step counted from 0."""
        rise = max(1, round(self.steps * self.warmup))
        if step < rise:
            return self.peak * (step + 1) / rise
        along = (step - rise) / max(1, self.steps - rise)
        return self.peak * (self.floor + (1 - self.floor) * 0.5 * (1 + cos(pi * min(1.0, along))))
