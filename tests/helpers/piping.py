"""What the tests of the pipeline share: frames, sinks that keep or fail, and proof that nothing was left behind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from picturenet import HEIGHT, WIDTH

from edgeco.runtime.frame import Frame
from edgeco.runtime.sinks import Delivery, Keeps


def picture(value: int) -> np.ndarray:
    """A picture whose three colours tell a number below 256^3 apart."""
    image = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    image[:] = [value % 256, value // 256 % 256, value // 65536]
    return image


def recording(stamps: Any) -> Iterator[Frame]:
    """One frame for each stamp."""
    for index, stamp in enumerate(stamps):
        yield Frame(picture(index), float(stamp), "file", index)


class Kept:
    """A sink that keeps everything; may fail at some deliveries, or wait before each."""

    name = "kept"

    def __init__(
        self,
        keeps: Keeps = Keeps.ALL,
        *,
        fail: Callable[[int], bool] = lambda number: False,
        wait: Callable[[], object] = lambda: None,
    ) -> None:
        self.keeps, self._fail, self._wait = keeps, fail, wait
        self.deliveries: list[Delivery] = []
        self.calls = self.closed = 0
        self.threads: set[int] = set()

    @property
    def records(self) -> list[dict[str, Any]]:
        return [dict(delivery.record) for delivery in self.deliveries]

    def take(self, delivery: Delivery) -> None:
        self.threads.add(threading.get_ident())
        self.calls += 1
        self._wait()
        if self._fail(self.calls - 1):
            raise ZeroDivisionError("a fault of the sink")
        self.deliveries.append(delivery)

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.closed += 1


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition, and fail if it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


@contextmanager
def nothing_left() -> Iterator[None]:
    """Checks that no thread and no descriptor is left behind."""
    before = _held()
    yield
    until(lambda: _held() <= before)


def _held() -> set[str]:
    held = {f"thread {thread.name} {thread.ident}" for thread in threading.enumerate()}
    if os.path.isdir("/proc/self/fd"):
        for descriptor in os.listdir("/proc/self/fd"):
            try:
                held.add(f"{descriptor} {os.readlink(f'/proc/self/fd/{descriptor}')}")
            except OSError:
                continue
    return held
