"""CUDA through pycuda. It has no graphs of its own; where cuda.bindings is installed too, graphs come from there."""

from __future__ import annotations

import contextlib
import weakref
from types import ModuleType
from typing import Any

import numpy as np

from edgeco.engines.cuda.protocol import NO_DRIVER, NO_GPU, Bytes, Device, Graphs, Missing, Nested, Page
from edgeco.engines.cuda.results import advice, first_line
from edgeco.errors import EngineError

PACKAGE = "pycuda"


class Held:
    """A stream or event of pycuda, destroyed with its last reference: this one, dropped in the right context."""

    __slots__ = ("handle", "raw")

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.handle = int(getattr(raw, "handle", 0))


class PycudaCuda(Nested):
    """The Cuda protocol over pycuda.driver.

    The primary context is retained for as long as the process lives; ``pycuda.autoinit`` would make a context of its
    own, in which nothing of TensorRT or torch is valid. Streams and memory are given back only while it is current:
    pycuda refuses to do so in another thread than the context's first.

    Raises:
        Missing: the package, the driver or the GPU is not there.
    """

    name = PACKAGE

    def __init__(self) -> None:
        super().__init__()
        self._driver = driver = _import()
        self._error = driver.Error
        try:
            driver.init()
            if driver.Device.count() < 1:
                raise Missing(PACKAGE, Missing.GPU, NO_GPU)
        except driver.Error as error:
            known = "no CUDA-capable device" in str(error) or "no device" in str(error).lower()
            message = NO_GPU if known else f"the CUDA driver does not start: {first_line(error)}"
            raise Missing(PACKAGE, Missing.GPU, message) from error
        first = driver.Device(0)
        self._context = first.retain_primary_context()
        # Not left to its destructor, which takes the primary context for one of pycuda's own. At exit finalizers run
        # newest first: streams that are still open come before the context they are in.
        weakref.finalize(self, self._context.detach)
        self._memory: dict[int, Any] = {}
        self._pages: dict[int, np.ndarray[Any, Any]] = {}
        self.graphs = _graphs()
        major, minor = first.compute_capability()
        self.device = Device(first.name(), (major, minor), int(first.total_memory()), int(driver.get_driver_version()))
        self._fills = {1: driver.memset_d8_async, 2: driver.memset_d16_async, 4: driver.memset_d32_async}

    def _push(self) -> None:
        self._context.push()

    def _pop(self) -> None:
        self._context.pop()

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, self._error):
            raise _said(error) from error

    def allocate(self, size: int) -> int:
        try:
            block = self._driver.mem_alloc(max(size, 1))
        except self._driver.MemoryError as error:
            message = f"there is no GPU memory for a buffer of {size} bytes; step fewer rows at once"
            raise EngineError(message) from error
        address = int(block)
        self._memory[address] = block  # freed when pycuda's object goes
        return address

    def free(self, address: int) -> None:
        self._memory.pop(address).free()

    def free_memory(self) -> int:
        return int(self._driver.mem_get_info()[0])

    def pinned(self, size: int) -> Bytes:
        array: Bytes = self._driver.pagelocked_empty(max(size, 1), np.uint8)
        self._pages[array.ctypes.data] = array
        return array

    def unpin(self, array: Bytes) -> None:
        allocation: Any = self._pages.pop(array.ctypes.data).base
        allocation.free()

    def stream(self) -> Held:
        return Held(self._driver.Stream(1))  # CU_STREAM_NON_BLOCKING

    def close_stream(self, stream: Held) -> None:
        stream.raw = None

    def event(self, timing: bool = False) -> Held:
        flags = self._driver.event_flags
        return Held(self._driver.Event(flags.DEFAULT if timing else flags.DISABLE_TIMING))

    def close_event(self, event: Held) -> None:
        event.raw = None

    def record(self, event: Held, stream: Held) -> None:
        event.raw.record(stream.raw)

    def finish(self, event: Held) -> None:
        event.raw.synchronize()

    def milliseconds(self, start: Held, end: Held) -> float:
        return float(start.raw.time_till(end.raw))

    def follow(self, stream: Held, other: int) -> None:
        # pycuda cannot name a stream that it did not make: everything is waited for instead.
        self._driver.Context.synchronize()

    def synchronize(self, stream: Held) -> None:
        stream.raw.synchronize()

    def upload(self, address: int, page: Page, stream: Held) -> None:
        self._driver.memcpy_htod_async(address, page.array, stream.raw)

    def download(self, page: Page, address: int, stream: Held) -> None:
        self._driver.memcpy_dtoh_async(page.array, address, stream.raw)

    def copy(self, destination: int, source: int, size: int, stream: Held) -> None:
        self._driver.memcpy_dtod_async(destination, source, size, stream.raw)

    def fill(self, address: int, pattern: int, width: int, count: int, stream: Held) -> None:
        self._fills[width](address, pattern, count, stream.raw)


def _import() -> ModuleType:
    try:
        import pycuda.driver as driver
    except ModuleNotFoundError as error:
        reason = "not installed" if (error.name or "").split(".")[0] == PACKAGE else first_line(error)
        raise Missing(PACKAGE, Missing.PACKAGE, reason) from error
    except Exception as error:  # a library that is missing, another numpy, another driver
        if "libcuda" in str(error):
            raise Missing(PACKAGE, Missing.DRIVER, NO_DRIVER) from error
        raise Missing(PACKAGE, Missing.PACKAGE, first_line(error)) from error
    return driver  # type: ignore[no-any-return]


def _graphs() -> Graphs | None:
    from edgeco.engines.cuda.bindings import import_driver
    from edgeco.engines.cuda.graphs import BindingsGraphs

    with contextlib.suppress(Missing):
        driver = import_driver()
        # cuda.bindings looks for the driver by itself; where it finds none, there are no graphs.
        with contextlib.suppress(Exception):
            if not driver.cuInit(0)[0]:
                return BindingsGraphs(driver)
    return None


def _said(error: BaseException) -> EngineError:
    message = first_line(error)
    return EngineError(f"the GPU reports {message}; {advice(message.upper().replace(' ', '_'))}")
