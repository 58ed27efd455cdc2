"""Synthetic pictures that need no camera, no recording and no OpenCV, the same at every reading.

``pattern://motion?size=640x480&fps=30&script=still:30,pan-left:30&seed=0``
    A textured scene seen by a camera whose motion is known and given as each frame's label.
``pattern://bars?size=640x480&fps=30&frames=100``
    Vertical colour bars that move one hundredth of the width per frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from edgeco.errors import SpecError
from edgeco.runtime.frame import Frame
from edgeco.runtime.sources.base import Recording, Source, check_fps
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


def open_form(uri: str, fps: float | None = None) -> Source:
    """Open a pattern. Raises SpecError if its name or a parameter is not usable."""
    parts = urlsplit(uri)
    name = parts.netloc
    if name not in _PARAMETERS or parts.path.strip("/"):
        raise SpecError(f"{uri}: no such pattern; known are pattern://motion and pattern://bars")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    given = dict(pairs)
    if unknown := sorted(set(given) - _PARAMETERS[name]):
        raise SpecError(f"{uri}: no parameter {unknown[0]!r}; pattern://{name} takes {', '.join(_names(name))}")
    if len(given) != len(pairs):
        raise SpecError(f"{uri}: a parameter is given twice; give each once")
    size = _parse_size(given.get("size", "640x480"))
    rate = check_fps(fps) or check_fps(_number(given.get("fps", "30"), "fps")) or 30.0
    if name == "bars":
        return BarSource(uri, size, rate, _whole(given.get("frames", "100"), "frames", 1, _MAX_FRAMES))
    seed = _whole(given.get("seed", "0"), "seed", 0, 2**63 - 1)
    return MotionSource(uri, size, rate, parse_script(given.get("script", DEFAULT_SCRIPT)), seed)


def _names(pattern: str) -> list[str]:
    return sorted(_PARAMETERS[pattern])


def _parse_size(text: str) -> tuple[int, int]:
    width, cross, height = text.lower().partition("x")
    if not cross:
        raise SpecError(f"size is {text!r}: give width x height, as in 640x480")
    return _whole(width, "the width", 8, _MAX_SIDE), _whole(height, "the height", 8, _MAX_SIDE)


def _whole(text: str, what: str, least: int, most: int) -> int:
    value = int(text) if text.strip().isascii() and text.strip().isdigit() and len(text) <= 20 else None
    if value is None or not least <= value <= most:
        raise SpecError(f"{what}: {text!r} is not a whole number from {least} to {most}")
    return value


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SpecError(f"{what}: {text!r} is not a number") from None
