"""Device memory of one lane: buffers that keep their address, and copies in the order of the lane's stream."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgeco.engines.checks import check_span
from edgeco.engines.cuda.foreign import describe
from edgeco.engines.cuda.protocol import Bytes, Cuda, Page, page_of
from edgeco.engines.protocol import Buffer
from edgeco.errors import EngineError

ALIGNMENT = 256
"""Bytes: what TensorRT asks of the address of every tensor, and what the driver gives."""


class DeviceBuffer:
    """A contiguous block of device memory; views of one block are buffers of their own."""

    __slots__ = ("address", "dtype", "nbytes", "shape")

    def __init__(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.address, self.shape, self.dtype = address, shape, dtype
        self.nbytes = math.prod(shape) * dtype.itemsize


class DeviceStrip:
    """Some rows of every element of a block: one piece per element, so it is copied and filled but never bound."""

    __slots__ = ("address", "dtype", "pitch", "shape")

    def __init__(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any], pitch: int) -> None:
        self.address, self.shape, self.dtype, self.pitch = address, shape, dtype, pitch


Block = DeviceBuffer | DeviceStrip


def _pieces(block: Block, count: int = 1) -> list[tuple[int, int]]:
    """Address and size of every contiguous piece; a whole block is cut into ``count`` equal ones."""
    size = math.prod(block.shape) * block.dtype.itemsize
    if isinstance(block, DeviceStrip):
        each = size // block.shape[0]
        return [(block.address + index * block.pitch, each) for index in range(block.shape[0])]
    return [(block.address + index * (size // count), size // count) for index in range(count)]


def _element(block: Block, index: int) -> DeviceBuffer:
    inner = math.prod(block.shape[1:]) * block.dtype.itemsize
    pitch = block.pitch if isinstance(block, DeviceStrip) else inner
    return DeviceBuffer(block.address + index * pitch, block.shape[1:], block.dtype)


class Pages:
    """Page-locked copies of a buffer, used in turn; ``used`` counts writes since anything was last waited for."""

    __slots__ = ("next", "pages", "used", "waits")

    def __init__(self, pages: tuple[Page, Page]) -> None:
        self.pages, self.next, self.used, self.waits = pages, 0, 0, 0


class DeviceMemory:
    """The Memory protocol over one CUDA stream. Everything is queued there; only reads, and the third of three writes
    in a row, wait. Confined to one thread at a time, like the session it belongs to.

    Args:
        cuda: the GPU.
        stream: the lane's stream.
        stack: what gives everything back when the lane closes, newest first.
    """

    alignment = ALIGNMENT

    def __init__(self, cuda: Cuda, stream: Any, stack: contextlib.ExitStack) -> None:
        self._cuda, self._stream, self._stack = cuda, stream, stack
        self.current = cuda
        self._pages: dict[tuple[int, tuple[int, ...]], Pages] = {}
        self._waits = 0
        """Times that all work of the stream was waited for: pages written before are free again."""
        self.allocated = 0

    def allocate(self, shape: Sequence[int], dtype: str, fill: float = 0.0) -> DeviceBuffer:
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        with self._cuda:
            address = self._cuda.allocate(size)
        self._stack.callback(self._cuda.free, address)
        if address % ALIGNMENT:
            raise EngineError(f"the driver gave memory at {address:#x}, no multiple of {ALIGNMENT}; report this GPU")
        self.allocated += size
        buffer = DeviceBuffer(address, tuple(shape), kind)
        self.fill(buffer, fill)
        return buffer

    def window(self, buffer: Buffer, start: int, length: int) -> Block:
        whole = _device(buffer)
        check_span(start, length, whole.shape[0], "elements")
        shape = (length, *whole.shape[1:])
        if isinstance(whole, DeviceStrip):
            return DeviceStrip(whole.address + start * whole.pitch, shape, whole.dtype, whole.pitch)
        return DeviceBuffer(whole.address + whole.nbytes // whole.shape[0] * start, shape, whole.dtype)

    def strip(self, buffer: Buffer, start: int, length: int) -> DeviceStrip:
        whole = _device(buffer)
        check_span(start, length, whole.shape[1], "rows")
        row = math.prod(whole.shape[2:]) * whole.dtype.itemsize
        shape = (whole.shape[0], length, *whole.shape[2:])
        return DeviceStrip(whole.address + start * row, shape, whole.dtype, row * whole.shape[1])

    def element(self, buffer: Buffer, index: int) -> DeviceBuffer:
        whole = _device(buffer)
        check_span(index, 1, whole.shape[0], "elements")
        return _element(whole, index)

    def fill(self, buffer: Buffer, value: float) -> None:
        block = _device(buffer)
        with np.errstate(over="ignore"):
            number = np.array(value).astype(block.dtype)
        width, pattern = block.dtype.itemsize, int.from_bytes(number.tobytes(), "little")
        with self._cuda:
            for address, size in _pieces(block):
                self._cuda.fill(address, pattern, width, size // width, self._stream)

    def copier(self, destination: Buffer, source: Buffer) -> Callable[[], None]:
        if destination.shape != source.shape or destination.dtype != source.dtype:
            raise EngineError(f"cannot copy {source.dtype}{source.shape} over {destination.dtype}{destination.shape}")
        ends = _device(destination), _device(source)
        count = max(len(_pieces(end)) for end in ends)
        pairs = list(zip(*(_pieces(end, count) for end in ends), strict=True))
        cuda, stream = self._cuda, self._stream

        def copy() -> None:
            with cuda:
                for (to, size), (start, _) in pairs:
                    cuda.copy(to, start, size, stream)

        return copy

    def picker(self, destination: Buffer, source: Buffer) -> Callable[[int], None]:
        block = _device(source)
        copies = [self.copier(destination, _element(block, index)) for index in range(block.shape[0])]

        def pick(index: int) -> None:
            copies[index]()

        return pick

    def stage(self, buffer: Buffer) -> None:
        block = _device(buffer)
        if isinstance(block, DeviceBuffer) and (block.address, block.shape) not in self._pages:
            self._pages[block.address, block.shape] = Pages((self._page(block), self._page(block)))

    def _page(self, block: DeviceBuffer) -> Page:
        with self._cuda:
            locked: Bytes = self._cuda.pinned(block.nbytes)
            self._stack.callback(self._cuda.unpin, locked)
        return page_of(locked[: block.nbytes].view(block.dtype).reshape(block.shape))

    def _wait(self) -> None:
        self._cuda.synchronize(self._stream)
        self._waits += 1

    def write(self, buffer: Buffer, array: np.ndarray[Any, Any]) -> None:
        if buffer.shape != array.shape or buffer.dtype != array.dtype:
            raise EngineError(f"cannot write {array.dtype}{array.shape} to a buffer of {buffer.dtype}{buffer.shape}")
        cuda, stream = self._cuda, self._stream
        staged = self._pages.get((buffer.address, buffer.shape))
        if staged is None:
            pieces = _pieces(_device(buffer))
            parts = np.ascontiguousarray(array).reshape(len(pieces), -1)
            with cuda:
                for (address, _), part in zip(pieces, parts, strict=True):
                    cuda.upload(address, page_of(part), stream)
                self._wait()
            return
        with cuda:
            if staged.waits != self._waits:  # whoever reads his answers waits there, and so never here
                staged.waits, staged.used = self._waits, 0
            elif staged.used == 2:
                self._wait()
                staged.waits, staged.used = self._waits, 0
            turn = staged.next
            page = staged.pages[turn]
            staged.next, staged.used = 1 - turn, staged.used + 1
            np.copyto(page.array, array)
            cuda.upload(buffer.address, page, stream)

    def accept(self, buffer: Buffer, foreign: object) -> None:
        found = describe(foreign, self._stream.handle)
        if found is None:
            raise EngineError(f"a {type(foreign).__name__} is no array that lies on the GPU; give a numpy array")
        if found.host is not None:
            self.write(buffer, found.host)
            return
        if found.shape != buffer.shape or found.dtype != buffer.dtype:
            raise EngineError(f"cannot write {found.dtype}{found.shape} to a buffer of {buffer.dtype}{buffer.shape}")
        with self._cuda:
            if found.stream is not None:
                self._cuda.follow(self._stream, found.stream)
            size = math.prod(buffer.shape) * buffer.dtype.itemsize
            self._cuda.copy(buffer.address, found.address, size, self._stream)
            # Its owner may overwrite or free it as soon as this returns.
            self._wait()
        found.release()

    def read(self, buffer: Buffer) -> np.ndarray[Any, Any]:
        return self.read_all([buffer])[0]

    def read_all(self, buffers: Sequence[Buffer]) -> list[np.ndarray[Any, Any]]:
        cuda, stream = self._cuda, self._stream
        made = []
        with cuda:
            for buffer in buffers:
                staged = self._pages.get((buffer.address, buffer.shape))
                if staged is not None:
                    page = staged.pages[0]
                    cuda.download(page, buffer.address, stream)
                    made.append((page.array, True))
                    continue
                array, pieces = np.empty(buffer.shape, buffer.dtype), _pieces(_device(buffer))
                for (address, _), part in zip(pieces, array.reshape(len(pieces), -1), strict=True):
                    cuda.download(page_of(part), address, stream)
                made.append((array, False))
            self._wait()
        return [array.copy() if shared else array for array, shared in made]


def _device(buffer: Buffer) -> Block:
    if isinstance(buffer, (DeviceBuffer, DeviceStrip)):
        return buffer
    raise EngineError(f"a {type(buffer).__name__} does not lie in the GPU's memory")
