"""The driver's mock as the fake TensorRT needs it: its work goes into a stream as a host function, so that it is
recorded like everything else."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np


class NativeGpu:
    """What of ``Gpu`` TensorRT's fake uses."""

    present = True

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._type = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        self._kept: list[Any] = []
        self.log: list[str] = []

    def current(self) -> None:
        assert self._library.mock_depth() > 0, "no context is current"

    @property
    def live(self) -> int:
        return int(self._library.mock_live())

    @property
    def depth(self) -> int:
        return int(self._library.mock_depth())

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        call = self._type(lambda data: work())
        self._kept.append(call)
        assert self._library.cuLaunchHostFunc(ctypes.c_void_p(stream), call, None) == 0

    def recording(self, stream: int) -> bool:
        """Not asked: the mock records whatever it is given."""
        return False

    def view(self, address: int, size: int) -> np.ndarray[Any, Any]:
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
