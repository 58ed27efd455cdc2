"""From what a user names to recordings: read, paced and prepared by the runtime's own code, as on the device.

==========================================  =====================================================================
``clip.mp4``, ``frames/``, ``values.csv``   one stream, as ``edgeco run --source`` reads it
``root/CLASS/clip.mp4``, ``root/clip.mp4``  a stream per recording; of every class in proportion where some are drawn
``cases.npz``, ``cases.ts``                 a stream per case; ``cases.csv`` too where a line's shape is told
``0``, ``csi://0``, ``rtsp://…``            a live source, recorded for some seconds first, then run at leisure
==========================================  =====================================================================
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgeco.bundle.manifest import Manifest
from edgeco.calibration.recordings import Array, Recording
from edgeco.errors import FrameError, SpecError
from edgeco.runtime.frame import Frame
from edgeco.runtime.pacer import Pacer
from edgeco.runtime.pre import Prepare, preparer
from edgeco.runtime.preprocess import Preprocessor
from edgeco.runtime.sources import IMAGE_SUFFIXES, Source, open_source
from edgeco.runtime.sources.address import Address
from edgeco.train.data import Case, read_data
from edgeco.train.data.case import Held
from edgeco.train.data.split import subset

LIVE_SECONDS = 30.0
"""How long a live source, or an endless pattern, is read unless told."""

_TABLES = frozenset({".npz", ".ts"})
_LINES = frozenset({".csv", ".tsv"})


@dataclass(frozen=True)
class Reading:
    """How recordings are read, whichever they are.

    Args:
        fps: rate the network is held to; None for the bundle's, 0 for every frame.
        seconds: of each stream at most so many; None for all of a recording, ``LIVE_SECONDS`` of a live source.
        pre: makes of a frame what the network takes; the bundle's preprocessing unless given.
        stop: asked while a live source is recorded; true ends that.
        shape: (frames, *frame) of the case in each line of a .csv file, after its class; None where a line is a frame.
    """

    fps: float | None = None
    seconds: float | None = None
    pre: Prepare | None = None
    stop: Callable[[], bool] = lambda: False
    shape: tuple[int, ...] | None = None


def open_recordings(
    named: Sequence[str], manifest: Manifest, reading: Reading | None = None, streams: int | None = None, seed: int = 0
) -> list[Recording]:
    """Recordings of some sources, each a stream.

    Args:
        named: paths and URIs.
        manifest: what the network takes.
        reading: how they are read.
        streams: at most so many, drawn from all, of every class in proportion; None: all.
        seed: of the drawing.

    Raises:
        SpecError: no source, a number of streams or seconds below 1, or an option that is none.
        SourceError: a source does not exist or cannot be opened.
        DataError: a folder or a file of cases is not usable.
    """
    how = reading or Reading()
    if not named:
        raise SpecError("No source was given; name a video, a folder, a file of values or a camera.")
    if not all(name.strip() for name in named):
        raise SpecError("A source has no name; is a variable empty? Name a video, a folder or a camera.")
    if how.shape is not None and not any(_is_lines(Path(name)) for name in named):
        raise SpecError("A shape is of the case in each line of a .csv file, and no source is one.")
    if streams is not None and streams < 1:
        raise SpecError(f"streams is {streams}; give 1 or more.")
    if how.seconds is not None and not 0 < how.seconds < 1e9:
        raise SpecError(f"seconds is {how.seconds}; give a time above 0.")
    rate = manifest.timeline.fps if how.fps is None else how.fps
    Pacer(rate)  # a rate that is none is told before anything is opened
    feed = _Feed(manifest, rate, how)
    found: list[tuple[str | None, Recording]] = []
    for name in named:
        found += _opened(name, feed)
    if streams is None or streams >= len(found):
        return [recording for _, recording in found]
    return [found[place][1] for place in subset([label for label, _ in found], streams, seed)]


def shown_source(name: str) -> str:
    """A source as it may be kept: of a path the last part, of a URI what is no secret.

    Example:
        >>> shown_source("/home/me/clips/a.mp4"), shown_source("rtsp://admin:hunter2@camera/live")
        ('a.mp4', 'rtsp://***@camera/live')
    """
    return str(Address(name, whole=" ! " not in name, environment=_Names())) if "://" in name else Path(name).name


class _Names(dict[str, str]):
    """An environment in which every variable stands for itself."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> str:
        return f"${{{key}}}"


def _opened(name: str, feed: _Feed) -> list[tuple[str | None, Recording]]:
    """The recordings of one source, with the class of each where it has one."""
    path = Path(name)
    lines = feed.how.shape is not None and _is_lines(path)
    if not lines and not _holds_cases(path):
        return [(None, SourceRecording(name, feed))]
    data = read_data(path, shape=feed.how.shape if lines else None)
    return [
        (None if case.label is None else data.labels[case.label], CaseRecording(case, path.name, feed)) for case in data
    ]


def _is_lines(path: Path) -> bool:
    return path.suffix.lower() in _LINES


def _holds_cases(path: Path) -> bool:
    try:
        if path.is_dir():
            return not any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in path.iterdir() if entry.is_file())
        return path.suffix.lower() in _TABLES and path.is_file()
    except (OSError, ValueError):
        return False


