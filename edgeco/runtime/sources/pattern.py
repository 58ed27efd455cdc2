"""Synthetic pictures that need no camera, no recording and no OpenCV, the same at every reading.

``pattern://motion?size=640x480&fps=30&script=still:30,pan-left:30&seed=0``
    A textured scene seen by a camera whose motion is known and given as each frame's label.
``pattern://bars?size=640x480&fps=30&frames=100``
    Vertical colour bars that move one hundredth of the width per frame.

With ``live=1`` a pattern comes like a camera's pictures, at its rate whether or not they are taken; with ``loop=1`` it
then begins again at its end.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from edgeco.errors import SpecError
from edgeco.runtime.frame import Frame
from edgeco.runtime.sources.address import Address
from edgeco.runtime.sources.base import Recording, Source, check_fps
from edgeco.runtime.sources.live import LiveSource, split_patience
from edgeco.runtime.sources.parameters import only, parse_parameters, switch
from edgeco.runtime.sources.producer import Opened, Over, Reading
from edgeco.runtime.sources.scene import Scene

MOTIONS = ("still", "pan left", "pan right", "tilt up", "tilt down", "zoom in", "zoom out", "roll")
"""Camera motions by name. They are the camera's own: in a pan left content moves right, in a tilt up it moves down."""

SPEED = 0.015
"""Root mean square displacement per frame, as a fraction of the frame's width."""

DEFAULT_SCRIPT = ",".join(f"{motion.replace(' ', '-')}:30" for motion in MOTIONS)
_MAX_SIDE = 8192
_MAX_FRAMES = 10**9
_PARAMETERS = {"motion": {"size", "fps", "script", "seed"}, "bars": {"size", "fps", "frames"}}


@dataclass(frozen=True, slots=True)
class Segment:
    """A motion and the number of frames that show it: each differs from the frame before it by that motion."""

    motion: str
    frames: int


class MotionSource(Recording):
    """The scripted camera over a textured scene; ``Frame.label`` is the motion between the last frame and this one.

    Pans and tilts move the content by 1.5 % of the frame's width per frame. Zoom and roll move it by as much in the
    root mean square over the frame. A roll turns either way, as the seed says.
    """

    def __init__(self, uri: str, size: tuple[int, int], fps: float, script: tuple[Segment, ...], seed: int) -> None:
        super().__init__(uri, fps)
        self.script = script
        self._size, self._seed, self._rate = size, seed, fps

    def _read(self) -> Iterator[Frame]:
        width, height = self._size
        scene = Scene(width, height, self._seed)
        spin = np.random.default_rng((self._seed, 1))
        index = 0
        for segment in self.script:
            turn = 1.0 if spin.random() < 0.5 else -1.0
            for _ in range(segment.frames):
                _move(scene, segment.motion, turn, height / width)
                yield Frame(scene.render(), index / self._rate, "rate", index, 0, segment.motion)
                index += 1


def _move(scene: Scene, motion: str, turn: float, aspect: float) -> None:
    spread = math.sqrt((1 + aspect**2) / 12)  # root mean square distance of the frame's points from its centre
    across, down = {"pan left": (-1, 0), "pan right": (1, 0), "tilt up": (0, -1), "tilt down": (0, 1)}.get(
        motion, (0, 0)
    )
    zoom = {"zoom in": 1.0, "zoom out": -1.0}.get(motion, 0.0)
    roll = turn if motion == "roll" else 0.0
    scene.move(SPEED * across, SPEED * down, SPEED / spread * zoom, SPEED / spread * roll)


class PatternProducer:
    """A pattern as a producer that keeps its rate: what comes too late is not made up for.

    Args:
        make: makes the pattern from its beginning.
        loop: whether it begins again at its end.
    """

    def __init__(self, make: Callable[[], Recording], loop: bool) -> None:
        self._make, self._loop = make, loop
        self._pattern = make()  # so that what is wrong with it is said at once
        self.fps = self._pattern.fps
        self._stop = threading.Event()
        self._due = 0.0

    def open(self, stop: threading.Event) -> Opened:
        self._stop, self._due = stop, time.monotonic()
        return Opened("pattern", self.fps)

    def read(self) -> Reading | None:
        frame = next(self._pattern, None)
        if frame is None and self._loop:
            self._pattern = self._make()
            frame = next(self._pattern, None)
        if frame is None:
            raise Over("its pattern is over")
        self._stop.wait(max(0.0, self._due - time.monotonic()))
        self._due = max(time.monotonic(), self._due + 1 / (self.fps or 30.0))
        return Reading(frame.image, label=frame.label)

    def close(self) -> None:
        self._pattern.close()


