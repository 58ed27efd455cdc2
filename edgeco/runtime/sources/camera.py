"""Cameras of the machine through V4L2: a number, ``/dev/video0``, ``v4l2:///dev/video0?width=1280&height=720``."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from pathlib import Path
from typing import Any

from edgeco.errors import SpecError
from edgeco.runtime.sources.address import Address
from edgeco.runtime.sources.base import Source
from edgeco.runtime.sources.capture import CaptureProducer, Opener
from edgeco.runtime.sources.live import LiveSource, split_patience
from edgeco.runtime.sources.parameters import only, parse_parameters, rate, whole
from edgeco.runtime.sources.patience import Patience
from edgeco.runtime.sources.producer import Lost

SMALL = 640 * 480
"""Pixels up to which a camera's USB link carries raw pictures at full rate; above it is asked for MJPG."""
_NEWEST_AGE = 2_000_000_000
"""Nanoseconds: an older stamp of a driver is on another clock."""


class CameraProducer(CaptureProducer):
    """One camera. Width, height and rate are wishes; what the camera made of them is the detail of its state.

    Args:
        device: its node.
        processes: where the system shows its processes.
    """

    backend = "v4l2"

    def __init__(
        self,
        address: Address,
        patience: Patience,
        device: Path,
        width: int | None = None,
        height: int | None = None,
        fps: float | None = None,
        opener: Opener | None = None,
        processes: Path = Path("/proc"),
    ) -> None:
        super().__init__(address, patience, opener)
        self._device, self._width, self._height, self._fps = device, width, height, fps
        self._processes = processes

    def _target(self) -> tuple[str, int]:
        if trouble := trouble_with(self._device):
            raise Lost(trouble)
        return str(self._device), self._cv2.CAP_V4L2

    def _timeouts(self) -> list[int]:
        return []  # V4L2 in OpenCV knows none: it waits 10 s for a frame

    def _configure(self) -> str:
        cv2, capture = self._cv2, self._capture
        wanted = ""
        if self._width is not None and self._height is not None:
            if self._width * self._height > SMALL:
                capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*"MJPG"))
                wanted = " in MJPG"
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._width)
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._height)
        if self._fps is not None:
            capture.set(cv2.CAP_PROP_FPS, self._fps)
        size = (round(self._get("CAP_PROP_FRAME_WIDTH")), round(self._get("CAP_PROP_FRAME_HEIGHT")))
        fps, code = self._announced_fps(), _letters(int(self._get("CAP_PROP_FOURCC")))
        got = _described(size, fps, code)
        asked = (self._width or size[0], self._height or size[1])
        if asked == size and (not wanted or code == "MJPG") and (None in (self._fps, fps) or self._fps == fps):
            return got
        return f"asked for {asked[0]}x{asked[1]}{f' at {self._fps:g} fps' if self._fps else ''}{wanted}, got {got}"

    def _taken(self) -> int | None:
        # The driver stamps a frame when it is captured, nearly always on the monotonic clock.
        stamp = int(self._get("CAP_PROP_POS_MSEC") * 1e6)
        return stamp if 0 <= time.monotonic_ns() - stamp < _NEWEST_AGE else None

    def _unopened(self, seconds: float) -> str:
        return self._use() or (
            f"{self._device} cannot be opened as a camera; of several nodes of a camera one gives pictures: "
            "v4l2-ctl --list-devices shows them"
        )

    def _unread(self, seconds: float) -> Exception:
        if not self._device.exists():
            return Lost(f"{self._device} is gone (ENODEV): the camera was unplugged or its driver reset it")
        silent = f"{self._device} gave no frame for {seconds:.1f} s" if seconds >= 1 else f"{self._device} stopped"
        return Lost(self._use() or silent)

    def _use(self) -> str | None:
        # Asked only after a failure: a desktop's media service may hold a node open without using it.
        holder = holder_of(self._device, self._processes)
        return f"{self._device} is in use by {holder}; a camera serves one process at a time" if holder else None


def _letters(code: int) -> str:
    letters = "".join(chr(code >> shift & 255) for shift in (0, 8, 16, 24))
    return letters.strip() if letters.isprintable() and code > 0 else ""


def _described(size: tuple[int, int], fps: float | None, code: str) -> str:
    return f"{size[0]}x{size[1]}" + (f" at {fps:g} fps" if fps else "") + (f" in {code}" if code else "")


def trouble_with(device: Path) -> str | None:
    """What keeps a camera's node from being opened, in one sentence, or None if nothing is seen."""
    try:
        kind = device.stat().st_mode
    except OSError:
        others = sorted(str(path) for path in Path("/dev").glob("video*"))
        return f"there is no camera {device}; there are {', '.join(others) if others else 'none on this machine'}"
    if not stat.S_ISCHR(kind):
        return f"{device} is no device"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"{device} may not be opened by this user; add the user to the group video and log in again"
    return None


def holder_of(device: Path, processes: Path) -> str | None:
    """The process that has a file open, as far as this user may see."""
    target = os.path.realpath(device)
    for process in sorted(path for path in processes.iterdir() if path.name.isdigit()):
        if int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if any(os.path.realpath(link) == target for link in (process / "fd").iterdir()):
                name = (process / "comm").read_text(errors="replace").strip()
                return f"process {process.name} ({name})"
    return None


def open_form(address: Address, **options: Any) -> Source:
    """Open a camera by number, node or ``v4l2://`` URI. Raises SpecError if a parameter is not usable."""
    place, _, query = address.reveal().partition("?")
    given = {**parse_parameters(query, address), **options}
    opener = given.pop("opener", None)
    patience, given = split_patience(given)
    only(given, ("width", "height", "fps"), address)
    if ("width" in given) != ("height" in given):
        raise SpecError(f"{address}: give both width and height, or neither")
    width, height = (whole(given[name], name, 16, 16384) if name in given else None for name in ("width", "height"))
    fps = rate(given["fps"]) if given.get("fps") is not None else None
    device = _node(place, address)
    producer = CameraProducer(address, patience, device, width, height, fps, opener)
    return LiveSource(address, producer, fps=fps, patience=patience)


def _node(place: str, address: Address) -> Path:
    place = re.sub(r"(?i)^v4l2://", "", place)
    if re.fullmatch(r"[0-9]{1,4}", place):
        return Path(f"/dev/video{int(place)}")
    if not place.startswith("/dev/"):
        raise SpecError(f"{address}: give a camera as its number or its node, as in v4l2:///dev/video0")
    return Path(place)
