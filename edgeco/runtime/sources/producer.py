"""What a live source reads from: something that is opened, read and closed by one thread, again and again."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]


class Lost(Exception):
    """The connection or the device is gone, for the reason given: worth another attempt."""


class Over(Exception):
    """There are no more frames, and there will be none."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a producer says of itself once it is open: one sentence of detail, or none."""

    backend: str
    fps: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One frame read.

    Args:
        image: the picture or row of values.
        taken: ``time.monotonic_ns()`` when it was captured, where the device says; the time of reading otherwise.
        label: what it is known to show.
        missing: frames known to be lost just before it.
    """

    image: Array
    taken: int | None = None
    label: str | None = None
    missing: int = 0


class Producer(Protocol):
    """Every method is called in the source's reader thread alone, ``close`` after every ``open``, failed or not."""

    def open(self, stop: threading.Event) -> Opened:
        """Open it. Raises Lost where a later attempt may succeed, SourceError where none will.

        Args:
            stop: set when the source is closed; pauses of the producer's own end with it.
        """

    def read(self) -> Reading | None:
        """The next frame, waited for; None for one that cannot be used. Raises Lost, Over or SourceError."""

    def close(self) -> None:
        """Release everything; safe to call more than once."""
