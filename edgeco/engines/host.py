"""Host memory: numpy arrays whose bytes ONNX Runtime reads and writes in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeco.engines.checks import check_span
from edgeco.engines.protocol import Buffer
from edgeco.errors import EngineError

if TYPE_CHECKING:
    from onnxruntime import OrtValue

ALIGNMENT = 64
"""Bytes: one cache line and one AVX-512 register. Equal alignment also makes equal histories give equal bits, because
vectorised sums peel off unaligned heads."""


class HostBuffer:
    """A C-contiguous array in host memory that never moves; views of one array are buffers of their own."""

    __slots__ = ("_value", "address", "array", "dtype", "shape")

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        if not array.flags.c_contiguous:
            raise EngineError(f"a buffer of shape {array.shape} must be one contiguous block of memory")
        self.array = array
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype
        self.address: int = array.ctypes.data
        self._value: OrtValue | None = None

    @property
    def value(self) -> OrtValue:
        """The same bytes as ONNX Runtime's own tensor; made once."""
        if self._value is None:
            from onnxruntime import OrtValue

            value = OrtValue.ortvalue_from_numpy(self.array)
            if value.data_ptr() != self.address:
                raise EngineError("this ONNX Runtime does not use host arrays in place; install another")
            self._value = value
        return self._value


class HostStrip:
    """Some rows of every element of a block: one piece per element, so it is copied and filled but never bound."""

    __slots__ = ("address", "array", "dtype", "shape")

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype
        self.address: int = array.ctypes.data


class HostMemory:
    """The Memory protocol over numpy. Buffers of other memories are refused."""

    alignment = 1
    current = nullcontext()

    def allocate(self, shape: Sequence[int], dtype: str, fill: float = 0.0) -> HostBuffer:
        """A new aligned buffer, every element ``fill``. Raises EngineError if there is no room."""
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        try:
            block = np.empty(size + ALIGNMENT, np.uint8)
        except (MemoryError, ValueError, OverflowError) as error:
            raise EngineError(f"there is no memory for a buffer of {size} bytes; step fewer rows at once") from error
        start = -block.ctypes.data % ALIGNMENT
        buffer = HostBuffer(block[start : start + size].view(kind).reshape(tuple(shape)))
        self.fill(buffer, fill)
        return buffer

    def window(self, buffer: Buffer, start: int, length: int) -> HostBuffer | HostStrip:
        array = _array(buffer)
        check_span(start, length, len(array), "elements")
        kind = HostStrip if isinstance(buffer, HostStrip) else HostBuffer
        return kind(array[start : start + length])

    def strip(self, buffer: Buffer, start: int, length: int) -> HostStrip:
        array = _array(buffer)
        check_span(start, length, array.shape[1], "rows")
        return HostStrip(array[:, start : start + length])

    def element(self, buffer: Buffer, index: int) -> HostBuffer:
        return HostBuffer(_array(buffer)[index, ...])  # a view, also of a single number

    def fill(self, buffer: Buffer, value: float) -> None:
        _array(buffer).fill(value)

    def copier(self, destination: Buffer, source: Buffer) -> Callable[[], None]:
        if destination.shape != source.shape or destination.dtype != source.dtype:
            raise EngineError(f"cannot copy {source.dtype}{source.shape} over {destination.dtype}{destination.shape}")
        return partial(_array(destination).__setitem__, (), _array(source))

    def picker(self, destination: Buffer, source: Buffer) -> Callable[[int], None]:
        if destination.shape != source.shape[1:] or destination.dtype != source.dtype:
            raise EngineError(
                f"cannot copy elements of {source.dtype}{source.shape} over {destination.dtype}{destination.shape}"
            )
        into, block = _array(destination), _array(source)

        def pick(index: int) -> None:
            into[()] = block[index]

        return pick

    def write(self, buffer: Buffer, array: np.ndarray[Any, Any]) -> None:
        if buffer.shape != array.shape or buffer.dtype != array.dtype:
            raise EngineError(f"cannot write {array.dtype}{array.shape} to a buffer of {buffer.dtype}{buffer.shape}")
        np.copyto(_array(buffer), array)

    def stage(self, buffer: Buffer) -> None:
        """Host memory needs no preparation."""

    def accept(self, buffer: Buffer, foreign: object) -> None:
        if not hasattr(foreign, "__dlpack__"):
            raise EngineError("the array lies on a GPU, and the network runs on the processor; bring it to the host")
        try:
            array = np.from_dlpack(foreign)
        except (TypeError, RuntimeError, BufferError, ValueError) as error:
            raise EngineError(f"the array cannot be read on the host ({error}); give a numpy array") from error
        self.write(buffer, array)

    def read(self, buffer: Buffer) -> np.ndarray[Any, Any]:
        return _array(buffer).copy()

    def read_all(self, buffers: Sequence[Buffer]) -> list[np.ndarray[Any, Any]]:
        return [_array(buffer).copy() for buffer in buffers]


def _array(buffer: Buffer) -> np.ndarray[Any, Any]:
    if isinstance(buffer, (HostBuffer, HostStrip)):
        return buffer.array
    raise EngineError(f"a {type(buffer).__name__} does not lie in host memory")
