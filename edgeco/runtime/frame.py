"""One picture of a source, with its time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A decoded picture and when it was taken.

    Args:
        image: (height, width, 3) uint8, channels in the order blue, green, red. The array belongs to the frame.
        stamp: seconds on the source's ``clock``; rises from frame to frame.
        clock: what the stamp counts on: ``"file"``, the recording's own time stamps, or ``"rate"``, the frame's
            number divided by the frame rate.
        index: number of the frame among those the source delivered, from 0.
        gap: frames known to be missing just before this one.
        label: what the frame is known to show, where the source knows it.
    """

    image: np.ndarray[Any, np.dtype[np.uint8]]
    stamp: float
    clock: str
    index: int
    gap: int = 0
    label: str | None = None
