"""Pipelines and RTSP on an OpenCV that has GStreamer: Debian's own, by its own Python, since wheels have none."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from edgeco.errors import SourceError, SpecError
from edgeco.runtime.sources import open_source
from edgeco.runtime.sources.address import Address
from edgeco.runtime.sources.capture import has_backend
from edgeco.runtime.sources.network import gstreamer_pipeline
from edgeco.runtime.sources.pipelines import csi_pipeline

cv2 = pytest.importorskip("cv2")

ROOT = Path(__file__).parents[3]
CHECKS = ROOT / "tests" / "helpers" / "live_checks.py"
SYSTEM = "/usr/bin/python3"
GSTREAMER = "import cv2, re, sys; sys.exit(not re.search(r'GStreamer: *YES', cv2.getBuildInformation()))"
BINDINGS = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


@cache
def can(python: str, program: str) -> bool:
    if not os.path.exists(python):
        return False
    return subprocess.run([python, "-c", program], capture_output=True, check=False).returncode == 0


def with_gstreamer() -> str:
    """A Python whose OpenCV has GStreamer, or a skip."""
    found = next((python for python in (sys.executable, SYSTEM) if can(python, GSTREAMER)), None)
    return found or pytest.skip("no OpenCV with GStreamer here (apt install python3-opencv)")


def check(python: str, *arguments: str) -> dict[str, Any]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OPENCV_LOG_LEVEL": "SILENT"}
    ran = subprocess.run(
        [python, str(CHECKS), *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    told: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    assert told["threads"] == []
    return told


def test_the_csi_pipeline_with_a_test_source_for_the_camera() -> None:
    told = check(with_gstreamer(), "csi")
    assert (told["state"], told["backend"], told["fps"], told["counted"]) == ("ended", "gstreamer", 30, True)
    assert (told["shape"], told["size"], told["rising"], told["left_open"]) == ([180, 320, 3], [320, 180], True, 0)
    grey, yellow = told["bars"]
    assert max(grey) - min(grey) < 20
    assert yellow[0] < 60 and min(yellow[1:]) > 150


def test_a_pipeline_of_grey_pictures_runs_to_its_end() -> None:
    told = check(with_gstreamer(), "raw")
    assert told["shapes"] == [[48, 64, 3]]
    assert (told["state"], told["counted"]) == ("ended", True)
    assert told["states"] == ["running", "ended"]


def test_a_pipeline_that_does_not_start_says_so_without_its_password() -> None:
    told = check(with_gstreamer(), "broken")
    assert told["state"] == "failed"
    assert told["error"].startswith("rtspsrc location=rtsp://***@127.0.0.1:9/x ! nonsense ! appsink: GStreamer cannot")
    assert "hunter2" not in json.dumps(told)


@pytest.mark.parametrize(
    ("python", "backend"),
    [(sys.executable, "ffmpeg"), (SYSTEM, "ffmpeg"), (SYSTEM, "gstreamer")],
    ids=["own-ffmpeg", "system-ffmpeg", "system-gstreamer"],
)
def test_rtsp_comes_back_after_its_server_was_gone(python: str, backend: str) -> None:
    if not can(SYSTEM, BINDINGS):
        pytest.skip("no RTSP server here (apt install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good)")
    if not can(python, "import cv2" if backend == "ffmpeg" else GSTREAMER):
        pytest.skip(f"no OpenCV with {backend} in {python} (apt install python3-opencv)")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    told = check(python, "rtsp", backend, str(port), SYSTEM)
    assert (told["state"], told["backend"], told["shape"]) == ("ended", backend, [240, 320, 3])
    assert (told["reconnects"], told["frames"] >= 21, told["counted"]) == (1, True, True)
    assert told["uri"] == f"rtsp://***@127.0.0.1:{port}/live#open_timeout=8"
    assert told["states"][0] == "running" and told["states"][-2:] == ["running", "ended"]
    assert "reconnecting" in told["states"]
    assert "hunter2" not in json.dumps(told)


def test_the_csi_pipeline_scales_before_the_processor() -> None:
    assert csi_pipeline(1, 640, 360, 30, 2) == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1920,height=1080,framerate=30/1,format=NV12 ! "
        "nvvidconv flip-method=2 ! video/x-raw,width=640,height=360,format=BGRx ! videoconvert ! "
        "video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
    )
    assert "width=1280,height=720,framerate=60/1,format=NV12" in csi_pipeline(0, fps=60)
    assert "width=3280,height=2464,framerate=21000/1000" not in csi_pipeline(0, fps=21, capture=(3280, 2464))
    assert "width=3280,height=2464,framerate=29970/1000" in csi_pipeline(0, fps=29.97, capture=(3280, 2464))


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("csi://left", "csi://left: give the number of the camera, as in csi://0"),
        ("csi://0?flip=8", "flip is '8': give a whole number from 0 to 7"),
        ("csi://0?capture=big", "the width of capture is 'big'"),
        ("csi://0?gain=2", "no parameter 'gain'; this form takes capture, flip, fps, height, width"),
        ("videotestsrc ! fakesink", "videotestsrc ! fakesink: a pipeline must end in an appsink"),
    ],
)
def test_parameters_are_checked(uri: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        open_source(uri)
    assert message in str(caught.value)


@pytest.mark.skipif(has_backend(cv2, "GStreamer"), reason="this OpenCV has GStreamer")
@pytest.mark.parametrize("uri", ["csi://0", "videotestsrc ! appsink"])
def test_without_gstreamer_the_error_says_where_to_get_it(uri: str) -> None:
    with pytest.raises(SourceError, match=r"needs an OpenCV with GStreamer, and this one has none \(version .* in /"):
        open_source(uri)


def test_a_url_is_quoted_for_gstreamers_parser() -> None:
    pipeline = gstreamer_pipeline('rtsp://me:a"b\\c@camera/live?x=1 ! fakesink')
    assert 'location="rtsp://me:a\\"b\\\\c@camera/live?x=1 ! fakesink" protocols=tcp' in pipeline
    assert 'a"b' not in str(Address(pipeline, whole=False)).replace("***", "")
