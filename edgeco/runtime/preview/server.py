"""The web server of the preview: aiohttp on a loop and a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from edgeco.errors import SpecError
from edgeco.runtime.preview.guard import HEADERS, RESET_HEADER, Guard, policy
from edgeco.runtime.preview.hub import Hub, Viewer

try:
    from aiohttp import web
except ImportError:  # an extra
    web = None  # type: ignore[assignment]

MOST_VIEWERS = 16
HEARTBEAT = 10.0
"""Seconds: a page that does not answer within it is taken for gone."""
_START = 10.0
_PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/chart.js": ("chart.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


class Server:
    """Serves the page until ``close``. Construction returns when it listens.

    Args:
        host, port: where it listens; port 0 takes any that is free.
        guard: who may see it.
        facts: a snapshot of the run as plain data.
        metrics: the run in Prometheus' text format.
        reset: asks for a reset of the network's state.

    Raises:
        SpecError: aiohttp is missing, or the address cannot be listened on.
    """

    def __init__(
        self,
        host: str,
        port: int,
        guard: Guard,
        facts: Callable[[], dict[str, Any]],
        metrics: Callable[[], str],
        reset: Callable[[], None],
    ) -> None:
        if web is None:
            raise SpecError("the preview needs aiohttp: pip install 'edgeco[preview]'")
        self._guard, self._facts, self._metrics, self._reset = guard, facts, metrics, reset
        self._host, self.port = host, port
        self._pages = {
            path: (files("edgeco.runtime.preview").joinpath("page", name).read_bytes(), kind)
            for path, (name, kind) in _PAGE.items()
        }
        self._ready, self._failure = threading.Event(), ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self.hub: Hub | None = None
        self._thread = threading.Thread(target=self._run, name="edgeco-preview", daemon=True)
        self._thread.start()
        self._ready.wait(_START)
        if self.hub is None:
            raise SpecError(f"the preview cannot listen on {host} port {port} ({self._failure or 'it did not start'})")

    def close(self) -> None:
        """Say goodbye to all pages and stop; safe to call more than once."""
        if self._loop is not None and self._closing is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop ended in between
                self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            self._failure = getattr(error, "strerror", None) or str(error)
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        hub = Hub(self._facts)
        app = web.Application(middlewares=[self._checked], client_max_size=4096)
        app.router.add_get("/live", self._live)
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_post("/reset", self._post_reset)
        for path in self._pages:
            app.router.add_get(path, self._get_page)
        # No log of requests, also not of those that fail: an address may hold the token.
        quiet = logging.Logger("edgeco.preview")
        quiet.addHandler(logging.NullHandler())
        runner = web.AppRunner(app, access_log=None, logger=quiet, handle_signals=False, shutdown_timeout=2.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self.port).start()
            self.port = runner.addresses[0][1]
            work = asyncio.create_task(hub.work())
            self.hub = hub
            self._ready.set()
            await self._closing.wait()
            work.cancel()
            await hub.refresh(0.0)
            for viewer in hub.viewers:
                viewer.facts_sent = 0.0
                viewer.changed.set()
        finally:
            await runner.cleanup()
            hub.close()

    @property
    def _checked(self) -> Callable[..., Awaitable[web.StreamResponse]]:
        """A middleware: every request is checked, every answer has the headers."""

        @web.middleware
        async def checked(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            refusal = self._refusal(request)
            if refusal is not None:
                return _with_headers(refusal, "")
            try:
                answer = await handler(request)
            except web.HTTPException as error:
                answer = web.Response(status=error.status, text=f"{error.reason}\n")
            return answer if answer.prepared else _with_headers(answer, request.host)

        return checked

    def _refusal(self, request: web.Request) -> web.Response | None:
        """Why a request is not answered; None if it is."""
        guard = self._guard
        if not guard.host_allowed(request.host):
            return web.Response(status=421, text="This server answers to localhost and 127.0.0.1 only.\n")
        if request.path == "/" and guard.is_token(request.query.get("token", "")):
            answer = web.Response(status=303, headers={"Location": "/"})
            answer.set_cookie(guard.cookie_name, guard.cookie, httponly=True, samesite="Strict", path="/")
            return answer
        if not guard.knows(request.headers, request.cookies):
            text = "Open the whole address, with its token, that edgeco printed when it started.\n"
            return web.Response(status=401, text=text, headers={"WWW-Authenticate": "Bearer"})
        if request.path in ("/live", "/reset") and not guard.same_origin(request.headers):
            return web.Response(status=403, text="Only the preview's own page may ask for this.\n")
        return None

    async def _get_page(self, request: web.Request) -> web.StreamResponse:
        body, kind = self._pages[request.path]
        return web.Response(body=body, content_type=kind, charset="utf-8")

    async def _get_metrics(self, request: web.Request) -> web.StreamResponse:
        text = await asyncio.get_running_loop().run_in_executor(None, self._metrics)
        return web.Response(body=text.encode(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _post_reset(self, request: web.Request) -> web.StreamResponse:
        if not request.headers.get(RESET_HEADER):
            return web.Response(status=403, text=f"A reset needs the header {RESET_HEADER}: reset\n")
        self._reset()
        return web.Response(status=202, text="The state is reset before the next step.\n")

    async def _live(self, request: web.Request) -> web.StreamResponse:
        """One open page: it says when it can take a picture, and is sent what is new."""
        hub = self.hub
        if hub is None or len(hub.viewers) >= MOST_VIEWERS:
            return web.Response(status=503, text=f"There are {MOST_VIEWERS} pages open already.\n")
        # Pictures are compressed already, and a deflate window for each page costs memory.
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT, max_msg_size=1024, compress=False)
        await socket.prepare(request)
        viewer = Viewer()
        hub.join(viewer)
        sender = asyncio.create_task(self._send(socket, hub, viewer))
        try:
            async for message in socket:
                if message.data == "picture":
                    viewer.ask()
        finally:
            hub.leave(viewer)
            sender.cancel()
        return socket

    async def _send(self, socket: web.WebSocketResponse, hub: Hub, viewer: Viewer) -> None:
        """Waits for the page: while it does not read, nothing is gathered for it."""
        assert self._closing is not None
        with contextlib.suppress(ConnectionError, RuntimeError):
            while True:
                await viewer.changed.wait()
                viewer.changed.clear()
                ending = self._closing.is_set()
                for message in hub.messages(viewer):
                    await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
                if ending:
                    await socket.close(code=1001, message=b"the run has ended")
                    return


def _with_headers(answer: web.StreamResponse, host: str) -> web.StreamResponse:
    answer.headers.update(HEADERS)
    answer.headers["Content-Security-Policy"] = policy(host) if host else "default-src 'none'"
    return answer
