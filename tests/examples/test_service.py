"""The service of systemd, told from a socket such as systemd's."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import EXAMPLES, MOTION, NETWORK, environment, start

ENDLESS = MOTION.replace("zoom-in:20", "zoom-in:1000000")
SERVICE = "04_systemd/service.py"

AWAY = """
import runpy, sys
import numpy as np
import edgeco
from edgeco.runtime.sources.scripted import Pause, scripted

sys.argv = sys.argv[1:]
frame = np.zeros((48, 64, 3), np.uint8)
edgeco.open_source = lambda uri: scripted([*[frame] * int(uri), Pause(600)])
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs an example with a camera that gives as many frames as its name says, then nothing for ten minutes."""


@pytest.fixture(params=["file", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A datagram socket as systemd makes one, and its NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "file" else f"@edgeco-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind("\0" + name[1:] if name.startswith("@") else name)
        made.settimeout(60)
        yield made, name


def test_it_is_ready_after_a_frame_and_feeds_the_watchdog(listener: tuple[socket.socket, str]) -> None:
    heard, name = listener
    process = start(SERVICE, str(NETWORK), ENDLESS, NOTIFY_SOCKET=name, WATCHDOG_USEC="200000")
    try:
        assert heard.recv(1000) == b"READY=1"
        messages = [heard.recv(1000).decode() for _ in range(5)]
        for message in messages:
            status, fed = message.split("\n")
            assert status.startswith("STATUS=") and status.endswith(("warm", "warming up"))
            assert fed == "WATCHDOG=1"
        counts = [int(message.split("=")[1].split()[0]) for message in messages]
        assert counts == sorted(set(counts)), "each feeding stands for frames that came through"
        process.send_signal(signal.SIGTERM)
        while (message := heard.recv(1000).decode()) != "STOPPING=1":
            assert message.startswith("STATUS=")
        process.communicate(timeout=60)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_a_source_that_ends_is_a_failure_and_a_hanging_one_starves_the_watchdog(tmp_path: Path) -> None:
    pipe = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(pipe))
        heard.settimeout(60)
        more = {"NOTIFY_SOCKET": str(pipe), "WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"}
        process = start(SERVICE, str(NETWORK), MOTION, **more)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (1, "the source ended\n")
        heard.settimeout(0.1)
        messages = []
        while not messages or messages[-1] != "STOPPING=1":
            messages.append(heard.recv(1000).decode())
        assert messages[0] == "READY=1"
        assert not any("WATCHDOG" in message for message in messages), "the watchdog is another process's"


@pytest.mark.parametrize("frames", [0, 1])
def test_sigterm_is_heard_while_the_camera_is_away_and_the_watchdog_starves(tmp_path: Path, frames: int) -> None:
    pipe = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(pipe))
        heard.settimeout(60)
        command = [sys.executable, "-c", AWAY, str(EXAMPLES / SERVICE), str(NETWORK), str(frames)]
        told = environment(NOTIFY_SOCKET=str(pipe), WATCHDOG_USEC="100000")
        process = subprocess.Popen(command, env=told, stderr=subprocess.PIPE, text=True)
        try:
            messages = [heard.recv(1000).decode()]
            while not messages[-1].startswith("STATUS=no frame"):
                messages.append(heard.recv(1000).decode())
            assert messages[:-1] == ["READY=1", "STATUS=1 frames, warming up\nWATCHDOG=1"][: 2 * frames]
            process.send_signal(signal.SIGTERM)
            while (message := heard.recv(1000).decode()) != "STOPPING=1":
                assert message.startswith("STATUS=no frame") and "WATCHDOG" not in message
            _, errors = process.communicate(timeout=60)
            assert (process.returncode, errors) == (0, "")
        finally:
            process.kill()
            process.communicate()


def test_a_faster_camera_is_stepped_at_the_networks_rate() -> None:
    process = start(SERVICE, str(NETWORK), MOTION.replace("fps=12.5", "fps=25"), NOTIFY_SOCKET="")
    output, _ = process.communicate(timeout=60)
    assert len(output.splitlines()) == 30 - 13, "of 60 frames every other"


def test_without_systemd_it_is_a_program_like_any_other() -> None:
    environment = {"NOTIFY_SOCKET": ""}
    process = start(SERVICE, str(NETWORK), MOTION, **environment)
    output, _ = process.communicate(timeout=60)
    assert output.splitlines()[-1] == "zoom in"
    assert "NOTIFY_SOCKET" not in os.environ
