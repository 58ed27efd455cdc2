"""What live sources do on an OpenCV with GStreamer, and with a real RTSP server: run by whichever Python has them.

    python live_checks.py csi | raw | broken
    python live_checks.py rtsp BACKEND PORT PYTHON

Prints one line of JSON. Needs numpy and OpenCV alone; PYTHON, for the server, needs GStreamer's bindings.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgeco.errors import SourceError
from edgeco.runtime.sources import open_source
from edgeco.runtime.sources.base import Source
from edgeco.runtime.sources.status import State

SERVER = Path(__file__).parent / "rtsp_server.py"


def told(source: Source, **more: Any) -> dict[str, Any]:
    status = source.status()
    return {
        "state": status.state.value,
        "detail": status.detail,
        "uri": status.uri,
        "backend": status.backend,
        "fps": status.fps,
        "frames": status.frames,
        "counted": status.frames + status.dropped == status.captured,
        "reconnects": status.reconnects,
        "size": status.size,
        "states": [event.state.value for event in source.events()],
        "details": [event.detail for event in source.events()],
        "threads": [thread.name for thread in threading.enumerate() if thread.name.startswith("edgeco")],
        **more,
    }


def csi() -> dict[str, Any]:
    """The pipeline of csi://, with a test picture for the camera and the processor for its scaler."""
    uri = "csi://0?width=320&height=180&fps=30&capture=640x360"
    elements = {"camera": "videotestsrc is-live=true pattern=smpte", "scaler": "videoscale ! videoconvert"}
    # The first pipeline loads plugins, which keep what they open.
    with open_source(uri, **elements) as source:
        next(source)
    before = len(os.listdir("/proc/self/fd"))
    with open_source(uri, **elements) as source:
        frames = [next(source) for _ in range(20)]
        shown = frames[-1].image
        rising = all(first.stamp < second.stamp for first, second in pairwise(frames))
    left = len(os.listdir("/proc/self/fd")) - before
    # SMPTE's first two bars are grey and yellow: blue, green and red are where they belong.
    bars = [shown[60, 20].tolist(), shown[60, 70].tolist()]
    return told(source, shape=list(shown.shape), bars=bars, rising=rising, left_open=left)


def raw() -> dict[str, Any]:
    pipeline = (
        "videotestsrc is-live=true num-buffers=12 ! video/x-raw,width=64,height=48,framerate=30/1 ! videoconvert ! "
        "video/x-raw,format=GRAY8 ! appsink drop=true max-buffers=1 sync=false"
    )
    with open_source(pipeline) as source:
        shapes = {frame.image.shape for frame in source}
        return told(source, shapes=[list(shape) for shape in shapes])


def broken() -> dict[str, Any]:
    with open_source("rtspsrc location=rtsp://me:hunter2@127.0.0.1:9/x ! nonsense ! appsink") as source:
        try:
            next(source)
        except SourceError as error:
            return told(source, error=str(error))
    raise SystemExit("it cannot have been opened")


def rtsp(backend: str, port: str, python: str) -> dict[str, Any]:
    """A camera that is switched off while it is read, stays away for a while and comes back."""
    options = {"backend": backend, "read_timeout": 3.0, "first_pause": 0.1, "longest_pause": 0.5}
    server = start(python, port)
    try:
        with open_source(f"rtsp://me:hunter2@127.0.0.1:{port}/live#open_timeout=8", **options) as source:
            shape = next(source).image.shape
            for _ in range(10):
                next(source)
            server.kill()
            server.communicate()
            lost = until(source, State.RECONNECTING)
            time.sleep(0.5)
            server = start(python, port)
            back = until(source, State.RUNNING)
            for _ in range(10):
                next(source)
        return told(source, shape=list(shape), lost_after=lost, back_after=back)
    finally:
        server.kill()
        server.communicate()


def start(python: str, port: str) -> subprocess.Popen[bytes]:
    command = [python, str(SERVER), port, "me", "hunter2"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdout is not None
    if server.stdout.readline() != b"listening\n":
        raise SystemExit("no RTSP server")
    return server


def until(source: Source, state: State, seconds: float = 40.0) -> float:
    begun = time.monotonic()
    while source.state is not state:
        source.wait(0.05)
        if time.monotonic() - begun > seconds:
            raise SystemExit(f"still {source.status()}")
    return time.monotonic() - begun


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
