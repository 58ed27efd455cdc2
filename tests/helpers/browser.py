"""A headless Chromium, spoken to by the DevTools protocol over one WebSocket."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import aiohttp

_Result = TypeVar("_Result")

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
STARTS = 40.0
"""Seconds that a browser may take to start on a busy machine."""


def find_browser() -> str | None:
    """The browser's program, None where there is none."""
    return next((found for found in map(shutil.which, NAMES) if found is not None), None)


class Browser:
    """One browser with one page. Everything the page prints or fails with is kept in ``said``.

    Args:
        program: from ``find_browser``.
        folder: for the browser's own files.
    """

    def __init__(self, program: str, folder: Path) -> None:
        flags = ["--headless=new", "--disable-gpu", "--no-first-run", "--remote-debugging-port=0", "--mute-audio"]
        flags += ["--disable-extensions", "--disable-background-networking", "--disable-component-update"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")
        command = [program, *flags, f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._loop = asyncio.new_event_loop()
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.said: list[str] = []
        self.do(self._attach(folder / "DevToolsActivePort"))

    def do(self, work: Awaitable[_Result], timeout: float = STARTS) -> _Result:
        """Run a coroutine on the browser's loop."""
        return self._loop.run_until_complete(asyncio.wait_for(work, timeout))

    async def _attach(self, told: Path) -> None:
        end = time.monotonic() + STARTS
        while not (told.exists() and len(told.read_text().split()) == 2):
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError("the browser does not start")
            await asyncio.sleep(0.1)
        port, _ = told.read_text().split()
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            pages = [page for page in await answer.json() if page["type"] == "page"]
        self._socket = await self._session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)
        self._reader = asyncio.create_task(self._read())
        for domain in ("Page", "Runtime", "Log"):
            await self._call(f"{domain}.enable")

    async def _read(self) -> None:
        async for message in self._socket:
            said = message.json()
            if "id" in said:
                future = self._answers.pop(said["id"])
                if not future.done():
                    future.set_result(said)
            elif said["method"] == "Log.entryAdded":
                self.said.append(said["params"]["entry"]["text"])
            elif said["method"] == "Runtime.exceptionThrown":
                details = said["params"]["exceptionDetails"]
                self.said.append(details.get("exception", {}).get("description") or details["text"])

    async def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        future = self._answers[self._number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        answer = await future
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol."""
        return self.do(self._call(method, **parameters))

    def open(self, address: str) -> None:
        """Go to an address; ``wait`` for what shows that it is there."""
        self.call("Page.navigate", url=address)

    def ask(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 30.0) -> Any:
        """Wait until an expression is true, and give its value."""
        end = time.monotonic() + seconds
        while True:
            try:
                value = self.ask(script)
            except RuntimeError:  # the page is being replaced
                value = None
            if value:
                return value
            if time.monotonic() > end:
                shown = self.ask("document.body ? document.body.innerText.slice(0, 600) : ''")
                raise AssertionError(f"never true: {script}\nthe page says: {shown}\nthe console: {self.said}")
            self.do(asyncio.sleep(0.1))

    def screen(self, width: int, height: int, *, dark: bool) -> None:
        """The size of the window, and whether the user likes it dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path) -> None:
        """The page as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """End the browser."""

        async def leave() -> None:
            self._reader.cancel()
            await self._session.close()

        try:
            self.do(leave())
        finally:
            self._process.terminate()
            self._process.wait(timeout=20)
            self._loop.close()

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
