"""Cameras and streams over a capture of OpenCV's face that plays a script, since there is no camera here."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeco.errors import SourceError, SpecError
from edgeco.runtime.sources import open_source
from edgeco.runtime.sources.address import Address
from edgeco.runtime.sources.camera import CameraProducer, holder_of, trouble_with
from edgeco.runtime.sources.capture import three_channels
from edgeco.runtime.sources.live import LiveSource
from edgeco.runtime.sources.patience import Patience
from edgeco.runtime.sources.pipelines import PipelineProducer
from edgeco.runtime.sources.status import State

cv2 = pytest.importorskip("cv2", reason="cameras are read with OpenCV")
pytestmark = pytest.mark.usefixtures("leakless")

QUICK = Patience(first_pause=0.01, longest_pause=0.02, attempts=1)
Image = np.ndarray


class Capture:
    """What cv2.VideoCapture is to its user; every call must come from the thread that made it."""

    def __init__(self, camera: Camera, arguments: tuple[Any, ...]) -> None:
        self._camera, self.arguments = camera, arguments
        self._thread = threading.get_ident()
        self.released = False
        self.set_to: dict[int, float] = {}

    def _check(self) -> None:
        assert threading.get_ident() == self._thread, "called from another thread"
        assert not self.released, "called after release"

    def isOpened(self) -> bool:  # OpenCV's name
        self._check()
        return not self._camera.refuses

    def read(self) -> tuple[bool, Image | None]:
        self._check()
        return self._camera.next()

    def get(self, name: int) -> float:
        self._check()
        return self._camera.properties.get(name, 0.0)

    def set(self, name: int, value: float) -> bool:
        self._check()
        self.set_to[name] = value
        if name in self._camera.obeys:
            self._camera.properties[name] = value
        return name in self._camera.obeys

    def release(self) -> None:
        assert threading.get_ident() == self._thread, "released from another thread"
        self.released = True


class Camera:
    """Makes captures: each reading is a picture, None for a failed read, an error, or a function that gives one."""

    def __init__(self, readings: list[Any], *, refuses: bool = False, obeys: bool = True) -> None:
        self.readings: Iterator[Any] = iter(readings)
        self.refuses = refuses
        self.captures: list[Capture] = []
        wishes = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS, cv2.CAP_PROP_FOURCC)
        self.obeys = set(wishes) if obeys else set()
        self.properties: dict[int, float] = dict(
            zip(wishes, (640, 480, 30, cv2.VideoWriter_fourcc(*"YUYV")), strict=True)
        )

    def __call__(self, *arguments: Any) -> Capture:
        self.captures.append(Capture(self, arguments))
        return self.captures[-1]

    def next(self) -> tuple[bool, Image | None]:
        reading = next(self.readings, None)
        if isinstance(reading, Exception):
            raise reading
        if callable(reading):
            reading = reading()
        return reading is not None, reading


def picture(width: int = 640, height: int = 480) -> Image:
    return np.zeros((height, width, 3), np.uint8)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A device that exists, stands in for a camera's node and can be unplugged."""
    link = tmp_path / "video0"
    link.symlink_to("/dev/null")
    return link


@pytest.fixture
def nobody(tmp_path: Path) -> Path:
    """A /proc in which no process holds anything."""
    folder = tmp_path / "proc"
    folder.mkdir()
    return folder


def camera_source(node: Path, nobody: Path, camera: Camera, patience: Patience = QUICK, **wishes: Any) -> LiveSource:
    producer = CameraProducer(Address("0"), patience, node, opener=camera, processes=nobody, **wishes)
    return LiveSource(Address("0"), producer, patience=patience)


def held(source: LiveSource) -> Callable[[], None]:
    """A reading that is no picture before the frames so far have been taken."""

    def wait() -> None:
        while source.status().captured > source.status().frames and source.state is not State.ENDED:
            time.sleep(0.002)

    return wait


def test_a_camera_is_opened_by_its_node_and_backend(node: Path, nobody: Path) -> None:
    camera = Camera([picture()])
    with camera_source(node, nobody, camera) as source:
        frame = next(source)
        assert source.status().backend == "v4l2"
    assert frame.image.shape == (480, 640, 3)
    assert camera.captures[0].arguments == (str(node), cv2.CAP_V4L2)
    assert all(capture.released for capture in camera.captures)


