"""OpenCV's captures as producers: cameras, network streams and GStreamer pipelines.

A capture is opened with its backend by name, because only then does OpenCV heed timeouts; and it is released in the
thread that reads it, because OpenCV crashes if it is released while another thread reads.
"""

from __future__ import annotations

import math
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from edgeco.errors import SourceError
from edgeco.runtime.sources.address import Address
from edgeco.runtime.sources.base import import_cv2
from edgeco.runtime.sources.patience import Patience
from edgeco.runtime.sources.producer import Array, Lost, Opened, Reading

Opener = Callable[..., Any]
"""What makes a capture: ``cv2.VideoCapture``, or something of the same face in tests."""

_OPEN_TIMEOUT, _READ_TIMEOUT = 53, 54
"""OpenCV's numbers of the two timeouts; its older bindings lack the names."""


class CaptureProducer(ABC):
    """One OpenCV capture.

    Args:
        address: what to call it; cleans OpenCV's own words.
        patience: its timeouts.
        opener: makes the capture; ``cv2.VideoCapture`` unless given.
    """

    backend = "opencv"

    def __init__(self, address: Address, patience: Patience, opener: Opener | None = None) -> None:
        self._cv2 = import_cv2("reading a camera or a stream")
        self._address, self._patience = address, patience
        self._opener: Opener = opener or self._cv2.VideoCapture
        self._capture: Any = None
        self._frames = 0

    @abstractmethod
    def _target(self) -> tuple[str, int]:
        """What OpenCV shall open, and its number of the backend."""

    @abstractmethod
    def _unopened(self, seconds: float) -> str:
        """Why it did not open, as far as one can tell, after so many seconds."""

    @abstractmethod
    def _unread(self, seconds: float) -> Exception:
        """What it means that no frame came, after so many seconds."""

    def _configure(self) -> str:
        """Set up the capture just opened; returns one sentence of detail."""
        return ""

    def _taken(self) -> int | None:
        """When the frame just read was captured, if the device says."""
        return None

    def _timeouts(self) -> list[int]:
        """Parameters for opening the capture."""
        return timeouts(self._patience)

    def open(self, stop: threading.Event) -> Opened:
        begun = time.monotonic()
        self._frames = 0
        target, backend = self._target()
        parameters = self._timeouts()
        try:
            arguments = (target, backend, parameters) if parameters else (target, backend)
            self._capture = self._opener(*arguments)
            opened = self._capture.isOpened()
        except self._cv2.error as error:
            raise Lost(f"OpenCV cannot open it ({self._address.clean(error.err)})") from None
        if not opened:
            raise Lost(self._unopened(time.monotonic() - begun))
        detail = self._configure()
        return Opened(self.backend, self._announced_fps(), detail)

    def read(self) -> Reading | None:
        begun = time.monotonic()
        try:
            decoded, image = self._capture.read()
        except self._cv2.error:
            return None
        if not decoded:
            raise self._unread(time.monotonic() - begun)
        self._frames += 1
        picture = three_channels(image)
        return None if picture is None else Reading(picture, self._taken())

    def close(self) -> None:
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()

    def _get(self, name: str) -> float:
        value = float(self._capture.get(getattr(self._cv2, name)))
        return value if math.isfinite(value) else 0.0

    def _announced_fps(self) -> float | None:
        fps = self._get("CAP_PROP_FPS")
        return fps if 0 < fps <= 1000 else None


def timeouts(patience: Patience) -> list[int]:
    return [
        *(_OPEN_TIMEOUT, math.ceil(patience.open_timeout * 1000)),
        *(_READ_TIMEOUT, math.ceil(patience.read_timeout * 1000)),
    ]


def three_channels(image: Any) -> Array | None:
    """A picture with blue, green and red; None if it is none. Backends also give grey ones and a fourth channel."""
    if image is None or image.size == 0 or image.ndim not in (2, 3):
        return None
    grey = image.reshape(*image.shape[:2], -1)
    if grey.shape[2] == 1:
        return grey.repeat(3, axis=2)  # type: ignore[no-any-return]
    if grey.shape[2] == 4:
        return grey[:, :, :3].copy()  # type: ignore[no-any-return]
    return grey  # type: ignore[no-any-return]


def has_backend(cv2: ModuleType, name: str) -> bool:
    """Whether this OpenCV was built with ``FFMPEG`` or ``GStreamer``; its registry lists backends that it lacks."""
    return re.search(rf"^\s*{name}:\s*YES", cv2.getBuildInformation(), re.MULTILINE) is not None


def need_gstreamer(form: str) -> None:
    """Raises SourceError that says where to get an OpenCV with GStreamer, if the one that is loaded has none."""
    cv2 = import_cv2(form)
    if has_backend(cv2, "GStreamer"):
        return
    where = Path(str(getattr(cv2, "__file__", "?"))).parent
    raise SourceError(
        f"{form} needs an OpenCV with GStreamer, and this one has none (version {cv2.__version__} in {where}; wheels "
        "from pip never have it); on a Jetson: pip uninstall opencv-python, so that JetPack's own is found; on Debian "
        "and Ubuntu: apt install python3-opencv, and a virtual environment with --system-site-packages"
    )


def version(cv2: ModuleType) -> tuple[int, int]:
    major, minor = re.findall(r"\d+", cv2.__version__)[:2]
    return int(major), int(minor)
