"""The preview as a sink of a pipeline."""

from __future__ import annotations

import os
import socket
import threading
import time
from types import TracebackType
from typing import Any

from edgeco.devices.telemetry import Reading, Telemetry
from edgeco.errors import SpecError
from edgeco.runtime.preview.facts import Watched, status_facts
from edgeco.runtime.preview.guard import TOKEN_VARIABLE, Guard, choose_token, is_loopback
from edgeco.runtime.preview.metrics import exposition
from edgeco.runtime.preview.server import Server
from edgeco.runtime.sinks import Delivery, Keeps

READING_PERIOD = 2.0
"""Seconds between readings of the device's sensors, taken only while somebody watches or asks for metrics."""


class Preview:
    """A page that shows a run: its picture, its answers over time, latencies, drops and state, and a button to reset.

    It listens from construction on, and shows a pipeline once ``watch`` has given it one. ``take`` costs the pipeline
    microseconds: a frame replaces the one before, and is encoded, in another thread, only while a page is open, has
    drawn the last picture and asks for the next.

    Args:
        port: 0 takes any that is free; ``port`` of the preview says which.
        host: the address to listen on. Any but this machine's own asks for a token.
        token: asked for on every address; None for EDGECO_PREVIEW_TOKEN, or a new one off loopback.
        title: what the page is called.
        telemetry: sensors to show; None shows none.

    Raises:
        SpecError: aiohttp is missing, the address is taken, or the token is too short.

    Example::

        with Preview(8080) as preview:
            pipeline = Pipeline(model, source, [preview])
            preview.watch(pipeline)
            print(preview.address)
            pipeline.run()
    """

    name = "preview"
    keeps = Keeps.NEWEST

    def __init__(
        self,
        port: int,
        host: str = "127.0.0.1",
        *,
        token: str | None = None,
        title: str = "edgeco",
        telemetry: Telemetry | None = None,
    ) -> None:
        if not 0 <= port <= 65535:
            raise SpecError(f"a port is a number from 0 to 65535, not {port}")
        self._host, self._title, self._telemetry = host, title, telemetry
        self._token = choose_token(host, token)
        self.made_token = token is None and self.makes_token(host)
        """Whether the token is new: nobody knows it yet."""
        self._watched: Watched | None = None
        self._reading: Reading | None = None
        self._read_at = 0.0
        self._closing = False
        self._lock = threading.Lock()
        guard = Guard(self._token, is_loopback(host))
        self._server = Server(host, port, guard, self._facts, self._metrics, self._reset)
        assert self._server.hub is not None
        self._hub = self._server.hub

    @staticmethod
    def makes_token(host: str) -> bool:
        """Whether a preview on this address needs a token and none is given by the environment."""
        return not is_loopback(host) and not os.environ.get(TOKEN_VARIABLE)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._server.port

    @property
    def needs_token(self) -> bool:
        """Whether a page must show a token."""
        return self._token is not None

    @property
    def address(self) -> str:
        """Where a browser finds it; without the token, so that it may be logged."""
        host = socket.gethostname() if self._host in ("0.0.0.0", "::", "") else self._host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    def link(self) -> str:
        """The address with the token in it, where there is one: show it once on a terminal, and write it nowhere."""
        return self.address + (f"?token={self._token}" if self._token is not None else "")

    def watch(self, pipeline: Watched) -> None:
        """Show this pipeline from now on."""
        self._watched = pipeline

    def take(self, delivery: Delivery) -> None:
        """Show a delivery. Never waits for a page."""
        if delivery.frame.image.size:  # a frame that was dropped for lack of time has no picture any more
            self._hub.newest.put(delivery.frame)
        top = delivery.record.get("top")
        if top:
            self._hub.history.add(time.monotonic(), top)

    @property
    def encoded(self) -> int:
        """Pictures encoded so far; it stands still while nobody watches."""
        return self._hub.encoded

    @property
    def viewers(self) -> int:
        """Pages that are open."""
        return len(self._hub.viewers)

    def close(self) -> None:
        """Show the last state, end all connections and stop listening; safe to call more than once."""
        self._closing = True
        self._server.close()

    def __enter__(self) -> Preview:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _facts(self) -> dict[str, Any]:
        status = self._watched.status() if self._watched is not None else None
        return {"title": self._title, **status_facts(status, self._read(), over=self._closing)}

    def _metrics(self) -> str:
        return exposition(self._watched.status() if self._watched is not None else None, self._read())

    def _read(self) -> Reading | None:
        if self._telemetry is None:
            return None
        with self._lock:
            now = time.monotonic()
            if self._reading is None or now - self._read_at >= READING_PERIOD:
                self._reading, self._read_at = self._telemetry.sample(), now
            return self._reading

    def _reset(self) -> None:
        if self._watched is not None:
            self._watched.request_reset()
