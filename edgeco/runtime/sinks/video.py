"""The source's pictures with the answers drawn in, as a video file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from edgeco.errors import SpecError, WriteError
from edgeco.runtime.sinks.base import Delivery, Keeps
from edgeco.runtime.sinks.drawing import Painter
from edgeco.runtime.sources.base import check_fps, import_cv2

CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
GUESSED_FPS = 30.0
_LONGEST_GAP = 5.0
"""Seconds that a picture is held at most where frames are missing."""


class AnnotatedVideo:
    """Writes a video of constant rate whose time is the stamps': a picture is held while frames are missing.

    All pictures have the size of the first. The file is finished by ``close``; players need that.

    Args:
        path: a file ending in .mp4, .mkv or .avi; replaced.
        fps: frames per second of the video; 30 unless given.

    Raises:
        SpecError: another ending, or a rate that is none.
        SourceError: OpenCV is not installed.
        WriteError: the file cannot be written.
    """

    name = "video"
    keeps = Keeps.RECORDINGS
    pictures = True

    def __init__(self, path: str | os.PathLike[str], fps: float | None = None) -> None:
        self._path = Path(path)
        if self._path.suffix.lower() not in CODECS:
            raise SpecError(f"{self._path}: a video's name ends in {', '.join(CODECS)}")
        self._fps = check_fps(fps) or GUESSED_FPS
        self._cv2: Any = import_cv2("writing a video")
        self._paint = Painter()
        self._writer: Any = None
        self._size = (0, 0)
        self._first = 0.0
        self.pictures_written = 0
        """Pictures in the video so far."""
        try:
            with open(self._path, "wb"):
                pass
        except (OSError, ValueError) as error:
            raise WriteError(f"{self._path}: cannot be opened for writing ({_reason(error)})") from error

    def take(self, delivery: Delivery) -> None:
        """Write a frame. Raises WriteError if the video cannot be begun."""
        image = self._paint(delivery)
        if image is None:
            return
        stamp = delivery.frame.stamp
        if self._writer is None:
            self._begin(image, stamp)
        height, width = image.shape[:2]
        if (width, height) != self._size:
            image = self._cv2.resize(image, self._size)
        for _ in range(self._due(stamp)):
            self._writer.write(image)
            self.pictures_written += 1

    def _due(self, stamp: float) -> int:
        """Pictures until the video's time is the stamp's; the clock begins anew after a long gap or a step back."""
        wanted = round((stamp - self._first) * self._fps) + 1
        missing = wanted - self.pictures_written
        if missing > _LONGEST_GAP * self._fps or missing < -self._fps:
            self._first = stamp - self.pictures_written / self._fps
            return 1
        return max(0, missing)

    def _begin(self, image: np.ndarray[Any, np.dtype[np.uint8]], stamp: float) -> None:
        cv2 = self._cv2
        height, width = image.shape[:2]
        self._size, self._first = (width, height), stamp
        codec = cv2.VideoWriter_fourcc(*CODECS[self._path.suffix.lower()])
        writer = cv2.VideoWriter(str(self._path), codec, self._fps, self._size)
        if not writer.isOpened():
            raise WriteError(f"{self._path}: this OpenCV cannot write such a video; try a name that ends in .avi")
        self._writer = writer

    def close(self) -> None:
        """Finish the file. Raises WriteError if less came to lie in it than was written."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        writer.release()
        # OpenCV does not say when a disk is full: what it wrote is read back.
        whole, found = self._whole()
        if self.pictures_written and not whole:
            kept = f"{found or 'none'} of {self.pictures_written} pictures can be read back"
            raise WriteError(f"{self._path}: {kept}; is the disk full?")

    def _whole(self) -> tuple[bool, int]:
        """Whether the file holds all pictures, as its container counts them, and how many it says it has."""
        cv2 = self._cv2
        capture = cv2.VideoCapture(str(self._path))
        try:
            if not capture.isOpened() or not capture.grab():
                return False, 0
            found = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        finally:
            capture.release()
        return found + 1 >= self.pictures_written, found  # some containers count by the duration, which is rounded


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
