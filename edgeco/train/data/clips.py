"""From cases to what a clip network takes: windows of equal length, and batches that depend on a step number only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from edgeco.bundle.manifest import Preprocessing
from edgeco.errors import DataError
from edgeco.train.data.case import Array
from edgeco.train.data.data import Data

Augment = Callable[[np.random.Generator, Array], Array]
"""Changes a clip's frames (frames, *frame), all its chance drawn from the generator; must not write to them."""


class Window(NamedTuple):
    """So many frames of one case, from ``start`` on."""

    case: int
    start: int


def windows(data: Data, length: int, every: int | None = None) -> list[Window]:
    """The whole windows of ``length`` frames in every case, ``every`` frames apart; end to end if None.

    Raises:
        DataError: a case is shorter.
    """
    found = []
    for place, case in enumerate(data):
        if case.length < length:
            raise DataError(f"{case.name}: {case.length} frames are fewer than the {length} of a clip.")
        found += [Window(place, start) for start in range(0, case.length - length + 1, every or length)]
    return found


def clip_of(frames: Array, preprocessing: Preprocessing | None = None, time_dim: int = 2) -> Array:
    """What a clip network takes for some frames, without the batch, in float32.

    Args:
        frames: (frames, height, width, channels) in uint8 as ``Data.prepared`` gives pictures, or (frames, *frame).
        preprocessing: of pictures: scaled to 0 … 1, less its mean, over its deviation, as (channels, frames, height,
            width). None for arrays, which are taken as they are.
        time_dim: axis of the batched clip that counts frames.

    Example:
        >>> clip_of(np.zeros((16, 2))).shape
        (2, 16)
    """
    if preprocessing is None:
        return np.ascontiguousarray(np.moveaxis(np.asarray(frames, np.float32), 0, time_dim - 1))
    scaled = np.asarray(frames, np.float32) / 255
    scaled = (scaled - np.array(preprocessing.mean, np.float32)) / np.array(preprocessing.std, np.float32)
    return np.ascontiguousarray(scaled.transpose(3, 0, 1, 2))


@dataclass(frozen=True)
class Batches:
    """Batches drawn from held data: called with a step's number, gives clips and classes; nothing else is remembered.

    Args:
        data: labelled cases with their frames in memory (`Data.held`).
        length: frames of a clip. A case that is shorter is led by copies of its first frame, as a stream is that starts
            with ``start="replicate"``.
        size: clips of a batch.
        seed: of all chance.
        balanced: draw the class first, so that rare ones come as often; otherwise cases alike.
        early: share of the clips that begin before their case, led by copies of its first frame: what a stream sees
            that has just begun.
        augment: changes the frames of each clip.
        preprocessing, time_dim: as of `clip_of`.

    Raises:
        DataError: a case has no label, or frames differ in shape.

    Example:
        >>> from edgeco.train.data.case import Case, Held
        >>> case = Case("a", 0, "a", None, Held(np.zeros((20, 2), np.float32)))
        >>> clips, labels = Batches(Data((case,), ("still",)), length=16, size=4)(0)
        >>> clips.shape, labels.tolist()
        ((4, 2, 16), [0, 0, 0, 0])
    """

    data: Data
    length: int
    size: int = 32
    seed: int = 0
    balanced: bool = True
    early: float = 0.0
    augment: Augment | None = None
    preprocessing: Preprocessing | None = None
    time_dim: int = 2
    _arrays: Sequence[Array] = field(init=False, repr=False)
    _places: Sequence[Sequence[int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        bare = next((case for case in self.data if case.label is None), None)
        if bare is not None:
            raise DataError(f"{bare.name}: it has no label to learn from.")
        self.data.frame_shape()
        object.__setattr__(self, "_arrays", [case.array() for case in self.data])
        classes: dict[int, list[int]] = {}
        for place, case in enumerate(self.data):
            classes.setdefault(int(case.label or 0) if self.balanced else 0, []).append(place)
        object.__setattr__(self, "_places", list(classes.values()))

    def __call__(self, step: int) -> tuple[Array, Array]:
        """Clips (size, …) in float32 and their classes (size,) of a step, counted from 0."""
        rng = np.random.default_rng((self.seed, step))
        clips, labels = [], []
        for _ in range(self.size):
            places = self._places[int(rng.integers(len(self._places)))]
            place = places[int(rng.integers(len(places)))]
            frames = self._window(rng, self._arrays[place])
            frames = self.augment(rng, frames) if self.augment else frames
            clips.append(clip_of(frames, self.preprocessing, self.time_dim))
            labels.append(self.data[place].label)
        return np.stack(clips), np.array(labels)

    def _window(self, rng: np.random.Generator, frames: Array) -> Array:
        """A clip's frames, from anywhere in a case, or from before it."""
        if rng.random() < self.early:
            start = -int(rng.integers(1, self.length))
        else:
            start = int(rng.integers(len(frames) - self.length + 1)) if len(frames) > self.length else 0
            start = min(start, len(frames) - self.length)
        return frames[np.clip(np.arange(start, start + self.length), 0, len(frames) - 1)]
