"""Recordings as a source: every frame that decodes, with the recording's own time stamps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeco.errors import SourceError
from edgeco.runtime.frame import Frame
from edgeco.runtime.sources.base import Recording, Source, check_fps, import_cv2
from edgeco.runtime.sources.container import Container, looks_like_text, read_container

GUESSED_FPS = 25.0
"""Rate of recordings that state neither time stamps nor a plausible rate."""


class VideoSource(Recording):
    """One recording, read by FFmpeg through OpenCV.

    Stamps are the container's, in seconds; where a stamp is missing or does not rise, the last one plus a frame time.
    A file that holds fewer frames than its container announces yields all that decode, then raises SourceError.
    """

    def __init__(self, path: Path, fps: float | None = None) -> None:
        self.path = path
        self.container = _inspect(path)
        self._override = check_fps(fps)
        self._cv2 = import_cv2("reading a video file")
        self._capture = self._open()
        own = self._capture.get(self._cv2.CAP_PROP_FPS)
        super().__init__(str(path), self._override or (own if math.isfinite(own) and 0 < own <= 1000 else None))
        self.files = (path,)
        announced = self._capture.get(self._cv2.CAP_PROP_FRAME_COUNT)
        self.announced = int(announced) if math.isfinite(announced) and 0 < announced < 2**53 else None
        """Frames the container announces; for Matroska and others duration times rate, off by one or more."""

    def _open(self) -> Any:
        cv2 = self._cv2
        ffmpeg = cv2.CAP_FFMPEG in cv2.videoio_registry.getBackends()
        try:
            # FFmpeg by name: OpenCV would otherwise also try readers that take a path for something else.
            capture = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG if ffmpeg else cv2.CAP_ANY)
        except cv2.error as error:
            raise SourceError(f"{self.path}: OpenCV cannot open this recording ({error.err})") from error
        if not capture.isOpened():
            raise SourceError(f"{self.path}: {self._refusal()}")
        return capture

    def _refusal(self) -> str:
        if self.container.missing:
            return f"truncated, {self.container.missing} bytes are missing at its end and no frame can be decoded"
        if self.container.kind != "other":
            return "damaged or in a codec that this OpenCV cannot decode"
        return "not a recording that this OpenCV can decode; give a video file such as MP4, MKV or AVI"

    def _read(self) -> Iterator[Frame]:
        stamp, index = 0.0, 0
        frame_time = 1.0 / (self.fps or GUESSED_FPS)
        while True:
            decoded, image = self._capture.read()
            if not decoded:
                break
            own = self._capture.get(self._cv2.CAP_PROP_POS_MSEC) / 1000.0
            if self._override is not None:
                stamp, clock = index * frame_time, "rate"
            elif math.isfinite(own) and own >= 0 and (own > stamp or index == 0):
                stamp, clock = own, "file"
            else:
                stamp, clock = (stamp + frame_time if index else 0.0), "rate"
            yield Frame(image, stamp, clock, index)
            index += 1
        self._check_end(index, stamp if self._override is None else None)

    def _check_end(self, decoded: int, stamp: float | None) -> None:
        """Raise SourceError if frames that the container announces did not come."""
        announced, missing = self.announced, self.container.missing
        count = f"{announced} frames" if announced and self.container.exact else f"about {announced} frames"
        short = f"decoded {decoded} of {count} announced"
        if missing and (announced is None or decoded < announced):
            short = short if announced else f"decoded {decoded} frames"
            raise SourceError(f"{self.path}: truncated, {short} ({missing} bytes are missing at its end)")
        if not decoded:
            raise SourceError(f"{self.path}: no frame of this recording can be decoded")
        if announced is None or decoded >= announced:
            return
        if self.container.exact or self._ends_early(announced, stamp):
            raise SourceError(f"{self.path}: truncated or damaged, {short}")

    def _ends_early(self, announced: int, stamp: float | None) -> bool:
        """Whether an estimated count is missed by far: sound may outlast the pictures, but hardly by a tenth."""
        rate = self._capture.get(self._cv2.CAP_PROP_FPS)
        if self.container.kind == "mp4" or stamp is None or not (math.isfinite(rate) and rate > 0):
            return False
        duration = announced / rate
        return bool(stamp < duration - max(1.0, 0.1 * duration))

    def _release(self) -> None:
        self._capture.release()


def _inspect(path: Path) -> Container:
    """Refuse what is not a recording, before a decoder sees it."""
    try:
        if not path.is_file():
            raise SourceError(f"{path}: not a regular file; give a video file")
        if path.stat().st_size == 0:
            raise SourceError(f"{path}: the file is empty")
        if looks_like_text(path):
            raise SourceError(f"{path}: a text file, not a recording; give a video file such as MP4, MKV or AVI")
        return read_container(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from error


def open_form(path: Path, fps: float | None = None) -> Source:
    """Open a recording. Raises SourceError if it is not one."""
    return VideoSource(path, fps)
