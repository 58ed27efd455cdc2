"""CUDA through cuda.bindings, NVIDIA's own package: everything, graphs included."""

from __future__ import annotations

import ctypes
import weakref
from types import ModuleType
from typing import Any

import numpy as np

from edgeco.engines.cuda.graphs import BindingsGraphs
from edgeco.engines.cuda.protocol import NO_DRIVER, NO_GPU, Bytes, Device, Missing, Nested, Page
from edgeco.engines.cuda.results import Results, first_line
from edgeco.errors import EngineError

PACKAGE = "cuda.bindings"
MAJOR, MINOR = "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR", "CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR"


class BindingsStream:
    """A stream, by its handle."""

    __slots__ = ("handle", "raw")

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.handle = int(raw)


class BindingsCuda(Nested):
    """The Cuda protocol over cuda.bindings.driver.

    Raises:
        Missing: the package, the driver or the GPU is not there.
    """

    name = PACKAGE

    def __init__(self) -> None:
        super().__init__()
        self._driver = import_driver()
        self._results = Results(self._driver)
        self._call = self._results.call
        number = self._started()
        self._device = self._call(self._driver.cuDeviceGet(number))
        self._context = self._call(self._driver.cuDevicePrimaryCtxRetain(self._device))
        # Finalizers run at exit newest first: streams that are still open come before the context they are in.
        weakref.finalize(self, self._driver.cuDevicePrimaryCtxRelease, self._device)
        self.graphs = BindingsGraphs(self._driver)
        self.device = self._describe()
        self._fills = {1: self._driver.cuMemsetD8Async, 2: self._driver.cuMemsetD16Async}
        self._fills[4] = self._driver.cuMemsetD32Async

    def _started(self) -> int:
        try:
            error = self._driver.cuInit(0)[0]
        except Exception as failure:  # a class of its own in each release of the package
            raise Missing(PACKAGE, Missing.DRIVER, NO_DRIVER) from failure
        if error == self._driver.CUresult.CUDA_ERROR_NO_DEVICE:
            raise Missing(PACKAGE, Missing.GPU, NO_GPU)
        if error != self._driver.CUresult.CUDA_SUCCESS:
            raise Missing(PACKAGE, Missing.GPU, f"the CUDA driver does not start: {self._results.name(error)}")
        if self._call(self._driver.cuDeviceGetCount()) < 1:
            raise Missing(PACKAGE, Missing.GPU, NO_GPU)
        return 0

    def _describe(self) -> Device:
        driver, call = self._driver, self._call
        name = call(driver.cuDeviceGetName(128, self._device))
        attribute = driver.CUdevice_attribute
        major, minor = (call(driver.cuDeviceGetAttribute(getattr(attribute, a), self._device)) for a in (MAJOR, MINOR))
        return Device(
            bytes(name).split(b"\0")[0].decode(),
            (int(major), int(minor)),
            int(call(driver.cuDeviceTotalMem(self._device))),
            int(call(driver.cuDriverGetVersion())),
        )

    def _push(self) -> None:
        self._call(self._driver.cuCtxPushCurrent(self._context))

    def _pop(self) -> None:
        self._driver.cuCtxPopCurrent()

    def allocate(self, size: int) -> int:
        error, address = self._driver.cuMemAlloc(max(size, 1))
        if error == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise EngineError(f"there is no GPU memory for a buffer of {size} bytes; step fewer rows at once")
        return int(self._call((error, address)))

    def free(self, address: int) -> None:
        self._call(self._driver.cuMemFree(address))

    def free_memory(self) -> int:
        return int(self._call(self._driver.cuMemGetInfo())[0])

    def pinned(self, size: int) -> Bytes:
        address = int(self._call(self._driver.cuMemHostAlloc(max(size, 1), 0)))
        return np.ctypeslib.as_array((ctypes.c_uint8 * max(size, 1)).from_address(address))

    def unpin(self, array: Bytes) -> None:
        self._call(self._driver.cuMemFreeHost(array.ctypes.data))

    def stream(self) -> BindingsStream:
        flag = self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING
        return BindingsStream(self._call(self._driver.cuStreamCreate(flag)))

    def close_stream(self, stream: BindingsStream) -> None:
        self._call(self._driver.cuStreamDestroy(stream.raw))

    def event(self, timing: bool = False) -> Any:
        flags = self._driver.CUevent_flags
        flag = flags.CU_EVENT_DEFAULT if timing else flags.CU_EVENT_DISABLE_TIMING
        return self._call(self._driver.cuEventCreate(flag))

    def close_event(self, event: Any) -> None:
        self._call(self._driver.cuEventDestroy(event))

    def record(self, event: Any, stream: BindingsStream) -> None:
        self._call(self._driver.cuEventRecord(event, stream.raw))

    def finish(self, event: Any) -> None:
        self._call(self._driver.cuEventSynchronize(event))

    def milliseconds(self, start: Any, end: Any) -> float:
        return float(self._call(self._driver.cuEventElapsedTime(start, end)))

    def follow(self, stream: BindingsStream, other: int) -> None:
        event = self.event()
        try:
            self._call(self._driver.cuEventRecord(event, self._driver.CUstream(other)))
            self._call(self._driver.cuStreamWaitEvent(stream.raw, event, 0))
        finally:
            self.close_event(event)

    def synchronize(self, stream: BindingsStream) -> None:
        self._call(self._driver.cuStreamSynchronize(stream.raw))

    def upload(self, address: int, page: Page, stream: BindingsStream) -> None:
        self._call(self._driver.cuMemcpyHtoDAsync(address, page.address, page.size, stream.raw))

    def download(self, page: Page, address: int, stream: BindingsStream) -> None:
        self._call(self._driver.cuMemcpyDtoHAsync(page.address, address, page.size, stream.raw))

    def copy(self, destination: int, source: int, size: int, stream: BindingsStream) -> None:
        self._call(self._driver.cuMemcpyDtoDAsync(destination, source, size, stream.raw))

    def fill(self, address: int, pattern: int, width: int, count: int, stream: BindingsStream) -> None:
        self._call(self._fills[width](address, pattern, count, stream.raw))


def import_driver() -> ModuleType:
    """``cuda.bindings.driver``. Raises Missing where it cannot be imported."""
    try:
        from cuda.bindings import driver
    except ModuleNotFoundError as error:
        reason = "not installed" if (error.name or "").split(".")[0] == "cuda" else first_line(error)
        raise Missing(PACKAGE, Missing.PACKAGE, reason) from error
    except Exception as error:  # a library that is missing, another driver
        raise Missing(PACKAGE, Missing.PACKAGE, first_line(error)) from error
    return driver  # type: ignore[no-any-return]
