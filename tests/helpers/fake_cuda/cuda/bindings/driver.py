"""``cuda.bindings.driver`` as far as edgeco uses it, over the fake GPU."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable
from typing import Any

from gpu import CAPTURE, GPU, ILLEGAL, INVALID, MEMORY, NO_CONTEXT, NO_DEVICE, OUT_OF_MEMORY, Fault


class CUresult(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = INVALID
    CUDA_ERROR_OUT_OF_MEMORY = OUT_OF_MEMORY
    CUDA_ERROR_NO_DEVICE = NO_DEVICE
    CUDA_ERROR_INVALID_CONTEXT = NO_CONTEXT
    CUDA_ERROR_ILLEGAL_ADDRESS = ILLEGAL
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = CAPTURE


class CUstream_flags(enum.IntEnum):
    CU_STREAM_DEFAULT = 0
    CU_STREAM_NON_BLOCKING = 1


class CUevent_flags(enum.IntEnum):
    CU_EVENT_DEFAULT = 0
    CU_EVENT_DISABLE_TIMING = 2


class CUstreamCaptureMode(enum.IntEnum):
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1


class CUdevice_attribute(enum.IntEnum):
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76


class CUstream(int):
    """A handle."""


def _made(work: Callable[..., Any], *args: Any) -> tuple[Any, ...]:
    try:
        value = work(*args)
    except Fault as fault:
        return CUresult(fault.code), None
    return CUresult.CUDA_SUCCESS, value


def _done(work: Callable[..., Any], *args: Any) -> tuple[Any]:
    return (_made(work, *args)[0],)


def cuInit(flags: int) -> tuple[Any]:
    if "EDGECO_FAKE_NO_DRIVER" in os.environ:
        raise RuntimeError("Failed to dlopen libcuda.so.1")
    return (CUresult.CUDA_SUCCESS if GPU.present else CUresult.CUDA_ERROR_NO_DEVICE,)


def cuDriverGetVersion() -> tuple[Any, int]:
    return CUresult.CUDA_SUCCESS, 12060


def cuDeviceGetCount() -> tuple[Any, int]:
    return CUresult.CUDA_SUCCESS, int(GPU.present)


def cuDeviceGet(number: int) -> tuple[Any, int]:
    return CUresult.CUDA_SUCCESS, number


def cuDeviceGetName(length: int, device: int) -> tuple[Any, bytes]:
    return CUresult.CUDA_SUCCESS, b"Fake GPU".ljust(length, b"\0")


def cuDeviceGetAttribute(attribute: CUdevice_attribute, device: int) -> tuple[Any, int]:
    return CUresult.CUDA_SUCCESS, {75: 8, 76: 7}[attribute]


def cuDeviceTotalMem(device: int) -> tuple[Any, int]:
    return CUresult.CUDA_SUCCESS, MEMORY


def cuDevicePrimaryCtxRetain(device: int) -> tuple[Any, str]:
    GPU.retained += 1
    return CUresult.CUDA_SUCCESS, "primary"


def cuDevicePrimaryCtxRelease(device: int) -> tuple[Any]:
    GPU.retained -= 1
    return (CUresult.CUDA_SUCCESS,)


def cuCtxPushCurrent(context: str) -> tuple[Any]:
    return _done(GPU.push)


def cuCtxPopCurrent() -> tuple[Any, ...]:
    return _made(GPU.pop)


def cuMemAlloc(size: int) -> tuple[Any, ...]:
    return _made(GPU.allocate, size)


def cuMemFree(address: int) -> tuple[Any]:
    return _done(GPU.free, address)


def cuMemGetInfo() -> tuple[Any, int, int]:
    return CUresult.CUDA_SUCCESS, MEMORY, MEMORY


def cuMemHostAlloc(size: int, flags: int) -> tuple[Any, ...]:
    return _made(lambda: int(GPU.page(size).ctypes.data))


def cuMemFreeHost(address: int) -> tuple[Any]:
    return _done(GPU.unpage, address)


def cuStreamCreate(flags: int) -> tuple[Any, ...]:
    assert flags == CUstream_flags.CU_STREAM_NON_BLOCKING
    return _made(lambda: CUstream(GPU.stream()))


def cuStreamDestroy(stream: int) -> tuple[Any]:
    return _done(_close_stream, stream)


def _close_stream(stream: int) -> None:
    GPU.synchronize(stream)
    GPU.streams.pop(stream)


def cuStreamSynchronize(stream: int) -> tuple[Any]:
    return _done(GPU.synchronize, stream)


def cuStreamWaitEvent(stream: int, event: int, flags: int) -> tuple[Any]:
    return _done(GPU.wait, stream, event)


def cuEventCreate(flags: int) -> tuple[Any, ...]:
    def make() -> int:
        GPU.current()
        handle = GPU.handle()
        GPU.events[handle] = None
        return handle

    return _made(make)


def cuEventDestroy(event: int) -> tuple[Any]:
    return _done(GPU.events.pop, event)


def cuEventRecord(event: int, stream: int) -> tuple[Any]:
    GPU.events[event] = int(stream)
    return (CUresult.CUDA_SUCCESS,)


def cuEventSynchronize(event: int) -> tuple[Any]:
    stream = GPU.events[event]
    return (CUresult.CUDA_SUCCESS,) if stream is None else _done(GPU.synchronize, stream)


def cuEventElapsedTime(start: int, end: int) -> tuple[Any, float]:
    return CUresult.CUDA_SUCCESS, GPU.elapsed


def cuMemcpyHtoDAsync(address: int, source: int, size: int, stream: int) -> tuple[Any]:
    return _done(GPU.upload, address, source, size, stream)


def cuMemcpyDtoHAsync(target: int, address: int, size: int, stream: int) -> tuple[Any]:
    return _done(GPU.download, target, address, size, stream)


def cuMemcpyDtoDAsync(target: int, source: int, size: int, stream: int) -> tuple[Any]:
    return _done(GPU.copy, target, source, size, stream)


def cuMemsetD8Async(address: int, value: int, count: int, stream: int) -> tuple[Any]:
    return _done(GPU.fill, address, value, 1, count, stream)


def cuMemsetD16Async(address: int, value: int, count: int, stream: int) -> tuple[Any]:
    return _done(GPU.fill, address, value, 2, count, stream)


def cuMemsetD32Async(address: int, value: int, count: int, stream: int) -> tuple[Any]:
    return _done(GPU.fill, address, value, 4, count, stream)


def cuStreamBeginCapture(stream: int, mode: CUstreamCaptureMode) -> tuple[Any]:
    return _done(GPU.begin, stream)


def cuStreamEndCapture(stream: int) -> tuple[Any, ...]:
    return _made(GPU.end, stream)


def cuGraphInstantiate(graph: int, flags: int) -> tuple[Any, ...]:
    return _made(GPU.instantiate, graph)


def cuGraphLaunch(graph: int, stream: int) -> tuple[Any]:
    return _done(GPU.launch, graph, stream)


def cuGraphExecDestroy(graph: int) -> tuple[Any]:
    return _done(GPU.destroy, graph)


def cuGraphDestroy(graph: int) -> tuple[Any]:
    return _done(GPU.graphs.pop, graph)


def cuModuleLoadData(image: bytes) -> tuple[Any, str]:
    return (CUresult.CUDA_SUCCESS if image.endswith(b"\0") else CUresult.CUDA_ERROR_INVALID_VALUE), "module"


def cuModuleUnload(module: str) -> tuple[Any]:
    return (CUresult.CUDA_SUCCESS,)


def cuModuleGetFunction(module: str, name: bytes) -> tuple[Any, str]:
    return CUresult.CUDA_SUCCESS, name.decode()


def cuLaunchKernel(kernel: str, *args: Any) -> tuple[Any]:
    """One that does nothing."""
    assert len(args) == 10
    return _done(GPU.enqueue, args[7], lambda: None)


def cuGetErrorName(error: CUresult) -> tuple[Any, bytes]:
    return CUresult.CUDA_SUCCESS, error.name.encode()
