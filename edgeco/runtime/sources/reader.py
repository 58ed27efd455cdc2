"""The thread of a live source: it alone opens, reads and releases, and keeps the newest frame."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np

from edgeco.errors import SourceError
from edgeco.runtime.sources.address import Address
from edgeco.runtime.sources.base import size_of
from edgeco.runtime.sources.patience import Patience, Pauses
from edgeco.runtime.sources.producer import Array, Lost, Over, Producer, Reading
from edgeco.runtime.sources.status import Board, State

NEWER = "newer"
"""Cause of a drop: another frame came before this one was asked for."""
GARBAGE = "garbage"
"""Cause of a drop: what was read is no picture."""
STAMPS = "stamps"
"""Cause of a drop: its time of capture is not after that of the frame before."""
OLD = "old"
"""Cause of a drop: it was older than ``max_age`` when it was asked for."""
CLOSED = "closed"
"""Cause of a drop: the source was closed before it was asked for."""

UNUSABLE_IN_A_ROW = 50
"""Unusable frames after which the connection counts as lost."""


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A frame read and not yet asked for; ``missing`` counts those lost between the last handed out and it."""

    image: Array
    taken: int
    label: str | None
    missing: int


class Slot:
    """Room for one frame: the newest. Its condition also tells of changes of state."""

    def __init__(self, board: Board) -> None:
        self.changed = threading.Condition()
        self._board = board
        self._waiting: Waiting | None = None
        self._missing = 0

    def miss(self, frames: int = 1) -> None:
        """Count frames that are lost for good."""
        with self.changed:
            self._missing += frames

    def put(self, reading: Reading, taken: int) -> None:
        with self.changed:
            self._missing += reading.missing
            if self._waiting is not None:
                self._discard(NEWER)
            self._waiting = Waiting(reading.image, taken, reading.label, self._missing)
            self.changed.notify_all()

    def take(self, oldest: int | None = None) -> Waiting | None:
        """The frame that waits, if there is one and it was not captured before ``oldest``."""
        with self.changed:
            if self._waiting is not None and oldest is not None and self._waiting.taken < oldest:
                self._discard(OLD)
            waiting, self._waiting = self._waiting, None
            if waiting is not None:
                self._missing = 0
            return waiting

    def clear(self) -> None:
        with self.changed:
            if self._waiting is not None:
                self._discard(CLOSED)
            self.changed.notify_all()

    def _discard(self, cause: str) -> None:
        self._waiting = None
        self._missing += 1
        self._board.drop(cause)


class Reader(threading.Thread):
    """Reads one producer until it ends, fails or is stopped, opening it again whenever it is lost."""

    def __init__(self, address: Address, producer: Producer, board: Board, slot: Slot, patience: Patience) -> None:
        super().__init__(name=f"edgeco source {address}", daemon=True)
        self.stopping = threading.Event()
        self.heard = time.monotonic()
        """When the last usable frame came."""
        self.busy_since: float | None = None
        """Since when the producer has been asked for something and has not answered."""
        self._address, self._producer, self._board, self._slot = address, producer, board, slot
        self._patience = patience
        self._pauses = Pauses(patience.first_pause, patience.longest_pause)
        self._last_taken = -1
        self._came = 0
        """Usable frames of the present connection."""

    def run(self) -> None:
        try:
            self._connect_again_and_again()
        except Over as end:
            self._finish(State.ENDED, str(end))
        except SourceError as error:
            self._finish(State.FAILED, str(error))
        except Exception as error:
            self._finish(State.FAILED, f"its reader failed: {type(error).__name__}: {self._address.clean(error)}")
        else:
            self._finish(State.ENDED, "closed")

    def _finish(self, state: State, detail: str) -> None:
        self._board.move(state, detail)
        with self._slot.changed:
            self._slot.changed.notify_all()

    def _connect_again_and_again(self) -> None:
        attempts, ever = 0, False
        while not self.stopping.is_set():
            self._came = 0
            try:
                self._connection()
                return
            except Lost as lost:
                reason = str(lost)
            if self._came:
                attempts, ever = 0, True
                self._pauses.reset()
            self._give_up_or_pause(reason, attempts, ever)
            attempts += 1

    def _give_up_or_pause(self, reason: str, attempts: int, ever: bool) -> None:
        patience = self._patience
        if not ever and not patience.patient:
            raise SourceError(reason)
        if patience.attempts is not None and attempts >= patience.attempts:
            tried = f"; given up after {attempts} attempt{'' if attempts == 1 else 's'}" if attempts else ""
            raise SourceError(reason + tried)
        pause = next(self._pauses)
        self._board.move(State.RECONNECTING, f"{reason}; trying again in {pause:.1f} s")
        self.stopping.wait(pause)

    def _connection(self) -> None:
        """One connection, from opening to releasing; returns when the source is stopped."""
        try:
            self.busy_since = time.monotonic()
            opened = self._producer.open(self.stopping)
            self._board.announce(fps=opened.fps, backend=opened.backend)
            unusable = 0
            while not self.stopping.is_set():
                self.busy_since = time.monotonic()
                reading = self._producer.read()
                if self.stopping.is_set():
                    return
                unusable = 0 if self._keep(reading, opened.detail) else unusable + 1
                if unusable >= UNUSABLE_IN_A_ROW:
                    raise Lost(f"{unusable} frames in a row could not be used")
        finally:
            self.busy_since = None
            self._producer.close()

    def _keep(self, reading: Reading | None, detail: str) -> bool:
        """Make a frame the newest if it can be used, and say whether it can."""
        now = time.monotonic_ns()
        if reading is None or not is_frame(reading.image):
            return self._refuse(GARBAGE)
        taken = now if reading.taken is None else reading.taken
        if taken <= self._last_taken:
            return self._refuse(STAMPS)
        self._last_taken = taken
        self.heard = time.monotonic()
        self._came += 1
        self._board.capture(now, size_of(reading.image))
        if self._board.state is not State.RUNNING and not self._board.move(State.RUNNING, detail):
            self._board.drop(CLOSED)
            return True
        self._slot.put(reading, taken)
        return True

    def _refuse(self, cause: str) -> bool:
        self._board.capture()
        self._board.drop(cause)
        self._slot.miss()
        return False


def is_frame(image: object) -> bool:
    """Whether this is a picture with pixels, or a row of finite values."""
    if not isinstance(image, np.ndarray) or image.size == 0:
        return False
    if image.dtype == np.uint8:
        return image.ndim != 3 or image.shape[2] == 3
    return image.dtype.kind in "iu" or (image.dtype == np.float32 and bool(np.isfinite(image).all()))
