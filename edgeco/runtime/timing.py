"""The one clock, and percentiles over any number of samples in constant memory.

Example::

    stages = Stages()
    with stages.measure("infer"):
        stream.step(frame)
    stages.report()["infer"].p99
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate
from time import perf_counter_ns

now = perf_counter_ns
"""Nanoseconds on a clock that never goes back; only differences mean anything."""

LEAST = 1e-7
"""Seconds: samples below it count as it in percentiles."""
WIDTH = 0.01
"""Relative width of a bucket, hence at most half of it as relative error of a percentile."""
BUCKETS = 2400
"""From 100 nanoseconds to more than half an hour."""
_SCALE = 1 / math.log1p(WIDTH)


@dataclass(frozen=True)
class Summary:
    """Seconds. All zero if ``count`` is."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


class Percentiles:
    """Durations in seconds, counted in buckets 1 % wide: the whole run counts, however long, in constant memory.

    The maximum and the mean are exact; a percentile is off by 0.5 % of itself at most.
    """

    __slots__ = ("_counts", "count", "max", "total")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._counts = [0] * BUCKETS
        self.count = 0
        self.total = 0.0
        self.max = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration; below zero counts as zero."""
        index = int(math.log(seconds / LEAST) * _SCALE) if seconds > LEAST else 0
        self._counts[index if index < BUCKETS else BUCKETS - 1] += 1
        self.count += 1
        if seconds > 0:
            self.total += seconds
            if seconds > self.max:
                self.max = seconds

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    @property
    def p50(self) -> float:
        return self.percentile(50)

    @property
    def p90(self) -> float:
        return self.percentile(90)

    @property
    def p99(self) -> float:
        return self.percentile(99)

    def percentile(self, percent: float) -> float:
        """The duration that ``percent`` of the samples do not exceed; 0 if there are none."""
        return self._percentile(percent, list(accumulate(self._counts)))

    def _percentile(self, percent: float, sums: list[int]) -> float:
        index = bisect_left(sums, max(1, math.ceil(self.count * percent / 100)))
        return min(LEAST * math.exp((index + 0.5) / _SCALE), self.max) if index < len(sums) else self.max

    def summary(self) -> Summary:
        # One pass for all: whoever watches a run asks often, and a run counts its times under the same lock.
        sums = list(accumulate(self._counts))
        p50, p90, p99 = (self._percentile(percent, sums) for percent in (50, 90, 99))
        return Summary(self.count, self.mean, p50, p90, p99, self.max)


class Stages:
    """Percentiles by name of stage, in the order in which the stages first occurred."""

    def __init__(self) -> None:
        self._stages: dict[str, Percentiles] = {}

    def add(self, stage: str, seconds: float) -> None:
        percentiles = self._stages.get(stage)
        if percentiles is None:
            percentiles = self._stages[stage] = Percentiles()
        percentiles.add(seconds)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Count the duration of the block, whether or not it raises."""
        start = now()
        try:
            yield
        finally:
            self.add(stage, (now() - start) * 1e-9)

    def __getitem__(self, stage: str) -> Percentiles:
        return self._stages[stage]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stages)

    def __len__(self) -> int:
        return len(self._stages)

    def report(self) -> dict[str, Summary]:
        return {name: percentiles.summary() for name, percentiles in self._stages.items()}
