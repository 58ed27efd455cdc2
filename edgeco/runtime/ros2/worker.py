"""The thread between a node's callbacks and the network.

A callback only leaves its message in a slot, which holds the newest: executors of rclpy run callbacks one after
another, and a network in one of them would hold up all others. The worker decodes, paces by the messages' own stamps,
steps, and hands answers over.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeco.errors import EdgecoError, FrameError, SourceError, SpecError
from edgeco.named import said
from edgeco.runtime.frame import Frame
from edgeco.runtime.pacer import CLOCK, STAMP, Pacer
from edgeco.runtime.pre import Prepare
from edgeco.runtime.result import Result
from edgeco.runtime.stream import Stream
from edgeco.runtime.timing import Percentiles
from edgeco.runtime.work import ASKED, BUSY, NO_INPUT

IDLE, RUNNING, FAILED = "idle", "running", "failed"
UNREADABLE, UNDELIVERED, STOPPED = "unreadable", "undelivered", "stopped"
"""Why a message is not stepped with, besides ``BUSY`` (a newer one replaced it), ``NO_INPUT`` (``prepare`` gave None)
and the pacer's reasons: it could not be decoded, its answer could not be delivered, the worker was stopped before it
took it."""

BACK = 1.0
"""Seconds: stamps that go back further mean another recording, and the state is reset; nearer ones are passed over."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the network said of a message: the message, its stamp in nanoseconds, the result, and how often it was
    stepped with."""

    message: Any
    stamp: int
    result: Result
    stepped: int


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A snapshot of a worker; seconds throughout.

    Args:
        state: ``idle``, ``running`` or ``failed``.
        received, stepped, valid, warm: messages received, stepped with, answered, and answered warm.
        drops: messages not stepped with, by cause.
        resets: of the state, by cause.
        quiet: since the last message, or since the start.
        step, age: percentiles of decoding and stepping, and of the time from stamp to answer, by the node's clock.
        valid_now, unreadable_now: of the last message.
        error: the last thing that went wrong, in one sentence.
    """

    state: str
    received: int = 0
    stepped: int = 0
    valid: int = 0
    warm: int = 0
    drops: dict[str, int] = field(default_factory=dict)
    resets: dict[str, int] = field(default_factory=dict)
    quiet: float = 0.0
    step: dict[str, float] = field(default_factory=dict)
    age: dict[str, float] = field(default_factory=dict)
    valid_now: bool = False
    unreadable_now: bool = False
    error: str | None = None

    def values(self) -> Iterator[tuple[str, str]]:
        """Keys and values for people, as diagnostics show them."""
        for name in ("state", "received", "stepped", "valid", "warm"):
            yield name, str(getattr(self, name))
        yield from ((f"dropped: {cause}", str(count)) for cause, count in sorted(self.drops.items()))
        yield from ((f"resets: {cause}", str(count)) for cause, count in sorted(self.resets.items()))
        for name, times in (("step", self.step), ("age", self.age)):
            yield from ((f"{name} {key} (ms)", f"{1000 * value:.1f}") for key, value in times.items())
        if self.error:
            yield "last error", self.error