class _Feed:
    """Turns a source's frames into what the network takes, at its rate."""

    def __init__(self, manifest: Manifest, fps: float | None, how: Reading) -> None:
        self.manifest, self.how = manifest, how
        self._fps = fps
        self._prepare = preparer(self, how.pre)
        self._shapes = {entry.name: (tuple(entry.shape), np.dtype(entry.dtype)) for entry in manifest.inputs}

    @functools.cache  # noqa: B019  (as long-lived as the calibration)
    def preprocessor(self) -> Preprocessor:
        """What turns a picture into the network's frame. Raises FrameError where the network takes none."""
        if self.manifest.preprocessing is None:
            raise FrameError(f"{self.manifest.name} takes arrays, not pictures; give values, or --pre to make them")
        return Preprocessor(self.manifest.preprocessing)

    @functools.cached_property
    def told(self) -> bytes:
        """What becomes of frames, whichever they are; of a callable its name, for its code is not known."""
        pre, given = self.how.pre, self.manifest.preprocessing
        called = None if pre is None else f"{pre.__module__}:{getattr(pre, '__qualname__', type(pre).__qualname__)}"
        prepared = None if given is None else msgspec.to_builtins(given)
        return json.dumps([self._fps, self.how.seconds, called, prepared], sort_keys=True).encode()

    def of(
        self, name: str, frames: Iterator[Frame], seconds: float | None, paced: bool = True
    ) -> Iterator[dict[str, Array]]:
        """The frames of a recording as ``frames`` gives them; what is wrong with one is told with its name."""
        try:
            yield from self.frames(frames, seconds, paced)
        except FrameError as error:
            raise FrameError(f"{name}: {error}") from error

    def frames(self, frames: Iterator[Frame], seconds: float | None, paced: bool = True) -> Iterator[dict[str, Array]]:
        """The frames that the network is stepped with, each as often as it is; every one where they are not paced."""
        pacer, first = Pacer(self._fps if paced else None), None
        for frame in frames:
            first = frame.stamp if first is None else first
            if seconds is not None and frame.stamp - first >= seconds:
                return
            times = pacer.decide(frame.stamp).times
            value = self._prepare(frame) if times else None
            if value is not None:
                given = self._checked(value, frame)
                for _ in range(times):
                    yield given

    def _checked(self, value: Any, frame: Frame) -> dict[str, Array]:
        given = dict(value) if isinstance(value, Mapping) else {next(iter(self._shapes)): value}
        for name, (shape, dtype) in self._shapes.items():
            array = given.get(name)
            if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != dtype:
                told = f"{array.dtype}{array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
                raise FrameError(
                    f"Frame {frame.index} was prepared as {told} for the input {name!r}, which takes {dtype}{shape}."
                )
        return {name: given[name] for name in self._shapes}


class SourceRecording:
    """One source of ``open_source``; of a live one the frames are kept in memory.

    Raises:
        SourceError: it does not exist or cannot be opened.
    """

    def __init__(self, uri: str, feed: _Feed) -> None:
        self._uri, self._feed = uri, feed
        source = open_source(uri)
        self.live = source.live or uri == "-"
        path = Path(uri)
        self.name = path.name if source.files else source.uri
        self._files = source.files
        self._source: Source | None = source if self.live else None
        self._kept: list[dict[str, Array]] | None = None
        if not self.live:
            source.close()
        endless = self.live or uri.startswith("pattern://")
        self._seconds = LIVE_SECONDS if endless and feed.how.seconds is None else feed.how.seconds

    @property
    def held(self) -> bool:
        return self._kept is not None

    @property
    def fingerprint(self) -> str:
        """Of files their sizes and times, and what becomes of their frames."""
        digest = hashlib.sha256(self.name.encode() + self._feed.told)
        for path in self._files:
            status = path.stat()
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns} ".encode())
        return digest.hexdigest()

    def frames(self) -> Iterator[Mapping[str, Array]]:
        """The frames as the network takes them. Raises SourceError where a recording stops before its end."""
        if self._source is None:
            with open_source(self._uri) as source:
                yield from self._feed.of(self.name, iter(source), self._seconds)
            return
        if self._kept is None:
            # A rollout is slower than a camera, and would see every few frames only: what the network never meets.
            with self._source as source:
                self._kept = list(self._feed.of(self.name, self._until_stopped(source), self._seconds))
        yield from self._kept

    def _until_stopped(self, source: Source) -> Iterator[Frame]:
        for frame in source:
            yield frame
            if self._feed.how.stop():
                return


class CaseRecording:
    """One case of a folder or file of many."""

    live = held = False

    def __init__(self, case: Case, where: str, feed: _Feed) -> None:
        self.name = case.name if case.name.startswith(where.rsplit(".", 1)[0]) else f"{where}/{case.name}"
        self._case, self._feed = case, feed

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self._case.content.digest() + self._feed.told).hexdigest()

    def frames(self) -> Iterator[Mapping[str, Array]]:
        """The frames as the network takes them. Raises SourceError where a recording stops before its end."""
        # Arrays of unknown rate are taken to be at the network's own: they were cut for it.
        paced = not (isinstance(self._case.content, Held) and self._case.fps is None)
        yield from self._feed.of(self.name, self._case.frames(), self._feed.how.seconds, paced)
