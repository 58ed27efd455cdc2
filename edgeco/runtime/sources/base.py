"""What every source is: a context manager and an iterator of frames."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import ModuleType, TracebackType
from typing import Any

from edgeco.errors import SourceError, SpecError
from edgeco.runtime.frame import Frame


class Source(ABC):
    """Frames of one recording, set of images or test pattern, read once from the first to the last.

    Iterating to the end, leaving a ``with`` block or calling ``close`` releases what the source holds. A file source
    never drops a frame. Use a source from one thread.
    """

    def __init__(self, uri: str, fps: float | None) -> None:
        self.uri = uri
        self.fps = fps
        """Nominal frames per second, or None where nobody knows."""
        self._frames: Iterator[Frame] | None = None
        self._closed = False

    @abstractmethod
    def _read(self) -> Iterator[Frame]:
        """Yield every frame; raise SourceError where the source is damaged."""

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        if self._closed:
            raise StopIteration
        if self._frames is None:
            self._frames = self._read()
        try:
            return next(self._frames)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the source and release what it holds; safe to call more than once."""
        self._closed = True


def import_cv2(purpose: str) -> ModuleType:
    """OpenCV, which is an extra. Raises SourceError naming the extra where it is missing."""
    try:
        import cv2
    except ImportError as error:
        raise SourceError(
            f"{purpose} needs OpenCV, which cannot be imported ({error}); install it with: pip install 'edgeco[camera]'"
        ) from error
    module: Any = cv2
    return module  # type: ignore[no-any-return]


def check_fps(fps: float | None) -> float | None:
    """The ``fps`` option as given, if it is a usable rate. Raises SpecError otherwise."""
    if fps is not None and not (math.isfinite(fps) and 0 < fps <= 1000):
        raise SpecError(f"fps is {fps}: give a frame rate above 0 and up to 1000")
    return fps
