"""A sink behind a bounded queue, in a thread of its own, so that it stalls nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from edgeco.errors import EdgecoError
from edgeco.named import said
from edgeco.runtime.channel import Channel
from edgeco.runtime.sinks.base import Delivery, Keeps, Sink
from edgeco.runtime.timing import Percentiles, Summary, now
from edgeco.runtime.work import without_picture

PICTURES = 4
"""Deliveries with pictures that may wait for a sink."""
RECORDS = 4096
"""Deliveries without pictures that may wait for a sink: two minutes of 30 frames a second."""
PATIENCE = 5.0
"""Seconds after the last delivery after which a sink that may lose some is given up."""


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """What a sink did.

    Args:
        taken: deliveries it took without an error.
        dropped: deliveries it never got, because it was slow or had failed for good.
        failed: deliveries, or the closing, that raised.
        waiting: deliveries in its queue.
        error: its last failure, in one sentence.
        times: percentiles of the seconds that a delivery took it.
    """

    taken: int = 0
    dropped: int = 0
    failed: int = 0
    waiting: int = 0
    error: str | None = None
    times: Summary | None = None


class SinkWorker:
    """Runs one sink.

    Args:
        sink: is used by the worker's thread alone from ``start`` on, and closed by it.
        name: how reports call it.
        live: whether the source is; decides what ``Keeps.RECORDINGS`` means.
        fatal: called with the failure of a sink that must lose nothing.
    """

    def __init__(self, sink: Sink, name: str, live: bool, fatal: Callable[[Exception], None]) -> None:
        keeps = getattr(sink, "keeps", Keeps.NEWEST)
        self.name = name
        self.essential = keeps is Keeps.ALL
        self._sink, self._fatal = sink, fatal
        self._waits = self.essential or (keeps is Keeps.RECORDINGS and not live)
        self._pictures = bool(getattr(sink, "pictures", True))
        self._channel: Channel[Delivery] = Channel(PICTURES if self._pictures else RECORDS)
        self._lock = threading.Lock()
        self._status = SinkStatus()
        self._times = Percentiles()
        self._thread = threading.Thread(target=self._work, name=f"edgeco sink {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def give(self, delivery: Delivery) -> None:
        """Hand over a delivery; waits only for a sink that must not lose it."""
        if not self._pictures:
            delivery = replace(delivery, frame=without_picture(delivery.frame))
        lost = int(not self._channel.put(delivery)) if self._waits else self._channel.push(delivery)
        if lost:
            self._count(dropped=lost)

    def finish(self) -> None:
        """There are no more deliveries."""
        self._channel.finish()

    def cancel(self) -> None:
        """Drop what waits."""
        if lost := self._channel.cancel():
            self._count(dropped=lost)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until the sink is closed; false if it was not in time."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def give_up(self) -> None:
        """Leave a sink that does not come back from a call behind."""
        self.cancel()
        self._count(failed=1, error=f"did not end within {PATIENCE:g} s and was left behind")

    @property
    def status(self) -> SinkStatus:
        with self._lock:
            return replace(self._status, waiting=len(self._channel), times=self._times.summary())

    def _work(self) -> None:
        while (delivery := self._channel.get()) is not None:
            start = now()
            try:
                self._sink.take(delivery)
            except Exception as error:
                self._failed(error)
                if self.essential:
                    self.cancel()
                    break
                continue
            seconds = (now() - start) * 1e-9
            with self._lock:
                self._times.add(seconds)
                self._status = replace(self._status, taken=self._status.taken + 1)
        try:
            self._sink.close()
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._count(failed=1, error=str(error) if isinstance(error, EdgecoError) else said(error))
        if self.essential:
            self._fatal(error)

    def _count(self, dropped: int = 0, failed: int = 0, error: str | None = None) -> None:
        with self._lock:
            was = self._status
            self._status = replace(
                was, dropped=was.dropped + dropped, failed=was.failed + failed, error=error or was.error
            )


def names_of(sinks: list[Sink]) -> list[str]:
    """How reports call some sinks: by their own names, numbered where two are alike."""
    names: list[str] = []
    for sink in sinks:
        own = str(getattr(sink, "name", type(sink).__name__.lower()))
        count = sum(name == own or name.startswith(f"{own} ") for name in names)
        names.append(f"{own} {count + 1}" if count else own)
    return names
