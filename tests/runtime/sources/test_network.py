"""MJPEG from a loopback server: the newest frame, whatever the consumer does, and every way in which a server fails."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import numpy as np
import pytest

from edgeco.errors import SourceError
from edgeco.runtime.sources import open_source
from edgeco.runtime.sources.network import knock
from edgeco.runtime.sources.producer import Lost
from edgeco.runtime.sources.status import State

cv2 = pytest.importorskip("cv2", reason="streams are read with OpenCV")

from mjpeg import HEIGHT, WIDTH, MjpegServer, stamp_of, stamped  # noqa: E402

QUICK = {"first_pause": 0.05, "longest_pause": 0.2}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def test_pictures_carry_their_time_through_jpeg() -> None:
    _, data = cv2.imencode(".jpg", stamped(1234567890123456789, 640, 480))
    assert stamp_of(cv2.imdecode(data, cv2.IMREAD_COLOR)) == 1234567890123456789


@pytest.mark.usefixtures("leakless")
def test_age_does_not_grow_and_drops_are_counted() -> None:
    """A plain loop would be a second behind after a second and a half."""
    ages = []
    with MjpegServer(30) as server, open_source(server.url) as source:
        for _ in range(25):
            frame = next(source)
            time.sleep(0.1)
            ages.append((time.monotonic_ns() - stamp_of(frame.image)) * 1e-9)
        status = source.status()
    early, late = np.median(ages[5:12]), np.median(ages[-7:])
    assert late < early + 0.5
    assert status.drops["newer"] >= 25
    assert set(status.drops) == {"newer"}
    assert status.captured - status.frames - status.dropped in (0, 1)
    assert frame.taken is not None and stamp_of(frame.image) <= frame.taken <= time.monotonic_ns()


@pytest.mark.usefixtures("leakless")
def test_a_server_that_hangs_up_is_connected_to_again() -> None:
    with MjpegServer(30) as server, open_source(server.url, **QUICK) as source:
        next(source)
        server.hang_up()
        until(lambda: source.wait(0.1) is not None and source.status().reconnects == 1)
        assert source.state is State.RUNNING
        assert server.connections >= 2
    details = [event.detail for event in source.events() if event.state is State.RECONNECTING]
    assert details[0].startswith("the stream ended or its connection was lost; trying again in 0.0")


@pytest.mark.usefixtures("leakless")
def test_a_silent_server_is_stalled_and_then_lost() -> None:
    with MjpegServer(30) as server, open_source(server.url, stall=0.2, read_timeout=1.0, **QUICK) as source:
        next(source)
        server.stalled.set()
        until(lambda: source.wait(0.05) is None and source.state is State.STALLED)
        until(lambda: source.state is State.RECONNECTING)
        assert source.status().detail.startswith("no frame for ")
        server.stalled.clear()
        until(lambda: source.wait(0.1) is not None and source.state is State.RUNNING)
    states = [event.state for event in source.events()]
    assert states[:3] == [State.RUNNING, State.STALLED, State.RECONNECTING]
    assert source.state is State.ENDED


@pytest.mark.usefixtures("leakless")
def test_closing_while_a_server_is_silent_takes_no_longer_than_the_timeout() -> None:
    with MjpegServer(30) as server:
        source = open_source(server.url, read_timeout=1.0)
        next(source)
        server.stalled.set()
        begun = time.monotonic()
        source.close()
        assert time.monotonic() - begun < 15
        assert source.state is State.ENDED


def test_a_server_that_is_not_there_is_said_to_be() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with open_source(f"http://me:hunter2@127.0.0.1:{port}/x.mjpg") as source, pytest.raises(SourceError) as caught:
        next(source)
    expected = f"http://***@127.0.0.1:{port}/x.mjpg: its server cannot be reached (connection refused)"
    assert str(caught.value) == expected
    with pytest.raises(Lost, match="there is no host of this name"):
        knock("rtsp://no-such-host.invalid/live", 5)
    knock("rtsp://host:port/live", 5)  # what cannot be read is left to FFmpeg


def test_a_server_of_something_else_is_said_to_be() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"rtsp://127.0.0.1:{listener.getsockname()[1]}/live"
        with open_source(url, open_timeout=1.0) as source, pytest.raises(SourceError, match="no answer within 1 s"):
            next(source)


def test_the_pictures_are_the_servers() -> None:
    with MjpegServer(30, (640, 480)) as server, open_source(server.url) as source:
        assert next(source).image.shape == (480, 640, 3)
        assert source.status().size == (640, 480)
    assert (WIDTH, HEIGHT) == (256, 64)