class BarSource(Recording):
    """Eight vertical colour bars moving to the left."""

    def __init__(self, uri: str, size: tuple[int, int], fps: float, frames: int) -> None:
        super().__init__(uri, fps)
        self.frames = frames
        self._size, self._rate = size, fps

    def _read(self) -> Iterator[Frame]:
        width, height = self._size
        colours = np.array([[255 * (bar >> bit & 1) for bit in range(3)] for bar in range(8)], np.uint8)
        for index in range(self.frames):
            place = (np.arange(width) * 100 + index * width) // (100 * width / 8)
            row = colours[place.astype(np.int64) % 8]
            yield Frame(np.tile(row, (height, 1, 1)), index / self._rate, "rate", index)


def parse_script(text: str) -> tuple[Segment, ...]:
    """Segments of a script such as ``still:30,pan-left:15``. Raises SpecError naming the part that is wrong.

    Example:
        >>> parse_script("zoom-in:5")
        (Segment(motion='zoom in', frames=5),)
    """
    segments = []
    for part in text.split(","):
        name, _, count = part.partition(":")
        motion = name.strip().lower().replace("-", " ").replace("_", " ")
        if motion not in MOTIONS:
            known = ", ".join(motion.replace(" ", "-") for motion in MOTIONS)
            raise SpecError(f"script part {part.strip()!r}: no such motion; known are {known}")
        segments.append(Segment(motion, _whole(count, f"the frames of script part {part.strip()!r}", 1, _MAX_FRAMES)))
    return tuple(segments)


def open_form(address: Address, fps: float | None = None, **options: Any) -> Source:
    """Open a pattern, as a recording or live. Raises SpecError if its name or a parameter is not usable."""
    uri = address.reveal()
    parts = urlsplit(uri)
    name = parts.netloc
    if name not in _PARAMETERS or parts.path.strip("/"):
        raise SpecError(f"{address}: no such pattern; known are pattern://motion and pattern://bars")
    given: dict[str, Any] = {**parse_parameters(parts.query, address), **options}
    live = switch(given.pop("live", False), "live")
    if not live:
        return _recorded(address, name, given, fps)
    loop = switch(given.pop("loop", False), "loop")
    patience, given = split_patience(given)
    producer = PatternProducer(lambda: _recorded(address, name, given, fps), loop)
    return LiveSource(address, producer, fps=producer.fps, patience=patience)


def _recorded(address: Address, name: str, given: dict[str, Any], fps: float | None) -> Recording:
    only(given, _PARAMETERS[name], address)
    size = _parse_size(given.get("size", "640x480"))
    rate = check_fps(fps) or check_fps(_number(given.get("fps", "30"), "fps")) or 30.0
    if name == "bars":
        return BarSource(str(address), size, rate, _whole(given.get("frames", "100"), "frames", 1, _MAX_FRAMES))
    seed = _whole(given.get("seed", "0"), "seed", 0, 2**63 - 1)
    return MotionSource(str(address), size, rate, parse_script(given.get("script", DEFAULT_SCRIPT)), seed)


def _parse_size(text: str) -> tuple[int, int]:
    width, cross, height = text.lower().partition("x")
    if not cross:
        raise SpecError(f"size is {text!r}: give width x height, as in 640x480")
    return _whole(width, "the width", 8, _MAX_SIDE), _whole(height, "the height", 8, _MAX_SIDE)


def _whole(given: object, what: str, least: int, most: int) -> int:
    text = str(given)
    value = int(text) if text.strip().isascii() and text.strip().isdigit() and len(text) <= 20 else None
    if value is None or not least <= value <= most:
        raise SpecError(f"{what}: {text!r} is not a whole number from {least} to {most}")
    return value


def _number(text: Any, what: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        raise SpecError(f"{what}: {text!r} is not a number") from None
