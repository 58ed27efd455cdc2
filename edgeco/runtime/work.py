"""What goes from stage to stage of a pipeline, and the one stage that holds a stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgeco.runtime.channel import Channel
from edgeco.runtime.frame import Frame
from edgeco.runtime.pacer import RATE, Decision, Pacer
from edgeco.runtime.result import Result
from edgeco.runtime.stream import Stream

BUSY, NO_INPUT = "busy", "no input"
"""Why a frame is not stepped with, besides the pacer's reasons: a newer one was ready first; ``pre`` gave None."""

ASKED = "asked"
"""Why a state is reset, besides the pacer's reasons: somebody asked for it."""

WAITING = 256
"""Frames without their pictures that may wait for the step of a live source, so that each gets its line."""
PICTURES = 4
"""Of those that the pacer passes over, as many keep their pictures."""

_NO_PICTURE = np.empty((0, 0, 3), np.uint8)
_NO_PICTURE.flags.writeable = False


@dataclass(slots=True)
class Item:
    """A frame on its way to the network.

    ``value`` is what the network takes, None where it is not to be stepped with; then ``why`` says why. ``decision``
    is the pacer's, where it was asked already.
    """

    frame: Frame
    value: Any = None
    why: str = ""
    decision: Decision | None = None


@dataclass(slots=True)
class Outcome:
    """A frame after the network: how often it was stepped with, and the last answer."""

    frame: Frame
    result: Result | None
    stepped: int
    why: str = ""
    missed: int = 0
    reset: str = ""
    age: float | None = None
    """Seconds from capture to answer, of live sources."""


def without_picture(frame: Frame) -> Frame:
    """The frame with an empty picture, for what only counts it."""
    return replace(frame, image=_NO_PICTURE)


class Newest(Channel[Item]):
    """The way from preparation to the network for a live source: of frames that are ready only the newest waits.

    Those that it replaces, and those that the pacer passes over, wait with it in their order, for their lines.
    """

    def __init__(self, room: int = WAITING) -> None:
        super().__init__(room)

    def _append(self, item: Item) -> None:
        if item.value is not None:
            for waiting in self._items:
                if waiting.value is not None:
                    waiting.value, waiting.why = None, BUSY
                    waiting.frame = without_picture(waiting.frame)
        if len(self._items) >= PICTURES and (old := self._items[-PICTURES]).value is None:
            old.frame = without_picture(old.frame)
        self._items.append(item)


class Stepper:
    """Steps a stream as a pacer decides. Used by one thread, but for ``request_reset``.

    Args:
        stream: of one row.
        pacer: decides by the frames' stamps.
        cancelled: asked between the steps of a frame that is repeated; true ends them.
    """

    def __init__(self, stream: Stream, pacer: Pacer, cancelled: Callable[[], bool] = lambda: False) -> None:
        self._stream, self._pacer, self._cancelled = stream, pacer, cancelled
        self._asked = threading.Event()

    def request_reset(self) -> None:
        """Reset the stream before its next step. From any thread."""
        self._asked.set()

    def take(self, item: Item) -> Outcome:
        """Decide on a frame and step with it as often.

        Raises:
            FrameError: the value does not fit the network.
            EngineError: the engine failed.
        """
        frame = item.frame
        if item.value is None and item.why != RATE:
            return Outcome(frame, None, 0, item.why)
        decision = item.decision or self._pacer.decide(frame.stamp)
        if item.value is None or not decision.times:
            return Outcome(frame, None, 0, decision.why or item.why)
        reset = self._reset(decision)
        result = self._stream.step(item.value)
        stepped = 1
        while stepped < decision.times and not self._cancelled():
            result = self._stream.step(item.value)
            stepped += 1
        age = None if frame.taken is None else (time.monotonic_ns() - frame.taken) * 1e-9
        result = replace(result, stamp=frame.stamp)
        return Outcome(frame, result, stepped, decision.why, decision.missed, reset, age)

    def _reset(self, decision: Decision) -> str:
        why = decision.why if decision.reset else ""
        if self._asked.is_set():
            self._asked.clear()
            why = why or ASKED
        if why:
            self._stream.reset()
        return why
