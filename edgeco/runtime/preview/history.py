"""Answers of the last minute, thinned, for the moving chart."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

SPAN = 60.0
"""Seconds that the chart shows."""
PERIOD = 0.1
"""Seconds: of answers closer together only the first is kept."""

Point = tuple[float, list[tuple[int, float]]]
"""Time in seconds, and (class, score) of the best classes, best first."""


class History:
    """A ring of points, written by one thread and read by others. Constant in size, whatever the frame rate."""

    def __init__(self, span: float = SPAN, period: float = PERIOD) -> None:
        self._lock = threading.Lock()
        self._period = period
        self._points: deque[Point] = deque(maxlen=round(span / period) + 10)
        self._first = 0
        self._labels: dict[int, str] = {}

    def add(self, at: float, top: list[Mapping[str, Any]]) -> None:
        """One answer: the time, and its best classes as a record has them. Scores that are no number are left out."""
        scores = [(int(entry["index"]), float(entry["score"])) for entry in top if entry["score"] is not None]
        if not scores:
            return
        with self._lock:
            if self._points and at - self._points[-1][0] < self._period:
                return
            if len(self._points) == self._points.maxlen:
                self._first += 1
            self._points.append((at, scores))
            self._labels.update((int(entry["index"]), str(entry["label"])) for entry in top)

    def since(self, number: int) -> tuple[int, list[Point], dict[int, str]]:
        """Points from the ``number``-th on that are still there: the number to ask for next, points, their labels."""
        with self._lock:
            points = list(self._points)[max(0, number - self._first) :]
            labels = {index: self._labels[index] for _, scores in points for index, _ in scores}
            return self._first + len(self._points), points, labels