class Worker:
    """Steps a stream with the newest message, in a thread of its own between ``start`` and ``stop``.

    Args:
        stream: of one row; the caller closes it after ``stop``.
        decode: from a message to a picture or an array; called in the worker's thread.
        prepare: from a frame of it to what the network takes, or None where it holds nothing, as ``preparer`` makes it.
        deliver: called with every valid answer, in the worker's thread.
        pacer: decides by the stamps; one of its own.
        clock: nanoseconds now on the clock of the stamps, which may be simulated.
        say: called with a sentence when something goes wrong, once for each in a row.

    Example::

        worker = Worker(model.stream(), decode_image, preparer(model), publish, Pacer(12.5))
        worker.start()
        worker.offer(message, stamp)      # from a callback; returns at once
    """

    def __init__(
        self,
        stream: Stream,
        decode: Callable[[Any], np.ndarray[Any, np.dtype[Any]]],
        prepare: Prepare,
        deliver: Callable[[Answer], None],
        pacer: Pacer,
        *,
        clock: Callable[[], int] = time.time_ns,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._stream, self._decode, self._prepare = stream, decode, prepare
        self._deliver, self._pacer = deliver, pacer
        self._clock, self._say = clock, say
        self._slot: tuple[Any, int] | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = self._asked = False
        self._state = IDLE
        self._newest: int | None = None
        self._counts: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()
        self._resets: Counter[str] = Counter()
        self._times = {"step": Percentiles(), "age": Percentiles()}
        self._heard = time.monotonic()
        self._valid_now = self._unreadable_now = False
        self._error: str | None = None

    def start(self) -> None:
        """Start the thread, at the beginning of a stream.

        Raises:
            SpecError: it is running.
        """
        if self._thread is not None:
            raise SpecError("the worker runs already; stop it first")
        self._stream.reset()
        self._pacer.restart()
        self._newest, self._slot, self._stopping, self._asked = None, None, False, False
        self._state, self._heard, self._error = RUNNING, time.monotonic(), None
        self._thread = threading.Thread(target=self._run, name="edgeco-ros2", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after the step in hand, and forget the past. May be called again."""
        thread = self._thread
        if thread is None:
            return
        with self._changed:
            self._stopping = True
            if self._slot is not None:
                self._slot = None
                self._drops[STOPPED] += 1
            self._changed.notify()
        thread.join()
        self._thread = None
        self._stream.reset()
        self._valid_now = False
        if self._state != FAILED:
            self._state = IDLE

    def offer(self, message: Any, stamp: int) -> None:
        """Leave a message for the worker, in place of one that it has not taken yet. Never waits for the network.

        Args:
            message: as ``decode`` takes it; it must not change afterwards.
            stamp: its time in nanoseconds; 0, as drivers that know no time write, stands for now.
        """
        stamp = stamp or self._clock()
        with self._changed:
            self._counts["received"] += 1
            self._heard = time.monotonic()
            if self._state != RUNNING:
                self._drops[self._state] += 1
                return
            if self._slot is not None:
                self._drops[BUSY] += 1
            self._slot = message, stamp
            self._changed.notify()

    def request_reset(self) -> None:
        """Forget the past before the next step. From any thread."""
        self._asked = True

    def status(self) -> WorkerStatus:
        """A snapshot, from any thread."""
        with self._changed:
            times = {}
            for name, percentiles in self._times.items():
                report = percentiles.summary()
                times[name] = {key: getattr(report, key) for key in ("p50", "p99", "max")} if report.count else {}
            return WorkerStatus(
                self._state,
                self._counts["received"],
                self._counts["stepped"],
                self._counts["valid"],
                self._counts["warm"],
                dict(self._drops),
                dict(self._resets),
                time.monotonic() - self._heard,
                times["step"],
                times["age"],
                self._valid_now,
                self._unreadable_now,
                self._error,
            )

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._slot is None and not self._stopping:
                    self._changed.wait()
                if self._stopping or self._slot is None:
                    return
                (message, stamp), self._slot = self._slot, None
            try:
                self._take(message, stamp)
            except (FrameError, SourceError) as error:
                self._complain(UNREADABLE, str(error))
            except Exception as error:
                self._fail(str(error) if isinstance(error, EdgecoError) else said(error))
                return

    def _take(self, message: Any, stamp: int) -> None:
        why = self._out_of_order(stamp)
        if why == STAMP:
            self._drop(STAMP)
            return
        decision = self._pacer.decide(stamp * 1e-9)
        if not decision.times:
            self._drop(decision.why)
            return
        before = time.perf_counter()
        frame = Frame(self._decode(message), stamp * 1e-9, "ros", self._counts["received"] - 1)
        value = self._prepare(frame)
        if value is None:
            self._drop(NO_INPUT)
            return
        why = why or (decision.why if decision.reset else "") or (ASKED if self._asked else "")
        if why:
            self._asked = False
            self._stream.reset()
        for _ in range(decision.times):
            result = self._stream.step(value)
        seconds, age = time.perf_counter() - before, (self._clock() - stamp) * 1e-9
        if result.valid:
            self._hand_over(Answer(message, stamp, result, decision.times))
        self._note(result, why, seconds, age)

    def _hand_over(self, answer: Answer) -> None:
        """Deliver; what goes wrong there is not the network's, which goes on."""
        try:
            self._deliver(answer)
        except Exception as error:
            self._complain(UNDELIVERED, f"an answer could not be delivered ({said(error)})")

    def _out_of_order(self, stamp: int) -> str:
        """``CLOCK`` where the stamps began anew, as a bag that is played again, ``STAMP`` where this one is stale."""
        newest = self._newest
        if newest is not None and stamp <= newest:
            if (newest - stamp) * 1e-9 <= BACK:
                return STAMP
            self._pacer.restart()
        self._newest = stamp
        return CLOCK if newest is not None and stamp < newest else ""

    def _note(self, result: Result, reset: str, seconds: float, age: float) -> None:
        with self._changed:
            self._counts["stepped"] += 1
            self._counts["valid"] += bool(result.valid)
            self._counts["warm"] += bool(result.warm)
            if reset:
                self._resets[reset] += 1
            self._times["step"].add(seconds)
            if result.valid:
                self._times["age"].add(max(0.0, age))
            self._valid_now, self._unreadable_now = bool(result.valid), False

    def _drop(self, cause: str) -> None:
        with self._changed:
            self._drops[cause] += 1

    def _complain(self, cause: str, text: str) -> None:
        """Count what goes on happening, and say it when it begins."""
        with self._changed:
            self._drops[cause] += 1
            new = text != self._error
            self._error = text
            self._unreadable_now = self._unreadable_now or cause == UNREADABLE
        if new:
            self._say(text)

    def _fail(self, text: str) -> None:
        with self._changed:
            self._state, self._error, self._slot = FAILED, text, None
        self._say(text)
