"""A GPU in host memory, behind both CUDA packages and TensorRT's fake.

Streams are lazy: what they are given is done when somebody waits for it, so that a wait that is missing gives wrong
numbers, and a host buffer that is overwritten too early gives the wrong frame. Every address is looked up among the
living blocks, and every call wants the primary context current in its thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

ALIGNMENT = 256
DEFAULT_STREAM = 1
SUCCESS, INVALID, OUT_OF_MEMORY, NO_DEVICE, NO_CONTEXT, CAPTURE, ILLEGAL = 0, 1, 2, 100, 201, 901, 700
MEMORY = 8 << 30


class Fault(Exception):
    """A result code other than success."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Queue:
    """A stream's work; ``recording`` instead of doing where it is a list."""

    def __init__(self) -> None:
        self.work: list[Callable[[], None]] = []
        self.recording: list[Callable[[], None]] | None = None
        self.broken = False


class Gpu:
    """The only one there is."""

    def __init__(self) -> None:
        self.blocks: dict[int, np.ndarray[Any, Any]] = {}
        self.pages: dict[int, np.ndarray[Any, Any]] = {}
        self.streams: dict[int, Queue] = {}
        self.default = Queue()
        self.events: dict[int, int | None] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.retained = 0
        self.log: list[str] = []
        self.limit = int(os.environ.get("EDGECO_FAKE_MEMORY", MEMORY))
        self.refuse_capture = False
        self.elapsed = 1.0
        """Milliseconds between any two events."""
        self._local = threading.local()
        self._next = 1000

    @property
    def present(self) -> bool:
        return "EDGECO_FAKE_NO_GPU" not in os.environ

    @property
    def depth(self) -> int:
        return int(getattr(self._local, "depth", 0))

    def push(self) -> None:
        self._local.depth = self.depth + 1

    def pop(self) -> None:
        self.current()
        self._local.depth = self.depth - 1

    def current(self) -> None:
        if not self.depth:
            raise Fault(NO_CONTEXT)

    @property
    def live(self) -> dict[str, int]:
        """What has not been given back."""
        held = {"blocks": self.blocks, "pages": self.pages, "streams": self.streams, "events": self.events}
        return {name: len(things) for name, things in {**held, "graphs": self.graphs}.items() if things}

    def queue(self, stream: int) -> Queue:
        found = self.default if stream == DEFAULT_STREAM else self.streams.get(stream)
        if found is None:
            raise Fault(INVALID)
        return found

    def recording(self, stream: int) -> bool:
        return self.queue(stream).recording is not None

    def quiet(self) -> None:
        """What is still used must not be given back."""
        self.current()
        if any(queue.work for queue in (self.default, *self.streams.values())):
            raise Fault(ILLEGAL)

    def unrecorded(self) -> None:
        """Some calls end every recording of their thread."""
        self.current()
        for queue in self.streams.values():
            if queue.recording is not None:
                queue.broken = True
                raise Fault(CAPTURE)

    def handle(self) -> int:
        self._next += 8
        return self._next

    def allocate(self, size: int) -> int:
        self.unrecorded()
        if size + sum(map(len, self.blocks.values())) > self.limit:
            raise Fault(OUT_OF_MEMORY)
        address, block = aligned(size)
        block[:] = 0xCD
        self.blocks[address] = block
        return address

    def free(self, address: int) -> None:
        self.unrecorded()
        for handle in list(self.streams):
            self.synchronize(handle)
        if self.blocks.pop(address, None) is None:
            raise Fault(INVALID)

    def view(self, address: int, size: int) -> np.ndarray[Any, Any]:
        """Bytes of device memory."""
        for start, block in self.blocks.items():
            if start <= address and address + size <= start + len(block):
                return block[address - start : address - start + size]
        raise Fault(ILLEGAL)

    def host(self, address: int, size: int) -> np.ndarray[Any, Any] | None:
        """Bytes of page-locked memory; None where the address is of no such memory."""
        for start, block in self.pages.items():
            if start <= address and address + size <= start + len(block):
                return block[address - start : address - start + size]
        return None

    def page(self, size: int) -> np.ndarray[Any, Any]:
        self.unrecorded()
        address, block = aligned(size)
        self.pages[address] = block
        return block

    def unpage(self, address: int) -> None:
        self.quiet()
        if self.pages.pop(address, None) is None:
            raise Fault(INVALID)

    def stream(self) -> int:
        self.current()
        handle = self.handle()
        self.streams[handle] = Queue()
        return handle

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        self.current()
        queue = self.queue(stream)
        (queue.work if queue.recording is None else queue.recording).append(work)

    def synchronize(self, stream: int) -> None:
        queue = self.queue(stream)
        if queue.recording is not None:
            queue.broken = True
            raise Fault(CAPTURE)
        while queue.work:
            queue.work.pop(0)()

    def wait(self, stream: int, event: int) -> None:
        source = self.events[event]
        if source is not None:
            self.enqueue(stream, lambda: self.synchronize(source))

    def begin(self, stream: int) -> None:
        self.current()
        if self.streams[stream].recording is not None:
            raise Fault(CAPTURE)
        self.streams[stream].recording = []
        self.streams[stream].broken = self.refuse_capture
        self.log.append("begin")

    def end(self, stream: int) -> int:
        self.current()
        queue = self.streams[stream]
        recorded, queue.recording = queue.recording, None
        self.log.append("end")
        if recorded is None or queue.broken:
            raise Fault(CAPTURE)
        handle = self.handle()
        self.graphs[handle] = recorded
        return handle

    def instantiate(self, graph: int) -> int:
        handle = self.handle()
        self.graphs[handle] = list(self.graphs[graph])
        return handle

    def launch(self, graph: int, stream: int) -> None:
        self.log.append("launch")
        for work in self.graphs[graph]:
            self.enqueue(stream, work)

    def destroy(self, graph: int) -> None:
        self.quiet()
        del self.graphs[graph]

    def upload(self, address: int, source: int, size: int, stream: int) -> None:
        pinned = self.host(source, size)
        if pinned is None:  # pageable memory is read before the call returns
            data = np.ctypeslib.as_array((_bytes(size)).from_address(source)).copy()
            self.enqueue(stream, lambda: self.view(address, size).__setitem__(slice(None), data))
        else:
            self.enqueue(stream, lambda: self.view(address, size).__setitem__(slice(None), pinned))

    def download(self, target: int, address: int, size: int, stream: int) -> None:
        pinned = self.host(target, size)
        if pinned is None:  # pageable memory is written before the call returns
            self.synchronize(stream)
            np.ctypeslib.as_array((_bytes(size)).from_address(target))[:] = self.view(address, size)
        else:
            self.enqueue(stream, lambda: pinned.__setitem__(slice(None), self.view(address, size)))

    def copy(self, target: int, source: int, size: int, stream: int) -> None:
        if abs(target - source) < size:
            raise Fault(INVALID)  # the real one copies in any order
        self.log.append("copy recorded" if self.recording(stream) else "copy")
        self.enqueue(stream, lambda: self.view(target, size).__setitem__(slice(None), self.view(source, size)))

    def fill(self, address: int, pattern: int, width: int, count: int, stream: int) -> None:
        if address % width:
            raise Fault(INVALID)
        kind = {1: np.uint8, 2: np.uint16, 4: np.uint32}[width]
        self.enqueue(stream, lambda: self.view(address, width * count).view(kind).fill(pattern))


def aligned(size: int) -> tuple[int, np.ndarray[Any, Any]]:
    """The address and bytes of a block at a multiple of 256."""
    raw = np.empty(max(size, 1) + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    block = raw[start : start + max(size, 1)]
    return int(block.ctypes.data), block


def _bytes(size: int) -> Any:
    import ctypes

    return ctypes.c_uint8 * size


def _chosen() -> Any:
    """Under real CUDA packages over the driver's mock, that mock."""
    if "EDGECO_MOCK_DRIVER" in os.environ:
        from native import NativeGpu

        return NativeGpu(os.environ["EDGECO_MOCK_DRIVER"])
    return Gpu()


GPU = _chosen()
