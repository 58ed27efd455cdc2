"""What is kept of a tensor's numbers: extremes, counts, and a histogram of their magnitudes, in one pass.

The histogram reaches from 0 to the least power of two above every magnitude so far. Where a greater one comes, the
range is doubled and intervals are joined in pairs. Powers of two make that exact: the result is the histogram that a
second pass over the same numbers would give, in whatever order they came.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

BINS = 8192
"""Intervals; at least half of them lie below the greatest magnitude."""

ABSENT = 1e30
"""A magnitude from which on a number stands for none, where the graph says so: minus infinity behind a mask."""

_LEAST = -100
"""Exponent of the finest range: its intervals are still normal numbers in FP32."""


class Observer:
    """Numbers of one tensor, added piece by piece; memory does not grow.

    Attributes:
        low, high: extremes; infinities the wrong way round before the first number.
        count, absent: numbers taken, and numbers left out.
        zeros: those of the former that are 0.
        exponent: the histogram ends at ``2 ** exponent``; None while all was 0.
        bins: its counts; zeros are counted in the first.
        channels: extremes of every channel, (2, channels), where they are kept; None before the first number.
    """

    __slots__ = ("absent", "bins", "channels", "count", "exponent", "high", "low", "zeros")

    def __init__(self) -> None:
        self.channels: Array | None = None
        self.low, self.high = math.inf, -math.inf
        self.count = self.absent = self.zeros = 0
        self.exponent: int | None = None
        self.bins = np.zeros(BINS, np.int64)

    def add(self, array: Array, absent: bool = False, channels: bool = False) -> str | None:
        """Take an array in.

        Args:
            array: float numbers of any shape.
            absent: leave out magnitudes from ``ABSENT`` on, and infinities.
            channels: keep the extremes of every place of the second axis too; not where numbers may be absent.

        Returns:
            None, or what is wrong with it, "NaN" or "infinite"; nothing has been taken then.
        """
        flat = array.reshape(-1)
        if absent:
            there = ~(np.abs(flat) >= ABSENT)  # NaN is there, and is told below
            self.absent += flat.size - int(np.count_nonzero(there))
            flat = flat[there]
        if not flat.size:
            return None
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            return "NaN" if math.isnan(low) or math.isnan(high) else "infinite"
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.count += flat.size
        self.zeros += flat.size - int(np.count_nonzero(flat))
        self._bin(flat, max(-low, high))
        if channels and not absent:
            by_channel = np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)
            self._widen(by_channel.min(axis=1), by_channel.max(axis=1))
        return None

    def _widen(self, low: Array, high: Array) -> None:
        if self.channels is not None:
            low, high = np.minimum(low, self.channels[0]), np.maximum(high, self.channels[1])
        self.channels = np.stack([low, high]).astype(np.float32)

    def _bin(self, flat: Array, peak: float) -> None:
        if peak > 0:
            self._reach(max(math.frexp(peak)[1], _LEAST))
        if self.exponent is None:
            self.bins[0] += flat.size
            return
        places = (np.abs(flat) * flat.dtype.type(math.ldexp(BINS, -self.exponent))).astype(np.int32)
        self.bins += np.bincount(places, minlength=BINS)

    def _reach(self, exponent: int) -> None:
        """Let the histogram end at ``2 ** exponent`` or beyond."""
        if self.exponent is not None:
            for _ in range(exponent - self.exponent):
                self.bins[: BINS // 2] = self.bins[0::2] + self.bins[1::2]
                self.bins[BINS // 2 :] = 0
                if not self.bins[1:].any():
                    break
        self.exponent = exponent if self.exponent is None else max(self.exponent, exponent)

    @property
    def peak(self) -> float:
        """The greatest magnitude."""
        return max(-self.low, self.high, 0.0) if self.count else 0.0

    @property
    def limit(self) -> float:
        """Upper end of the histogram; 0 where there is none."""
        return 0.0 if self.exponent is None else math.ldexp(1.0, self.exponent)

    def numbers(self) -> list[float]:
        """Everything but the histogram, to be kept and given back to ``resume``."""
        exponent = math.nan if self.exponent is None else float(self.exponent)
        return [self.low, self.high, float(self.count), float(self.absent), float(self.zeros), exponent]

    @classmethod
    def resume(cls, numbers: Array, bins: Array, channels: Array | None = None) -> Observer:
        """The observer that gave these."""
        made = cls()
        made.low, made.high = float(numbers[0]), float(numbers[1])
        made.count, made.absent, made.zeros = (int(number) for number in numbers[2:5])
        made.exponent = None if math.isnan(numbers[5]) else int(numbers[5])
        made.bins = np.array(bins, np.int64)
        made.channels = channels
        return made
