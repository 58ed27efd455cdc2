"""From what a caller gives as a frame to the buffers that the network reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeco.bundle.manifest import Manifest
from edgeco.engines.protocol import Buffer, Memory
from edgeco.errors import EngineError, FrameError
from edgeco.runtime.frame import Frame

if TYPE_CHECKING:
    from edgeco.runtime.preprocess import Preprocessor

Array = np.ndarray[Any, Any]
_FOREIGN = ("__dlpack__", "__cuda_array_interface__")
"""How an array of another library says where it lies."""


class Intake:
    """The inputs of one stream, or of one row of several.

    Args:
        memory: where the buffers lie.
        manifest: names the inputs.
        buffers: a buffer for every input.
        rows: rows that a frame must have; a picture is the frame of one.
        preprocessor: makes what pictures are prepared with, asked for at the first one.
    """

    def __init__(
        self,
        memory: Memory,
        manifest: Manifest,
        buffers: Mapping[str, Buffer],
        rows: int,
        preprocessor: Callable[[], Preprocessor],
    ) -> None:
        self._memory = memory
        self._buffers = dict(buffers)
        self._rows = rows
        self._make = preprocessor
        self._preprocess: Preprocessor | None = None
        self._images = frozenset(entry.name for entry in manifest.inputs if entry.kind == "image")

    def write(self, frame: object) -> float | None:
        """Write a ``Frame``, an array, or a mapping of input name to either; returns its stamp, None for an array.

        Raises:
            FrameError: it does not fit; nothing has been written.
        """
        arrays, stamp = self._arrays(frame)
        for name, buffer in self._buffers.items():
            self._take(name, buffer, arrays[name])
        return stamp

    def _take(self, name: str, buffer: Buffer, array: Any) -> None:
        if isinstance(array, np.ndarray):
            self._memory.write(buffer, array)
            return
        try:
            self._memory.accept(buffer, array)
        except EngineError as error:
            raise FrameError(f"input {name!r}: {error}") from error

    def misfit(self, name: str, value: object) -> FrameError:
        """What is wrong with a value for an input."""
        buffer = self._buffers[name]
        given = f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        return FrameError(f"input {name!r} expects {buffer.dtype}{buffer.shape}; given was {given}")

    def _arrays(self, frame: object) -> tuple[dict[str, Any], float | None]:
        """Checked arrays for every input, all of them before anything is written, and the first stamp among them."""
        given = frame if isinstance(frame, Mapping) else {next(iter(self._buffers)): frame}
        if given.keys() != self._buffers.keys():
            named = ", ".join(map(repr, given)) if isinstance(frame, Mapping) else f"one {type(frame).__name__}"
            expected = ", ".join(map(repr, self._buffers))
            raise FrameError(f"the network takes a mapping with the inputs {expected}; given was {named or 'nothing'}")
        arrays: dict[str, Any] = {}
        stamp: float | None = None
        for name, buffer in self._buffers.items():
            value = given[name]
            if isinstance(value, Frame):
                stamp = value.stamp if stamp is None else stamp
                value = self._prepared(name, value)
            if not isinstance(value, np.ndarray):
                told = any(hasattr(value, attribute) for attribute in _FOREIGN)
                if not told or tuple(getattr(value, "shape", ())) != buffer.shape:
                    raise self.misfit(name, value)
            elif value.shape != buffer.shape or value.dtype != buffer.dtype:
                raise self.misfit(name, value)
            arrays[name] = value
        return arrays, stamp

    def _prepared(self, name: str, frame: Frame) -> Array:
        if self._rows != 1:
            raise FrameError(f"a stream of {self._rows} rows takes an array of {self._rows} frames, not one Frame")
        if name not in self._images and frame.image.dtype != np.uint8:
            return frame.image  # a sensor's values
        if name not in self._images:
            raise FrameError(f"input {name!r} takes arrays, not pictures from a source")
        if self._preprocess is None:
            self._preprocess = self._make()
        prepared = self._preprocess(frame.image)
        # The preprocessor has one frame of its own: a second picture of the same step would overwrite the first.
        return prepared if len(self._images) == 1 else prepared.copy()
