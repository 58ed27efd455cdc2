"""One picture of a source, with its time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A decoded picture, or a sensor's row of values, and when it was taken.

    Args:
        image: (height, width, 3) uint8, channels in the order blue, green, red; or of a sensor an array of any shape,
            float32 or integers, as it is given to the network. The array belongs to the frame.
        stamp: seconds on the source's ``clock``; rises from frame to frame.
        clock: what the stamp counts on: ``"file"``, the recording's own time stamps; ``"rate"``, the frame's number
            divided by the frame rate; ``"monotonic"``, the machine's monotonic clock.
        index: number of the frame among those the source delivered, from 0.
        gap: frames known to be missing just before this one.
        label: what the frame is known to show, where the source knows it.
        taken: ``time.monotonic_ns()`` when the frame was captured, so that the age of an answer is the present time
            less this; None where the source is not live. With the clock ``"monotonic"``, ``stamp`` is ``taken * 1e-9``.
    """

    image: np.ndarray[Any, np.dtype[Any]]
    stamp: float
    clock: str
    index: int
    gap: int = 0
    label: str | None = None
    taken: int | None = None
