"""What TensorRT's runner needs of CUDA: memory, streams, events, copies, and graphs where there are any."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Device(NamedTuple):
    """A GPU: its name, compute capability, memory in bytes, and the driver's newest CUDA (12060 for 12.6)."""

    name: str
    capability: tuple[int, int]
    memory: int
    driver: int


class Page(NamedTuple):
    """Host memory to copy from or to: a contiguous array, its address, which numpy takes a microsecond to tell, and its
    bytes."""

    array: np.ndarray[Any, Any]
    address: int
    size: int


def page_of(array: np.ndarray[Any, Any]) -> Page:
    """A contiguous array as a page, which it stays for as long as it lives."""
    return Page(array, array.ctypes.data, array.nbytes)


class Nested:
    """Makes a context current in the outermost of nested ``with`` blocks of a thread: a step has many, and each change
    of context is a call to the driver."""

    def __init__(self) -> None:
        self._thread = threading.local()

    def _push(self) -> None:
        raise NotImplementedError

    def _pop(self) -> None:
        raise NotImplementedError

    def _failed(self, error: BaseException) -> None:
        """Say it in one sentence where the package did not."""

    def __enter__(self) -> object:
        thread = self._thread
        depth = getattr(thread, "depth", 0)
        if not depth:
            self._push()
        thread.depth = depth + 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        thread = self._thread
        thread.depth -= 1
        if not thread.depth:
            self._pop()
        if error is not None:
            self._failed(error)


class Missing(Exception):
    """A package does not get through to a GPU; ``stage`` says how far it came."""

    PACKAGE, DRIVER, GPU = 0, 1, 2

    def __init__(self, package: str, stage: int, message: str) -> None:
        super().__init__(message)
        self.package, self.stage = package, stage


NO_DRIVER = "there is no CUDA driver: libcuda.so.1 was not found; install NVIDIA's driver, or JetPack on a Jetson"
NO_GPU = "no NVIDIA GPU is visible to this process: check nvidia-smi, CUDA_VISIBLE_DEVICES and the container's --gpus"


class Stream(Protocol):
    """A queue of work on the GPU; ``handle`` is the driver's own, as other libraries take it."""

    @property
    def handle(self) -> int: ...


class Graphs(Protocol):
    """Recording what a stream is given, to give it all at once later. Streams are named by their handles."""

    def begin(self, stream: int) -> None:
        """From now on the stream records and does nothing."""
        ...

    def end(self, stream: int) -> Any:
        """Stop recording; an executable graph. Raises EngineError if something could not be recorded."""
        ...

    def abort(self, stream: int) -> None:
        """Stop recording and forget, whatever state the recording is in."""
        ...

    def launch(self, graph: Any, stream: int) -> None: ...

    def destroy(self, graph: Any) -> None: ...


class Cuda(Protocol):
    """One GPU in its primary context, which torch and others use too. As a context manager it makes that context
    current in the calling thread, and puts back on leaving what was current before; everything below needs it so.

    Sizes are bytes, addresses the device's. Whatever fails raises EngineError in one sentence.
    """

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> Device: ...

    @property
    def graphs(self) -> Graphs | None: ...

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def allocate(self, size: int) -> int:
        """Device memory, its address a multiple of 256."""
        ...

    def free(self, address: int) -> None: ...

    def free_memory(self) -> int:
        """Bytes of device memory that nobody uses."""
        ...

    def pinned(self, size: int) -> Bytes:
        """Page-locked host memory, without which copies are not asynchronous."""
        ...

    def unpin(self, array: Bytes) -> None:
        """Give it back: no view of it may be used any more."""
        ...

    def stream(self) -> Stream:
        """A stream of its own, which does not wait for the default stream."""
        ...

    def close_stream(self, stream: Any) -> None: ...

    def event(self, timing: bool = False) -> Any: ...

    def close_event(self, event: Any) -> None: ...

    def record(self, event: Any, stream: Any) -> None: ...

    def finish(self, event: Any) -> None:
        """Block until what was recorded is done; at once if nothing was."""
        ...

    def milliseconds(self, start: Any, end: Any) -> float:
        """Between two timing events that are done."""
        ...

    def follow(self, stream: Any, other: int) -> None:
        """Let a stream wait for all that another, named by its handle, has been given so far."""
        ...

    def synchronize(self, stream: Any) -> None:
        """Block until the stream has done everything."""
        ...

    def upload(self, address: int, page: Page, stream: Any) -> None: ...

    def download(self, page: Page, address: int, stream: Any) -> None: ...

    def copy(self, destination: int, source: int, size: int, stream: Any) -> None: ...

    def fill(self, address: int, pattern: int, width: int, count: int, stream: Any) -> None:
        """``count`` times the ``width`` low bytes (1, 2 or 4) of ``pattern``."""
        ...
