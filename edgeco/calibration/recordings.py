"""What a calibration reads: streams of frames as the network takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from edgeco.bundle.manifest import Manifest
from edgeco.errors import CalibrationError

Array = np.ndarray[Any, Any]


class Recording(Protocol):
    """One stream, from its first frame to its last."""

    @property
    def name(self) -> str:
        """How messages and the ranges call it; holds no secrets."""
        ...

    @property
    def live(self) -> bool:
        """Whether it cannot be read a second time."""
        ...

    @property
    def held(self) -> bool:
        """Whether it lies in memory, so that a live one too can be read once more."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes if what it would give has changed."""
        ...

    def frames(self) -> Iterator[Mapping[str, Array]]:
        """Every frame anew: for each input an array of its shape and type, valid until the next is asked for."""
        ...


class ArrayRecording:
    """A stream held in memory.

    Args:
        frames: by input, (frames, *shape).
        name: how messages call it.
    """

    live = False
    held = True

    def __init__(self, frames: Mapping[str, Array], name: str = "array") -> None:
        self.name = name
        self._frames = dict(frames)

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name, array in sorted(self._frames.items()):
            digest.update(f"{name} {array.dtype} {array.shape} ".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def frames(self) -> Iterator[Mapping[str, Array]]:
        for index in range(min(map(len, self._frames.values()))):
            yield {name: array[index] for name, array in self._frames.items()}


def recorded(manifest: Manifest, streams: Sequence[Array], name: str = "array") -> list[ArrayRecording]:
    """Streams of a network of one input from arrays, (frames, *shape) each.

    Raises:
        CalibrationError: a stream has another shape or type than the network's input.
    """
    entry = manifest.inputs[0]
    made = []
    for number, array in enumerate(streams):
        if array.shape[1:] != tuple(entry.shape) or array.dtype != np.dtype(entry.dtype):
            raise CalibrationError(
                f"{name} {number} is {array.dtype}{array.shape}; the network takes frames of "
                f"{entry.dtype}{tuple(entry.shape)}, so a stream is {entry.dtype}(frames, "
                f"{', '.join(map(str, entry.shape))})."
            )
        made.append(ArrayRecording({entry.name: array}, f"{name} {number}"))
    return made
