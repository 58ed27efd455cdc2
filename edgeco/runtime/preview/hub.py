"""What all viewers share: the newest picture, encoded once and only while wanted, and the newest facts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from edgeco.errors import SourceError
from edgeco.runtime.preview.history import History
from edgeco.runtime.preview.pictures import Newest, is_picture, jpeg

FACTS_PERIOD = 0.5
"""Seconds between snapshots of the pipeline, which cost it a millisecond or two."""
POINTS_PERIOD = 0.1
"""Seconds between points of the chart."""
PICTURE_PERIOD = 1 / 20
"""Seconds between pictures: what a page shows needs no more, and the network needs the processor."""


class Viewer:
    """One open page. Nothing is queued for it: it is sent the newest of what it asked for when it can take it."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.wants_picture = False
        self.picture: bytes | None = None
        self.seen = 0
        """Which frame it was given last."""
        self.facts_sent = 0.0
        self.points_sent = 0.0
        self.next_point = 0

    def ask(self) -> None:
        """The page has drawn a picture and can take another."""
        self.wants_picture = True


class Hub:
    """Runs on the server's loop; ``put`` and ``add`` are called from the pipeline's thread.

    Args:
        facts: a snapshot of the run as plain data; called in a thread of its own, only while somebody watches.
    """

    def __init__(self, facts: Callable[[], Mapping[str, Any]]) -> None:
        self.viewers: set[Viewer] = set()
        self.history = History()
        self.newest = Newest()
        self.encoded = 0
        """Pictures encoded so far."""
        self.no_picture: str | None = None
        """Why there is no picture, if there is none though there are frames."""
        self._facts_source = facts
        self._facts: Mapping[str, Any] = {}
        self._facts_at = 0.0
        self._last: tuple[int, bytes] | None = None
        self._watched = asyncio.Event()
        self._workers = ThreadPoolExecutor(2, "edgeco-preview")

    def join(self, viewer: Viewer) -> None:
        """A page was opened."""
        self.viewers.add(viewer)
        self._watched.set()

    def leave(self, viewer: Viewer) -> None:
        """A page was closed; without any nothing is done at all."""
        self.viewers.discard(viewer)
        if not self.viewers:
            self._watched.clear()

    async def work(self) -> None:
        """Serve the viewers until cancelled: pictures at most every ``PICTURE_PERIOD``, the rest by their periods."""
        while True:
            await self._watched.wait()
            start = time.monotonic()
            with contextlib.suppress(Exception):  # a page that shows nothing must not end the run
                await self._picture()
                await self.refresh()
            for viewer in self.viewers:
                viewer.changed.set()
            await asyncio.sleep(max(PICTURE_PERIOD - (time.monotonic() - start), 0.005))

    async def refresh(self, least: float = FACTS_PERIOD) -> Mapping[str, Any]:
        """The facts, taken anew if they are older than ``least`` seconds."""
        now = time.monotonic()
        if now - self._facts_at >= least:
            self._facts_at = now
            self._facts = await asyncio.get_running_loop().run_in_executor(self._workers, self._facts_source)
        return self._facts

    async def _picture(self) -> None:
        count, frame = self.newest.get()
        waiting = [viewer for viewer in self.viewers if viewer.wants_picture and viewer.seen != count]
        if not waiting or frame is None:
            return
        if self._last is None or self._last[0] != count:
            if not is_picture(frame.image):
                self.no_picture = "the source gives values, not pictures"
                return
            loop = asyncio.get_running_loop()
            try:
                self._last = (count, await loop.run_in_executor(self._workers, jpeg, frame.image))
            except SourceError as error:
                self.no_picture = str(error)
                return
            self.no_picture = None
            self.encoded += 1
        for viewer in waiting:
            viewer.wants_picture, viewer.seen, viewer.picture = False, count, self._last[1]

    def messages(self, viewer: Viewer) -> list[str | bytes]:
        """What a viewer is to be sent now."""
        now = time.monotonic()
        found: list[str | bytes] = []
        if self._facts and now - viewer.facts_sent >= FACTS_PERIOD:
            viewer.facts_sent = now
            found.append(_json({"type": "status", "no_picture": self.no_picture, **self._facts}))
        if now - viewer.points_sent >= POINTS_PERIOD:
            viewer.points_sent = now
            viewer.next_point, points, labels = self.history.since(viewer.next_point)
            found.append(_json({"type": "points", "now": now, "points": points, "labels": labels}))
        if viewer.picture is not None:
            found.append(viewer.picture)
            viewer.picture = None
        return found

    def close(self) -> None:
        """End the threads; what they do now is finished first."""
        self._workers.shutdown(wait=True, cancel_futures=True)


def _json(message: Mapping[str, Any]) -> str:
    return msgspec.json.encode(message).decode()
