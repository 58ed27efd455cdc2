"""The server, asked by a plain client: what it gives, what it refuses, and what a run pays for it."""

from __future__ import annotations

import asyncio
import http.client
import logging
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import numpy as np
import pytest
from told_run import ToldRun, delivery

from edgeco.errors import SpecError
from edgeco.runtime.preview import Preview, server
from edgeco.runtime.preview.hub import PICTURE_PERIOD
from edgeco.runtime.sources.status import State as SourceState

Show = Callable[..., Preview]
HANDSHAKE = (
    b"GET /live HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TOKEN = "a-token-of-some-length"


def ask(preview: Preview, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and body; ``Host`` and others as given, underscores for dashes."""
    connection = http.client.HTTPConnection("127.0.0.1", preview.port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read().decode(errors="replace")
    finally:
        connection.close()


def live(preview: Preview, talk: Callable[[aiohttp.ClientWebSocketResponse], Awaitable[Any]], **headers: str) -> Any:
    """Talk over a page's WebSocket."""

    async def go() -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"http://127.0.0.1:{preview.port}/live", headers=headers) as connection,
        ):
            return await asyncio.wait_for(talk(connection), 20)

    return asyncio.run(go())


async def hear(connection: aiohttp.ClientWebSocketResponse, kind: str) -> Any:
    """The next message of a kind: ``status``, ``points`` or ``picture``."""
    while True:
        message = await connection.receive()
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
        if message.type is aiohttp.WSMsgType.BINARY:
            if kind == "picture":
                return message.data
        elif (said := message.json())["type"] == kind:
            return said


class TestPages:
    def test_all_of_the_page_is_here_and_nothing_of_it_elsewhere(self, show: Show) -> None:
        preview = show()
        for path, kind in (
            ("/", "text/html"),
            ("/page.css", "text/css"),
            ("/page.js", "text/javascript"),
            ("/chart.js", "text/javascript"),
            ("/icon.svg", "image/svg+xml"),
        ):
            status, headers, body = ask(preview, path)
            assert status == 200 and headers["content-type"].startswith(kind)
            assert "http://" not in body.replace("http://www.w3.org/2000/svg", "") and "https://" not in body
            assert "style=" not in body.replace("this.style", "") or path.endswith(".js")
            assert headers["content-security-policy"].startswith("default-src 'none'")
            assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer" and headers["cache-control"] == "no-store"

    def test_there_is_nothing_else(self, show: Show) -> None:
        preview = show()
        for path in ("/x", "/../preview.py", "/page/page.js", "/%2e%2e/preview.py", "/reset"):
            status, headers, _ = ask(preview, path)
            assert status in (404, 405) and "content-security-policy" in headers

    def test_metrics(self, show: Show) -> None:
        status, headers, body = ask(show(), "/metrics")
        assert status == 200 and headers["content-type"] == "text/plain; version=0.0.4"
        assert 'edgeco_state{state="running"} 1' in body


