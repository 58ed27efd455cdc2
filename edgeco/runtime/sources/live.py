"""Sources that do not wait: the newest frame, and what became of the others."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from edgeco.errors import SourceError, SpecError
from edgeco.runtime.frame import Frame
from edgeco.runtime.sources.address import Address
from edgeco.runtime.sources.base import Source
from edgeco.runtime.sources.patience import Patience
from edgeco.runtime.sources.producer import Producer
from edgeco.runtime.sources.reader import Reader, Slot, Waiting
from edgeco.runtime.sources.status import SourceEvent, SourceStatus, State

_LOOK = 0.1
"""Seconds between two looks at the watchdog while a frame is waited for."""


class LiveSource(Source):
    """Frames of a producer that runs in a thread of its own, from ``start`` to ``close``.

    ``start`` comes by itself with the first frame asked for, or at the top of a ``with`` block. Nothing is opened
    before. A frame's ``gap`` counts those dropped since the one handed out before it. A stalled or lost source keeps
    its user waiting in ``next``; use ``wait`` to do other things meanwhile.

    Args:
        address: what to call it.
        producer: where frames come from.
        fps: the rate asked for, until the producer announces its own.
    """

    live = True

    def __init__(
        self, address: Address, producer: Producer, *, fps: float | None = None, patience: Patience | None = None
    ) -> None:
        super().__init__(str(address), fps)
        self.patience = patience or Patience()
        self._slot = Slot(self._board)
        self._reader = Reader(address, producer, self._board, self._slot, self.patience)
        self._starting = threading.Lock()
        # The reader knows nothing of this object, so that one that is forgotten is collected and ends its thread.
        self._forgotten = weakref.finalize(self, _end, self._reader)

    def start(self) -> None:
        """Open the source in its thread, if that has not been done; returns at once."""
        with self._starting:
            if self._reader.ident is None and not self._board.state.final:
                self._reader.start()

    def __enter__(self) -> LiveSource:
        self.start()
        return self

    def __next__(self) -> Frame:
        frame = self.wait()
        if frame is None:
            raise StopIteration
        return frame

    def wait(self, seconds: float | None = None) -> Frame | None:
        self.start()
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._slot.changed:
            while True:
                state = self.state
                waiting = self._slot.take(self._oldest())
                if waiting is not None:
                    return self._frame(waiting)
                if state is State.FAILED:
                    raise SourceError(f"{self.uri}: {self._board.status().detail}")
                left = _LOOK if deadline is None else min(_LOOK, deadline - time.monotonic())
                if state is State.ENDED or left <= 0:
                    return None
                self._slot.changed.wait(left)

    def _oldest(self) -> int | None:
        age = self.patience.max_age
        return None if age is None else time.monotonic_ns() - int(age * 1e9)

    def _frame(self, waiting: Waiting) -> Frame:
        index = self._board.hand_out()
        stamp = waiting.taken * 1e-9
        return Frame(
            waiting.image, stamp, "monotonic", index, waiting.missing if index else 0, waiting.label, waiting.taken
        )

    @property
    def state(self) -> State:
        self._watch()
        return self._board.state

    def status(self) -> SourceStatus:
        self._watch()
        return super().status()

    def events(self) -> tuple[SourceEvent, ...]:
        self._watch()
        return super().events()

    def _watch(self) -> None:
        """The watchdog: whoever looks at the source finds out that no frame comes."""
        silent = time.monotonic() - self._reader.heard
        if self._board.state is State.RUNNING and silent > self.patience.stall:
            self._board.move(State.STALLED, f"no frame for {silent:.1f} s", only_from=State.RUNNING)
        busy_since = self._reader.busy_since
        if busy_since is not None and time.monotonic() - busy_since > self.patience.hang:
            self._reader.stopping.set()
            self._board.move(
                State.FAILED,
                f"its driver has not returned for {self.patience.hang:g} s and cannot be interrupted; end this process "
                "to set it free",
            )

    def close(self) -> None:
        """End the source. Its thread releases the device before this returns, unless a driver does not return.

        Waits for what the reader is doing, hence up to ``read_timeout`` or ``open_timeout``; a pause before
        reconnecting is cut short.
        """
        self._reader.stopping.set()
        self._board.move(State.ENDED, "closed")
        self._slot.clear()
        with self._starting:
            started = self._reader.ident is not None
        if started and self._reader is not threading.current_thread():
            self._reader.join(self.patience.hang)
            if self._reader.is_alive():
                self._board.note(f"closed, but its driver has not returned for {self.patience.hang:g} s")
        self._slot.clear()


def _end(reader: Reader) -> None:
    """End the thread of a source that nobody closed, before the interpreter goes away under it."""
    reader.stopping.set()
    if reader.ident is not None and reader is not threading.current_thread():
        reader.join(1.0)


def split_patience(options: Mapping[str, Any]) -> tuple[Patience, dict[str, Any]]:
    """Options of waiting, and the others. Values may be text, as in a URI. Raises SpecError for unusable ones."""
    known: dict[str, Any] = {}
    others = dict(options)
    for field in fields(Patience):
        if field.name in others:
            known[field.name] = _value(field.name, others.pop(field.name))
    return Patience(**known), others


def _value(name: str, given: Any) -> Any:
    if not isinstance(given, str):
        return given
    try:
        if name == "patient":
            return {"1": True, "0": False, "true": True, "false": False}[given.lower()]
        return int(given) if name == "attempts" else float(given)
    except (ValueError, KeyError):
        raise SpecError(f"{name} is {given!r}: not a usable value") from None
