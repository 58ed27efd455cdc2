"""The newest frame as a small JPEG, made only when somebody asks for one."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from edgeco.errors import SourceError
from edgeco.runtime.frame import Frame
from edgeco.runtime.sources.base import import_cv2

WIDEST = 960
"""Pixels: wider pictures are made smaller before they are sent."""
QUALITY = 80


class Newest:
    """Holds one frame. Putting one in costs a lock that nobody holds for long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frame: Frame | None = None
        self._count = 0

    def put(self, frame: Frame) -> None:
        """Replace what is there."""
        with self._lock:
            self._frame, self._count = frame, self._count + 1

    def get(self) -> tuple[int, Frame | None]:
        """How many were put in so far, and the last of them."""
        with self._lock:
            return self._count, self._frame


def is_picture(image: np.ndarray[Any, Any]) -> bool:
    """Whether an array can be shown: (height, width, 3) or (height, width, 1) of bytes."""
    return image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] in (1, 3) and 0 not in image.shape


def jpeg(image: np.ndarray[Any, Any], widest: int = WIDEST) -> bytes:
    """A picture as JPEG, at most ``widest`` pixels wide and tall.

    Args:
        image: (height, width, 3) in the order blue, green, red, or (height, width, 1); uint8.

    Raises:
        SourceError: OpenCV is missing, or cannot encode it.
    """
    cv2 = import_cv2("the preview's picture")
    scale = widest / max(image.shape[:2])
    if scale < 1:
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    good, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not good:
        raise SourceError(f"a picture of {image.shape} cannot be encoded as JPEG")
    return bytes(data)
