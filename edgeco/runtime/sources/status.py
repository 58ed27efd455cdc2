"""What a source is doing: named states, the moves allowed between them, and counts that any thread may read."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class State(str, Enum):
    """Where a source stands. ``ended`` and ``failed`` are final."""

    OPENING = "opening"
    """Not open yet, or being opened for the first time."""
    RUNNING = "running"
    """Frames come."""
    STALLED = "stalled"
    """Open, but no frame has come for longer than the source's ``stall``."""
    RECONNECTING = "reconnecting"
    """Lost; being opened again, with pauses that grow."""
    ENDED = "ended"
    """At its end, or closed by its user."""
    FAILED = "failed"
    """Given up, for the reason that ``detail`` says."""

    @property
    def final(self) -> bool:
        return self in (State.ENDED, State.FAILED)


MOVES: Mapping[State, frozenset[State]] = {
    State.OPENING: frozenset({State.RUNNING, State.RECONNECTING, State.ENDED, State.FAILED}),
    State.RUNNING: frozenset({State.STALLED, State.RECONNECTING, State.ENDED, State.FAILED}),
    State.STALLED: frozenset({State.RUNNING, State.RECONNECTING, State.ENDED, State.FAILED}),
    State.RECONNECTING: frozenset({State.RUNNING, State.ENDED, State.FAILED}),
    State.ENDED: frozenset(),
    State.FAILED: frozenset(),
}
"""From each state, those that may follow."""

KEPT_EVENTS = 100
_KEPT_STAMPS = 64
_LEAST_SPAN = 200_000_000


@dataclass(frozen=True, slots=True)
class SourceEvent:
    """Something that happened to a source: the state it was in from then on, one sentence, ``time.monotonic_ns()``."""

    state: State
    detail: str
    at: int


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """A snapshot of a source, of one moment.

    Args:
        uri: what was opened, without credentials.
        state: where it stands.
        frames: frames handed out.
        captured: frames read, usable or not: those handed out, those dropped, and at most one that waits.
        drops: frames read and not handed out, by cause; files drop none.
        reconnects: how often the source was lost and came back.
        size: (width, height) of the last frame, None before the first and for rows of values.
        fps: frames per second that the source announces, None where it does not.
        measured_fps: frames per second over the last 64 frames captured, None before they span 0.2 s.
        backend: what reads it, such as ``v4l2``, ``ffmpeg``, ``gstreamer``.
        detail: one sentence about the state, without credentials; empty where there is nothing to say.
    """

    uri: str
    state: State
    frames: int = 0
    captured: int = 0
    drops: Mapping[str, int] = field(default_factory=dict)
    reconnects: int = 0
    size: tuple[int, int] | None = None
    fps: float | None = None
    measured_fps: float | None = None
    backend: str = ""
    detail: str = ""

    @property
    def dropped(self) -> int:
        """Frames dropped for any cause."""
        return sum(self.drops.values())


class Board:
    """The state and the counts of one source, written by its reader and read by anyone.

    Moves that ``MOVES`` does not allow do not happen: a reader that learns of an end after its source was closed, or
    of a frame after it was declared dead, changes nothing.
    """

    def __init__(self, uri: str, fps: float | None = None, backend: str = "") -> None:
        self._lock = threading.RLock()
        self._uri, self._fps, self._backend = uri, fps, backend
        self._state, self._detail = State.OPENING, ""
        self._frames = self._captured = self._reconnects = 0
        self._drops: dict[str, int] = {}
        self._size: tuple[int, int] | None = None
        self._events: deque[SourceEvent] = deque(maxlen=KEPT_EVENTS)
        self._stamps: deque[int] = deque(maxlen=_KEPT_STAMPS)

    @property
    def state(self) -> State:
        return self._state

    def move(self, state: State, detail: str = "", *, only_from: State | None = None) -> bool:
        """Change the state if that is allowed, and say whether it was. The same state again only tells the detail."""
        with self._lock:
            before = self._state
            if only_from is not None and before is not only_from:
                return False
            if state is before and not state.final:
                self.note(detail)
                return True
            if state not in MOVES[before]:
                return False
            if before is State.RECONNECTING and state is State.RUNNING:
                self._reconnects += 1
            if state is State.RECONNECTING:
                self._stamps.clear()
            self._state = state
            self.note(detail)
            return True

    def note(self, detail: str) -> None:
        """Say something about the present state."""
        with self._lock:
            self._detail = detail
            self._events.append(SourceEvent(self._state, detail, time.monotonic_ns()))

    def announce(self, *, fps: float | None = None, backend: str | None = None) -> None:
        """What the source says of itself once it is open."""
        with self._lock:
            self._fps = fps or self._fps
            self._backend = self._backend if backend is None else backend

    def capture(self, taken: int | None = None, size: tuple[int, int] | None = None) -> None:
        """Count a frame read; a size that differs from the last frame's is an event."""
        with self._lock:
            self._captured += 1
            if taken is not None:
                self._stamps.append(taken)
            if size is None or size == self._size:
                return
            before, self._size = self._size, size
            if before is not None:
                self.note("the frames' size changed from {}x{} to {}x{}".format(*before, *size))

    def drop(self, cause: str) -> None:
        with self._lock:
            self._drops[cause] = self._drops.get(cause, 0) + 1

    def hand_out(self) -> int:
        """Count a frame handed out; returns its index."""
        with self._lock:
            self._frames += 1
            return self._frames - 1

    def events(self) -> tuple[SourceEvent, ...]:
        with self._lock:
            return tuple(self._events)

    def status(self) -> SourceStatus:
        with self._lock:
            return SourceStatus(
                self._uri,
                self._state,
                self._frames,
                self._captured,
                dict(self._drops),
                self._reconnects,
                self._size,
                self._fps,
                self._measured(),
                self._backend,
                self._detail,
            )

    def _measured(self) -> float | None:
        # After connecting, what was on the way comes all at once.
        if len(self._stamps) < 2 or self._stamps[-1] - self._stamps[0] < _LEAST_SPAN:
            return None
        return (len(self._stamps) - 1) * 1e9 / (self._stamps[-1] - self._stamps[0])