class TestGuards:
    def test_another_name_for_this_machine_is_refused(self, show: Show, told: ToldRun) -> None:
        preview = show()
        for path, method in (("/", "GET"), ("/metrics", "GET"), ("/live", "GET"), ("/reset", "POST")):
            status, headers, body = ask(preview, path, method, Host="evil.example:80", X_Edgeco="reset")
            assert status == 421 and "localhost" in body
            assert headers["content-security-policy"] == "default-src 'none'"
        assert ask(preview, Host="localhost:9999")[0] == 200, "a tunnel has another port"
        assert told.resets == 0

    def test_a_reset_comes_from_the_page_only(self, show: Show, told: ToldRun) -> None:
        preview = show()
        own = f"http://127.0.0.1:{preview.port}"
        assert ask(preview, "/reset", "POST")[0] == 403, "a form sends no header of its own"
        assert ask(preview, "/reset", "POST", X_Edgeco="reset", Origin="http://evil.example")[0] == 403
        assert ask(preview, "/reset", "POST", X_Edgeco="reset", Sec_Fetch_Site="cross-site")[0] == 403
        assert ask(preview, "/reset", "GET", X_Edgeco="reset")[0] == 405
        assert told.resets == 0
        assert ask(preview, "/reset", "POST", X_Edgeco="reset", Origin=own)[0] == 202
        assert ask(preview, "/reset", "POST", X_Edgeco="reset")[0] == 202, "a program of this machine"
        assert told.resets == 2

    def test_a_foreign_page_opens_no_websocket(self, show: Show) -> None:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            live(show(), lambda connection: connection.receive(), Origin="http://evil.example")
        assert refused.value.status == 403

    def test_the_token_is_asked_for_everywhere_and_leaves_the_address(self, show: Show) -> None:
        preview = show(token=TOKEN)
        for path, method in (("/", "GET"), ("/page.js", "GET"), ("/metrics", "GET"), ("/live", "GET"), ("/x", "GET")):
            assert ask(preview, path, method)[0] == 401
        assert ask(preview, "/?token=wrong-token-of-a-length")[0] == 401
        assert ask(preview, "/reset", "POST", X_Edgeco="reset")[0] == 401
        status, headers, _ = ask(preview, f"/?token={TOKEN}")
        assert (status, headers["location"]) == (303, "/")
        cookie = headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
        assert ask(preview, "/", Cookie=cookie.split(";")[0])[0] == 200
        assert ask(preview, "/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200
        assert ask(preview, "/", Host="robot.local:80", Cookie=cookie.split(";")[0])[0] == 200

    def test_off_loopback_there_is_always_a_token(self, show: Show) -> None:
        preview = show(host="0.0.0.0")
        assert preview.needs_token and preview.made_token and ask(preview)[0] == 401
        assert "token=" in preview.link() and "token=" not in preview.address

    def test_the_token_is_in_no_log_and_no_text(
        self, show: Show, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        seen: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
        root = logging.getLogger()
        before = root.level
        root.addHandler(handler)
        root.setLevel(0)
        try:
            preview = show(token=TOKEN)
            ask(preview, f"/?token={TOKEN}")
            ask(preview, f"/nothing?token={TOKEN}")
            with socket.create_connection(("127.0.0.1", preview.port), 5) as raw:
                raw.sendall(f"GET /?token={TOKEN} HTTP/9.x\r\nno header\r\n\r\n".encode())
                assert b"400" in raw.recv(10_000)  # it may tell the sender what was sent
            preview.close()
        finally:
            root.removeHandler(handler)
            root.setLevel(before)
        said = "".join(seen) + "".join(capfd.readouterr()) + repr(preview)
        assert TOKEN not in said


class TestLive:
    def test_a_page_is_sent_facts_points_and_pictures(self, show: Show, told: ToldRun) -> None:
        cv2 = pytest.importorskip("cv2", reason="pictures are encoded by OpenCV")
        preview = show(title="waving")
        preview.take(delivery(7))

        async def talk(connection: aiohttp.ClientWebSocketResponse) -> None:
            status = await hear(connection, "status")
            assert (status["title"], status["state"], status["top"][0]["label"]) == ("waving", "running", "wave")
            points = await hear(connection, "points")
            assert points["labels"]["2"] == 'a "quoted" <b>label</b>' or points["points"] == []
            await connection.send_str("picture")
            data = await hear(connection, "picture")
            assert cv2.imdecode(np.frombuffer(data, np.uint8), 1)[0, 0].tolist() == pytest.approx([7, 7, 7], abs=2)
            told.become(SourceState.RECONNECTING)
            while (await hear(connection, "status"))["state"] != "reconnecting":
                pass

        live(preview, talk)

    def test_nothing_is_encoded_while_nobody_asks(self, show: Show, told: ToldRun) -> None:
        preview = show()
        for number in range(20):
            preview.take(delivery(number))
        time.sleep(3 * PICTURE_PERIOD)
        assert (preview.encoded, preview.viewers, told.asked) == (0, 0, 0)

        async def look_away(connection: aiohttp.ClientWebSocketResponse) -> None:
            await hear(connection, "status")  # open, and asks for no picture, like a hidden page

        live(preview, look_away)
        assert preview.encoded == 0

    def test_one_picture_at_a_time_the_newest_and_each_encoded_once(self, show: Show) -> None:
        pytest.importorskip("cv2", reason="pictures are encoded by OpenCV")
        preview = show()

        async def talk(connection: aiohttp.ClientWebSocketResponse) -> list[int]:
            seen = []
            for number in range(5):
                for burst in range(10):  # nine of ten are never looked at
                    preview.take(delivery(number * 10 + burst))
                await connection.send_str("picture")
                seen.append(len(await hear(connection, "picture")))
            # Asked for, and there is no new one: none comes, though facts do.
            await connection.send_str("picture")
            await hear(connection, "status")
            return seen

        assert len(live(preview, talk)) == 5
        assert preview.encoded == 5

    def test_a_page_that_reads_nothing_holds_nothing_up(self, show: Show) -> None:
        """The run goes on at its own speed, another page is served, and the server can be closed."""
        pytest.importorskip("cv2", reason="pictures are encoded by OpenCV")
        preview = show()
        noise = np.random.default_rng(0).integers(0, 255, (720, 960, 3), np.uint8)
        with socket.create_connection(("127.0.0.1", preview.port), 5) as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.sendall(HANDSHAKE)
            assert b"101" in raw.recv(100)
            ask_picture = b"\x81\x87\0\0\0\0picture"
            raw.sendall(ask_picture * 50)
            longest = 0.0
            for number in range(30):
                start = time.perf_counter()
                preview.take(delivery(number, image=noise))
                longest = max(longest, time.perf_counter() - start)
                time.sleep(0.01)

            async def talk(connection: aiohttp.ClientWebSocketResponse) -> Any:
                await connection.send_str("picture")
                return await hear(connection, "picture")

            assert live(preview, talk)[:2] == b"\xff\xd8"
            assert longest < 1.0, "it took as long as the page"
            preview.close()

    def test_sensor_values_are_told_to_be_none(self, show: Show) -> None:
        preview = show()
        preview.take(delivery(1, image=np.zeros((3, 4), np.float32)))

        async def talk(connection: aiohttp.ClientWebSocketResponse) -> None:
            await connection.send_str("picture")
            while (await hear(connection, "status"))["no_picture"] != "the source gives values, not pictures":
                pass

        live(preview, talk)

    def test_no_more_pages_than_can_be_served(self, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "MOST_VIEWERS", 0)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            live(show(), lambda connection: connection.receive())
        assert refused.value.status == 503

    def test_the_last_word_is_that_the_run_has_ended(self, show: Show) -> None:
        preview = show()

        async def talk(connection: aiohttp.ClientWebSocketResponse) -> str:
            await hear(connection, "status")
            closing = asyncio.get_running_loop().run_in_executor(None, preview.close)
            state = ""
            async for message in connection:
                if message.type is aiohttp.WSMsgType.TEXT and message.json()["type"] == "status":
                    state = message.json()["state"]
            await closing
            return state

        assert live(preview, talk) == "ended"

    def test_a_status_that_fails_ends_nothing(self, show: Show, told: ToldRun, monkeypatch: pytest.MonkeyPatch) -> None:
        preview = show()

        def fail() -> None:
            raise RuntimeError("no status now")

        async def talk(connection: aiohttp.ClientWebSocketResponse) -> None:
            monkeypatch.setattr(told, "status", fail)
            await asyncio.sleep(0.7)
            monkeypatch.undo()
            await hear(connection, "status")

        live(preview, talk)


class TestLife:
    def test_a_port_that_is_taken_is_one_sentence(self, show: Show) -> None:
        with pytest.raises(SpecError, match=r"cannot listen on 127\.0\.0\.1 port \d+ \(.*in use"):
            Preview(show().port)

    def test_a_host_that_is_not_here(self) -> None:
        with pytest.raises(SpecError, match=r"cannot listen on 203\.0\.113\.7"):
            Preview(0, "203.0.113.7", token=TOKEN)

    def test_without_aiohttp_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "web", None)
        with pytest.raises(SpecError, match=r"edgeco\[preview\]"):
            Preview(0)

    def test_closed_it_leaves_no_thread_and_no_port(self, show: Show, told: ToldRun) -> None:
        before = set(threading.enumerate())
        with Preview(0) as preview:
            preview.watch(told)
            preview.take(delivery(1))
            ask(preview, "/metrics")
        preview.close()
        assert set(threading.enumerate()) == before
        with pytest.raises(ConnectionRefusedError):
            ask(preview)
        preview.take(delivery(2))  # a delivery that comes late does no harm
