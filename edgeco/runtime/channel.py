"""Bounded queues between the threads of a pipeline."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """First in, first out, of bounded length; can be finished by its giver and cancelled by anyone.

    Args:
        room: how many items may wait.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._items: deque[T] = deque()
        self._closed = False
        lock = threading.Lock()
        self._filled = threading.Condition(lock)
        self._emptied = threading.Condition(lock)

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> bool:
        """Append an item, waiting while there is no room; false if nobody will take it any more."""
        with self._emptied:
            while len(self._items) >= self._room and not self._closed:
                self._emptied.wait()
            if self._closed:
                return False
            self._append(item)
            self._filled.notify()
            return True

    def push(self, item: T) -> int:
        """Append an item without waiting; returns how many were lost for it: the oldest, or itself after the end."""
        with self._filled:
            if self._closed:
                return 1
            lost = max(0, len(self._items) - self._room + 1)
            for _ in range(lost):
                self._items.popleft()
            self._append(item)
            self._filled.notify()
            return lost

    def _append(self, item: T) -> None:
        self._items.append(item)

    def get(self) -> T | None:
        """The oldest item, waited for; None when there will be no more."""
        with self._filled:
            while not self._items and not self._closed:
                self._filled.wait()
            if not self._items:
                return None
            item = self._items.popleft()
            self._emptied.notify()
            return item

    def finish(self) -> None:
        """No more items come; those that wait are still taken."""
        with self._filled:
            self._closed = True
            self._filled.notify_all()
            self._emptied.notify_all()

    def cancel(self) -> int:
        """No more items come or are taken; returns how many waited."""
        self.finish()
        with self._filled:
            lost = len(self._items)
            self._items.clear()
            return lost
