"""Where an interrupted calibration stood: one file, replaced whole, from which it goes on to the same bits."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from edgeco.calibration.observer import Observer
from edgeco.errors import CalibrationError
from edgeco.files import replace_file

Array = np.ndarray[Any, Any]


@dataclass
class Position:
    """Where a rollout stands.

    Attributes:
        task: what is being done, by a digest of the network, the recordings and the options.
        stream, frame: the frame that comes next.
        frames: taken so far, of all streams.
        digest: of the streams that were read to their end, hex.
        seen: of the frames of the present one, hex.
        steps: of the present stream since its last reset.
    """

    task: str
    stream: int = 0
    frame: int = 0
    frames: int = 0
    digest: str = ""
    seen: str = ""
    steps: int = 0
    done: bool = False
    """Whether all recordings were read: what is left to do goes fast, and gives way to other work."""


class Checkpoint:
    """A file that is written every so many seconds, and when the work is interrupted.

    Args:
        path: the file; beside the result, say.
        seconds: least time between two writes.
    """

    def __init__(self, path: str | os.PathLike[str], seconds: float = 20.0) -> None:
        self.path = Path(path)
        self._seconds = seconds
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last write was long ago."""
        return time.monotonic() - self._last >= self._seconds

    def write(self, position: Position, observers: Sequence[Observer], past: Mapping[str, Array]) -> None:
        """Keep where the work stands; what was kept before stays where that fails. Raises WriteError."""
        self._last = time.monotonic()
        tensors = {
            "numbers": np.array([observer.numbers() for observer in observers]),
            "bins": np.stack([observer.bins for observer in observers]),
        }
        kept = {f"channels.{place}": observer.channels for place, observer in enumerate(observers)}
        tensors |= {name: array for name, array in kept.items() if array is not None}
        tensors |= {f"past.{name}": np.ascontiguousarray(array) for name, array in past.items()}
        where = json.dumps(asdict(position))
        with replace_file(self.path) as handle:
            handle.write(save(tensors, {"position": where, "digest": _digest(where, tensors)}))

    def read(self, task: str) -> tuple[Position, list[Observer], dict[str, Array]] | None:
        """Where the work stood; None where there is nothing to go on from, or only what other work had finished with.

        Raises:
            CalibrationError: the file is of other work, or damaged.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="numpy") as file:
                where, digest = (file.metadata()[name] for name in ("position", "digest"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
            if digest != _digest(where, tensors):
                raise ValueError("its contents were damaged")
            position = Position(**json.loads(where))
            numbers, bins = tensors.pop("numbers"), tensors.pop("bins")
            observers = [
                Observer.resume(n, b, tensors.pop(f"channels.{place}", None))
                for place, (n, b) in enumerate(zip(numbers, bins, strict=True))
            ]
        except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
            raise CalibrationError(
                f"{self.path} is no interrupted calibration ({error}); remove it to begin anew."
            ) from error
        if position.task != task and position.done:
            return None
        if position.task != task:
            raise CalibrationError(
                f"{self.path} is of an interrupted calibration of another network, other recordings or other options; "
                "give those again to go on with it, or remove the file to begin anew."
            )
        return position, observers, {name.removeprefix("past."): array for name, array in tensors.items()}

    def remove(self) -> None:
        """The work is done, and its result written."""
        with suppress(OSError):
            self.path.unlink()


def _digest(where: str, tensors: Mapping[str, Array]) -> str:
    """sha256 (hex) of all that a file holds: it must not go on from numbers that a disk has changed."""
    digest = hashlib.sha256(where.encode())
    for name, array in sorted(tensors.items()):
        digest.update(f"\0{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
