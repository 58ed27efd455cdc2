"""``pycuda.driver`` as far as edgeco uses it, over the fake GPU."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
from gpu import GPU, MEMORY, OUT_OF_MEMORY, Fault

if "EDGECO_FAKE_NO_DRIVER" in os.environ:
    # As the loader of the compiled module says it.
    raise ImportError("libcuda.so.1: cannot open shared object file: No such file or directory", name="pycuda._driver")


class Error(Exception):
    """Root of pycuda's errors."""


class LogicError(Error):
    pass


class MemoryError(Error):
    pass


event_flags = SimpleNamespace(DEFAULT=0, DISABLE_TIMING=2)


def _raised(work: Any, *args: Any) -> Any:
    try:
        return work(*args)
    except Fault as fault:
        raise (MemoryError if fault.code == OUT_OF_MEMORY else LogicError)(f"failed: error {fault.code}") from fault


def init() -> None:
    if not GPU.present:
        raise LogicError("cuInit failed: no CUDA-capable device is detected")


def get_driver_version() -> int:
    return 12060


def mem_get_info() -> tuple[int, int]:
    return MEMORY, MEMORY


class Context:
    def push(self) -> None:
        GPU.push()

    @staticmethod
    def pop() -> None:
        _raised(GPU.pop)

    def detach(self) -> None:
        GPU.retained -= 1

    @staticmethod
    def synchronize() -> None:
        _raised(GPU.current)
        for stream in (1, *GPU.streams):
            _raised(GPU.synchronize, stream)


class Device:
    def __init__(self, number: int) -> None:
        self.number = number

    @staticmethod
    def count() -> int:
        return int(GPU.present)

    def retain_primary_context(self) -> Context:
        GPU.retained += 1
        return Context()

    def name(self) -> str:
        return "Fake GPU"

    def compute_capability(self) -> tuple[int, int]:
        return 8, 7

    def total_memory(self) -> int:
        return MEMORY


class DeviceAllocation:
    def __init__(self, size: int) -> None:
        self._address: int | None = _raised(GPU.allocate, size)

    def __int__(self) -> int:
        assert self._address is not None
        return self._address

    def free(self) -> None:
        address, self._address = self._address, None
        _raised(GPU.free, address)


def mem_alloc(size: int) -> DeviceAllocation:
    return DeviceAllocation(size)


class PagelockedHostAllocation:
    def __init__(self, block: np.ndarray[Any, Any]) -> None:
        self.__array_interface__ = block.__array_interface__
        self._block = block

    def free(self) -> None:
        _raised(GPU.unpage, int(self._block.ctypes.data))


def pagelocked_empty(size: int, dtype: Any) -> np.ndarray[Any, Any]:
    return np.asarray(PagelockedHostAllocation(_raised(GPU.page, size)))


class Stream:
    def __init__(self, flags: int = 0) -> None:
        assert flags == 1
        self.handle: int = _raised(GPU.stream)

    def synchronize(self) -> None:
        _raised(GPU.synchronize, self.handle)

    def __del__(self) -> None:
        if GPU.depth:  # the real one cannot be destroyed from elsewhere either
            GPU.synchronize(self.handle)
            GPU.streams.pop(self.handle, None)


class Event:
    def __init__(self, flags: int = 0) -> None:
        _raised(GPU.current)
        self.handle = GPU.handle()
        GPU.events[self.handle] = None

    def record(self, stream: Stream) -> None:
        GPU.events[self.handle] = stream.handle

    def synchronize(self) -> None:
        stream = GPU.events[self.handle]
        if stream is not None:
            _raised(GPU.synchronize, stream)

    def time_till(self, other: Event) -> float:
        return float(GPU.elapsed)

    def __del__(self) -> None:
        if GPU.depth:
            GPU.events.pop(self.handle, None)


def memcpy_htod_async(address: int, array: np.ndarray[Any, Any], stream: Stream) -> None:
    assert array.flags.c_contiguous
    _raised(GPU.upload, address, array.ctypes.data, array.nbytes, stream.handle)


def memcpy_dtoh_async(array: np.ndarray[Any, Any], address: int, stream: Stream) -> None:
    assert array.flags.c_contiguous and array.flags.writeable
    _raised(GPU.download, array.ctypes.data, address, array.nbytes, stream.handle)


def memcpy_dtod_async(target: int, source: int, size: int, stream: Stream) -> None:
    _raised(GPU.copy, target, source, size, stream.handle)


def memset_d8_async(address: int, value: int, count: int, stream: Stream) -> None:
    _raised(GPU.fill, address, value, 1, count, stream.handle)


def memset_d16_async(address: int, value: int, count: int, stream: Stream) -> None:
    _raised(GPU.fill, address, value, 2, count, stream.handle)


def memset_d32_async(address: int, value: int, count: int, stream: Stream) -> None:
    _raised(GPU.fill, address, value, 4, count, stream.handle)
