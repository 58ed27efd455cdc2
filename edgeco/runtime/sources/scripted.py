"""Sources made in Python: an iterator or a function as a recording or as a live source, and scripts of faults.

Example::

    source = scripted([grey, grey, Pause(3.0), Raise(OSError(errno.ENODEV, "No such device")), grey])
    source = from_frames(read_my_camera, live=True, fps=30)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeco.errors import SpecError
from edgeco.runtime.frame import Frame
from edgeco.runtime.sources.address import Address
from edgeco.runtime.sources.base import Recording, Source, check_fps
from edgeco.runtime.sources.live import LiveSource
from edgeco.runtime.sources.patience import Patience
from edgeco.runtime.sources.producer import Array, Lost, Opened, Over, Reading

DEFAULT_FPS = 30.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing comes for so many seconds; ends early when the source is closed."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Until:
    """Nothing comes until this is true, asked every few milliseconds; ends early when the source is closed."""

    condition: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Raise:
    """Reading fails with this: OSError and ``Lost`` count as a lost connection, ``Over`` as the end."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Garbage:
    """What was read is no frame."""


Step = Array | Reading | Pause | Until | Raise | Garbage


class ScriptProducer:
    """Plays a list of steps; after a lost connection it is opened again and goes on with the step that follows.

    ``opens`` and ``closes`` count, and ``threads`` holds the identity of every thread that called.
    """

    def __init__(
        self,
        steps: Iterable[Step] | Callable[[], Any],
        fps: float | None,
        *,
        unopenable: int = 0,
        address: Address | None = None,
    ) -> None:
        self._steps = iter(_calls(steps) if callable(steps) else steps)
        self._fps = fps
        self._unopenable = unopenable
        self._address = address or Address("script")
        self._stop = threading.Event()
        self._due: float | None = None
        self.opens = self.closes = 0
        self.threads: set[int] = set()

    def open(self, stop: threading.Event) -> Opened:
        self.threads.add(threading.get_ident())
        self._stop, self._due = stop, None
        self.opens += 1
        if self._unopenable > 0:
            self._unopenable -= 1
            raise Lost("cannot be opened")
        return Opened("python", self._fps)

    def read(self) -> Reading | None:
        self.threads.add(threading.get_ident())
        for step in self._steps:
            if isinstance(step, (Pause, Until)):
                if self._hold(step):
                    return None
                continue
            if isinstance(step, Raise):
                raise self._as_lost(step.error)
            if isinstance(step, Garbage):
                return None
            self._keep_time()
            return step if isinstance(step, Reading) else Reading(np.asarray(step))
        raise Over("its script is over")

    def _hold(self, step: Pause | Until) -> bool:
        """Let time pass; whether the source was closed meanwhile."""
        self._due = None
        if isinstance(step, Pause):
            return self._stop.wait(step.seconds)
        while not step.condition():
            if self._stop.wait(0.002):
                return True
        return False

    def _as_lost(self, error: Exception) -> Exception:
        if isinstance(error, OSError):
            return Lost(f"the device is gone ({self._address.clean(error.strerror or error)})")
        return error

    def _keep_time(self) -> None:
        if not self._fps:
            return
        now = time.monotonic()
        self._due = now if self._due is None else self._due + 1 / self._fps
        if self._due > now:
            self._stop.wait(self._due - now)

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.closes += 1


def _calls(function: Callable[[], Any]) -> Iterator[Any]:
    """What a function returns, call by call, until it returns None; its errors as steps, since a generator dies."""
    while True:
        try:
            value = function()
        except Exception as error:
            yield Raise(error)
            continue
        if value is None:
            return
        yield value


def _until_none(function: Callable[[], Array | None]) -> Iterator[Array]:
    while (value := function()) is not None:
        yield value


class IteratorSource(Recording):
    """Arrays in order, none dropped; stamps are numbers of frames divided by the rate."""

    def __init__(self, uri: str, arrays: Iterable[Array], fps: float) -> None:
        super().__init__(uri, fps, "python")
        self._arrays = arrays

    def _read(self) -> Iterator[Frame]:
        assert self.fps is not None
        for index, array in enumerate(self._arrays):
            yield Frame(np.asarray(array), index / self.fps, "rate", index)


def from_frames(
    frames: Iterable[Array] | Callable[[], Array | None],
    *,
    live: bool = False,
    fps: float | None = None,
    name: str = "python",
    patience: Patience | None = None,
) -> Source:
    """A source of arrays that an iterable yields, or that a function returns until it returns None.

    Args:
        frames: pictures (height, width, 3) uint8 in blue, green, red, or rows of values of any shape.
        live: whether they are taken in a thread as they come, and only the newest kept; otherwise none is lost.
        fps: their rate: of a recording's stamps (30 unless given); a live source takes no more than that.
        name: what the source is called.
        patience: of a live source.

    Example:
        >>> with from_frames(iter([np.zeros((4, 4, 3), np.uint8)] * 2), fps=10) as source:
        ...     [frame.stamp for frame in source]
        [0.0, 0.1]
    """
    rate = check_fps(fps)
    if live:
        return scripted(frames, fps=rate, name=name, patience=patience)
    if patience is not None:
        raise SpecError(f"{name}: patience is for live sources")
    arrays = _until_none(frames) if callable(frames) else frames
    return IteratorSource(str(Address(name)), arrays, rate or DEFAULT_FPS)


def scripted(
    steps: Iterable[Step] | Callable[[], Any],
    *,
    fps: float | None = None,
    name: str = "script",
    patience: Patience | None = None,
    unopenable: int = 0,
) -> LiveSource:
    """A live source that plays a script: frames, readings with stamps of their own, pauses, garbage, errors.

    Args:
        steps: what happens, in order; after an error that counts as a lost connection it goes on behind it.
        fps: rate at which frames come; None for as fast as they are read.
        unopenable: how many attempts to open it fail before one succeeds.
    """
    producer = ScriptProducer(steps, check_fps(fps), unopenable=unopenable)
    return LiveSource(Address(name), producer, fps=fps, patience=patience)
