"""What every source is: a context manager and an iterator of frames that says what it is doing."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from edgeco.errors import EdgecoError, SourceError, SpecError
from edgeco.runtime.frame import Frame
from edgeco.runtime.sources.status import Board, SourceEvent, SourceStatus, State


class Source(ABC):
    """Frames, each read once.

    Iterating to the end, leaving a ``with`` block or calling ``close`` releases what the source holds. Take frames from
    one thread; ``state``, ``status`` and ``events`` may be asked, and ``close`` called, from any. Nothing that a source
    says holds a password: ``uri`` is without it from the start.
    """

    live: bool = False
    """Whether frames come whether or not they are taken: only the newest is kept then, the others are counted."""

    def __init__(self, uri: str, fps: float | None, backend: str = "") -> None:
        self.uri = uri
        self.fps = fps
        """Nominal frames per second, or None where nobody knows."""
        self.files: tuple[Path, ...] = ()
        """Files that are read; nothing must be written over them."""
        self._board = Board(uri, fps, backend)

    @abstractmethod
    def __next__(self) -> Frame:
        """The next frame, waited for. Raises SourceError where the source fails, StopIteration at its end."""

    @abstractmethod
    def wait(self, seconds: float | None = None) -> Frame | None:
        """The next frame, or None if none came in time, or none will come any more because ``state`` is ``ENDED``.

        Args:
            seconds: how long to wait at most; None for ever. A recording answers at once and pays no heed to it.

        Raises:
            SourceError: the source has failed; again at every further call.
        """

    @abstractmethod
    def close(self) -> None:
        """End the source and release what it holds; safe to call more than once, and from any thread."""

    @property
    def state(self) -> State:
        return self._board.state

    def status(self) -> SourceStatus:
        """A snapshot of state and counts."""
        return self._board.status()

    def events(self) -> tuple[SourceEvent, ...]:
        """What has happened so far, oldest first; the last hundred."""
        return self._board.events()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.uri} {self.state.value}>"


class Recording(Source):
    """Frames of one recording, set of images or test pattern, read from the first to the last; none is dropped."""

    def __init__(self, uri: str, fps: float | None, backend: str = "") -> None:
        super().__init__(uri, fps, backend)
        self._frames: Iterator[Frame] | None = None
        self._failure: EdgecoError | None = None
        self._reading = threading.RLock()
        """Held while a frame is read and while what reads it is released: OpenCV crashes if both happen at once."""

    @abstractmethod
    def _read(self) -> Iterator[Frame]:
        """Yield every frame; raise SourceError where the source is damaged."""

    def __next__(self) -> Frame:
        with self._reading:
            return self._next()

    def _next(self) -> Frame:
        if self.state.final:
            raise StopIteration
        if self._frames is None:
            self._frames = self._read()
        try:
            frame = next(self._frames)
        except EdgecoError as error:
            self._failure = error
            self._board.move(State.FAILED, str(error))
            self.close()
            raise
        except BaseException:
            self.close()
            raise
        if self.state is State.OPENING:
            self._board.move(State.RUNNING)
        self._board.capture(frame.taken, size_of(frame.image))
        self._board.hand_out()
        return frame

    def wait(self, seconds: float | None = None) -> Frame | None:
        if self._failure is not None:
            raise self._failure
        return next(self, None)

    def close(self) -> None:
        with self._reading:
            self._board.move(State.ENDED)
            if isinstance(self._frames, Generator):
                self._frames.close()
            self._release()

    def _release(self) -> None:
        """Give back what the recording holds; called at least once."""


def size_of(image: Any) -> tuple[int, int] | None:
    """(width, height) of a picture, None of anything else."""
    return (image.shape[1], image.shape[0]) if image.ndim == 3 else None


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