def test_small_pictures_are_not_asked_for_in_mjpg(node: Path, nobody: Path) -> None:
    camera = Camera([picture(), time.sleep(0)])
    with camera_source(node, nobody, camera, width=640, height=480, fps=30) as source:
        next(source)
        details = [event.detail for event in source.events()]
    assert cv2.CAP_PROP_FOURCC not in camera.captures[0].set_to
    assert details[0] == "640x480 at 30 fps in YUYV"


def test_large_pictures_are_asked_for_in_mjpg_before_their_size(node: Path, nobody: Path) -> None:
    camera = Camera([picture(1280, 720)])
    with camera_source(node, nobody, camera, width=1280, height=720, fps=30) as source:
        next(source)
        details = [event.detail for event in source.events()]
    wishes = camera.captures[0].set_to
    assert list(wishes) == [
        *(cv2.CAP_PROP_FOURCC, cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS)
    ]
    assert wishes[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter_fourcc(*"MJPG")
    assert details[0] == "1280x720 at 30 fps in MJPG"


def test_a_camera_that_does_as_it_pleases_is_told_of(node: Path, nobody: Path) -> None:
    camera = Camera([picture()], obeys=False)
    with camera_source(node, nobody, camera, width=1920, height=1080, fps=60) as source:
        next(source)
        details = [event.detail for event in source.events()]
    assert details[0] == "asked for 1920x1080 at 60 fps in MJPG, got 640x480 at 30 fps in YUYV"


def test_the_drivers_stamp_is_taken_where_it_is_on_the_monotonic_clock(node: Path, nobody: Path) -> None:
    camera = Camera([picture()])
    then = time.monotonic_ns() - 50_000_000
    camera.properties[cv2.CAP_PROP_POS_MSEC] = then / 1e6
    with camera_source(node, nobody, camera) as source:
        taken = next(source).taken
    assert taken is not None and abs(taken - then) < 1000
    camera = Camera([picture()])
    camera.properties[cv2.CAP_PROP_POS_MSEC] = 1.7e12  # milliseconds of the wall clock
    with camera_source(node, nobody, camera) as source:
        taken = next(source).taken
    assert taken is not None and 0 <= time.monotonic_ns() - taken < 60e9


def test_an_unplugged_camera_comes_back(node: Path, nobody: Path) -> None:
    def unplug() -> None:
        node.unlink()
        threading.Timer(0.1, lambda: node.symlink_to("/dev/null")).start()

    patience = Patience(first_pause=0.02, longest_pause=0.05)
    camera = Camera([picture(), unplug, picture()])
    with camera_source(node, nobody, camera, patience) as source:
        assert source.wait(5) is not None
        assert source.wait(5) is not None
        status = source.status()
        details = [event.detail for event in source.events()]
    assert status.reconnects == 1
    assert details[1].startswith(
        f"{node} is gone (ENODEV): the camera was unplugged or its driver reset it; trying again"
    )
    assert f"there is no camera {node}" in details[2]
    assert all(capture.released for capture in camera.captures)


def test_a_camera_that_stays_away_fails_where_attempts_are_limited(node: Path, nobody: Path) -> None:
    camera = Camera([picture(), node.unlink])
    with camera_source(node, nobody, camera) as source, pytest.raises(SourceError) as caught:
        list(source)
    assert str(caught.value).startswith(f"0: there is no camera {node}; there are ")
    assert str(caught.value).endswith("; given up after 1 attempt")
    assert source.state is State.FAILED


def test_a_camera_in_use_is_said_to_be(node: Path, nobody: Path) -> None:
    process = nobody / "4242"
    (process / "fd").mkdir(parents=True)
    (process / "fd" / "7").symlink_to("/dev/null")
    (process / "comm").write_text("cheese\n")
    (nobody / "4243").mkdir()
    sentence = f"0: {node} is in use by process 4242 (cheese); a camera serves one process at a time"
    with camera_source(node, nobody, Camera([], refuses=True)) as source:
        with pytest.raises(SourceError) as caught:
            next(source)
        assert str(caught.value) == sentence
        assert source.state is State.FAILED
    # UVC drivers let a second process open the node, and refuse it only the first frame.
    with camera_source(node, nobody, Camera([None])) as source, pytest.raises(SourceError) as caught:
        next(source)
    assert str(caught.value) == sentence


def test_two_processes_are_really_seen(tmp_path: Path) -> None:
    node = tmp_path / "video0"
    node.write_text("")
    program = "import sys, time; file = open(sys.argv[1]); print('open', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", program, str(node)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"open\n"
        assert str(holder_of(node, Path("/proc"))).startswith(f"process {child.pid} (")
        child.kill()
    child.wait()
    assert holder_of(node, Path("/proc")) is None


def test_nodes_that_cannot_be_opened(tmp_path: Path) -> None:
    missing, file = tmp_path / "video7", tmp_path / "video8"
    file.write_text("")
    assert str(trouble_with(missing)).startswith(f"there is no camera {missing}; there are ")
    assert trouble_with(file) == f"{file} is no device"
    assert trouble_with(Path("/dev/null")) is None


def test_a_node_that_gives_no_pictures(node: Path, nobody: Path) -> None:
    with (
        camera_source(node, nobody, Camera([], refuses=True)) as source,
        pytest.raises(SourceError, match="of several"),
    ):
        next(source)


def test_a_missing_camera_fails_at_once() -> None:
    if os.path.exists("/dev/video9999"):
        pytest.skip("there is such a camera")
    with (
        open_source("9999") as source,
        pytest.raises(SourceError, match="9999: there is no camera /dev/video9999; there"),
    ):
        next(source)


def test_garbage_of_a_decoder_is_dropped(node: Path, nobody: Path) -> None:
    camera = Camera([picture(), cv2.error("bad huffman code"), np.zeros((0, 0, 3), np.uint8), picture()])
    with camera_source(node, nobody, camera) as source, pytest.raises(SourceError):
        list(source)
    assert source.status().drops["garbage"] == 2


def test_sizes_may_change(node: Path, nobody: Path) -> None:
    camera = Camera([])
    source = camera_source(node, nobody, camera)
    camera.readings = iter([picture(), lambda: (held(source)(), picture(320, 240))[1]])
    with source:
        assert next(source).image.shape == (480, 640, 3)
        assert next(source).image.shape == (240, 320, 3)
        assert "the frames' size changed from 640x480 to 320x240" in [event.detail for event in source.events()]


def test_a_pipelines_end_is_the_end() -> None:
    camera = Camera([picture()])
    address = Address("videotestsrc num-buffers=1 ! appsink", whole=False)
    producer = PipelineProducer(address, Patience(), address.reveal(), ends=True, opener=camera)
    with LiveSource(address, producer) as source:
        assert len(list(source)) == 1
        assert source.state is State.ENDED
        assert source.status().detail == "its pipeline ended; GStreamer does not tell OpenCV whether by an error"
    assert camera.captures[0].arguments[:2] == (address.reveal(), cv2.CAP_GSTREAMER)


def test_streams_have_timeouts_and_the_backend_by_name() -> None:
    camera = Camera([picture()])
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"rtsp://me:hunter2@127.0.0.1:{listener.getsockname()[1]}/live"
    with listener, open_source(f"{url}#read_timeout=1.5&open_timeout=3&attempts=0", opener=camera) as source:
        assert source.wait(5) is not None
        with pytest.raises(SourceError):
            source.wait(5)
    assert camera.captures[0].arguments == (
        url,
        cv2.CAP_FFMPEG,
        [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 3000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 1500],
    )
    assert source.status().detail == "the stream ended or its connection was lost"
    assert source.state is State.FAILED


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("v4l2://0?width=1280", "0.width=1280: give both width and height"),
        ("v4l2://0?width=1280&height=-1", "height is '-1': give a whole number from 16 to"),
        ("v4l2://0?speed=1", "no parameter 'speed'; this form takes fps, height, width"),
        ("v4l2://0?fps=0&fps=1", "a parameter is given twice"),
        ("v4l2://0?fps=fast", "fps is 'fast'"),
        ("v4l2://somewhere", "as its number or its node"),
        ("v4l2://0?stall=0", "stall is 0"),
        ("v4l2://0?patient=perhaps", "patient is 'perhaps'"),
        ("rtsp://camera/live#attempts=1.5", "attempts is '1.5'"),
        ("rtsp://camera/live#backend=vlc", "cannot read network streams by vlc"),
    ],
)
def test_parameters_are_checked(uri: str, message: str) -> None:
    with pytest.raises((SpecError, SourceError), match=message):
        open_source(uri)


def test_pictures_of_other_channels() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for given in (grey, grey[:, :, None]):
        made = three_channels(given)
        assert made is not None and made.shape == (3, 4, 3) and (made == grey[:, :, None]).all()
    four = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    made = three_channels(four)
    assert made is not None and (made == four[:, :, :3]).all() and made.flags.c_contiguous
    for unusable in (None, np.zeros((0, 4, 3), np.uint8), np.zeros(4, np.uint8)):
        assert three_channels(unusable) is None
