"""One labelled recording, and where its frames come from: memory, a file, or another recording that is prepared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from edgeco.bundle.manifest import Preprocessing
from edgeco.errors import DataError
from edgeco.runtime.frame import Frame
from edgeco.runtime.pacer import Pacer
from edgeco.runtime.preprocess import Preprocessor
from edgeco.runtime.sources import IMAGE_SUFFIXES, open_source

Array = np.ndarray[Any, np.dtype[Any]]

DEFAULT_FPS = 30.0
"""Rate by which values in memory are stamped where none is known, as a file of rows is by the runtime."""


class Content(Protocol):
    """Where frames come from."""

    def frames(self) -> Iterator[Frame]:
        """The frames from the first on, read anew at every call."""

    def count(self) -> int:
        """How many frames there are; a recording is read for it."""

    def digest(self) -> bytes:
        """The sha256 of what the frames are made from."""


@dataclass(frozen=True, eq=False)
class Held:
    """Frames in memory: (frames, *frame)."""

    array: Array
    fps: float | None = None

    def frames(self) -> Iterator[Frame]:
        rate = self.fps or DEFAULT_FPS
        for index, image in enumerate(self.array):
            yield Frame(image, index / rate, "rate", index)

    def count(self) -> int:
        return len(self.array)

    def digest(self) -> bytes:
        told = hashlib.sha256(f"{self.array.dtype}{self.array.shape}".encode())
        told.update(np.ascontiguousarray(self.array).tobytes())
        return told.digest()


@dataclass(frozen=True)
class Recorded:
    """A video, a file of rows, or a folder of pictures, opened as ``edgeco run --source`` opens it."""

    path: Path
    fps: float | None = None

    def frames(self) -> Iterator[Frame]:
        with open_source(self.path, fps=self.fps) as source:
            yield from source

    def count(self) -> int:
        return sum(1 for _ in self.frames())

    def digest(self) -> bytes:
        if self.path.is_file():
            return _file_digest(self.path)
        told = hashlib.sha256()
        for path in sorted(self.path.iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES:
                told.update(path.name.encode() + b"\0" + _file_digest(path))
        return told.digest()


@dataclass(frozen=True)
class Prepared:
    """Another content's frames as a network takes them: at its rate, and pictures in its size and colours."""

    content: Content
    preprocessing: Preprocessing | None
    fps: float | None

    def frames(self) -> Iterator[Frame]:
        pacer = Pacer(self.fps)
        prepare = Preprocessor(self.preprocessing) if self.preprocessing else None
        for frame in self.content.frames():
            for _ in range(pacer.decide(frame.stamp).times):
                yield frame if prepare is None else replace(frame, image=prepare(frame.image).copy())

    def count(self) -> int:
        if self.fps is None:
            return self.content.count()
        pacer = Pacer(self.fps)
        return sum(pacer.decide(frame.stamp).times for frame in self.content.frames())

    def digest(self) -> bytes:
        how = msgspec.json.encode((self.preprocessing, self.fps))
        return hashlib.sha256(self.content.digest() + how).digest()


@dataclass(frozen=True, eq=False)
class Case:
    """A labelled recording.

    Attributes:
        name: what it is called, unique in its data.
        label: the class, as a place in ``Data.labels``; None where nobody knows.
        group: what must not be torn apart by a split, a person or a session; the case's own name where it stands alone.
        fps: frames per second, None where nobody knows.
        content: where its frames come from.
    """

    name: str
    label: int | None
    group: str
    fps: float | None
    content: Content

    def frames(self) -> Iterator[Frame]:
        """The frames, read lazily from the first on. ``image`` is a picture (height, width, channels) or an array.

        Raises:
            SourceError: the recording cannot be opened, or stops before its end.
            FrameError: a picture cannot be prepared.
        """
        return self.content.frames()

    @cached_property
    def length(self) -> int:
        """Frames; a recording in a file is read through to count them, once."""
        return self.content.count()

    def array(self) -> Array:
        """All frames (frames, *frame), in memory.

        Raises:
            DataError: the frames are of several shapes, or there is none.
            SourceError: the recording cannot be opened, or stops before its end.
        """
        if isinstance(self.content, Held):
            return self.content.array
        images = [frame.image for frame in self.frames()]
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            raise DataError(
                f"{self.name}: its frames are of {len(shapes)} shapes, {_listed(shapes)}; prepare them for a network "
                "first, which gives all one size."
            )
        if not images:
            raise DataError(f"{self.name}: there is no frame in it; remove it.")
        return np.stack(images)


def _listed(shapes: set[tuple[int, ...]]) -> str:
    return ", ".join(map(str, sorted(shapes)[:3]))


def _file_digest(path: Path) -> bytes:
    told = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            told.update(block)
    return told.digest()
