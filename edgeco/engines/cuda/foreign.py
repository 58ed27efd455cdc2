"""Arrays of other libraries that lie on the GPU: what ``__cuda_array_interface__`` and DLPack say of them."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeco.engines.cuda.results import first_line
from edgeco.errors import EngineError

CPU, CUDA, CUDA_HOST, CUDA_MANAGED = 1, 2, 3, 13
DEFAULT_STREAM = 1
"""Handle of the default stream, which waits for all streams that do not say otherwise: torch's among them."""
_KINDS = {0: "int", 1: "uint", 2: "float"}


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Foreign:
    """A contiguous array; ``stream`` is the handle of the queue its contents are still being made in, None if they are
    there. ``host`` holds it where it lies on the host. Call ``release`` when done with it."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int | None = None
    host: np.ndarray[Any, Any] | None = None
    release: Callable[[], None] = _nothing


def describe(array: object, stream: int) -> Foreign | None:
    """What an object says of itself; None if it is no array.

    Args:
        array: an object with ``__cuda_array_interface__`` or ``__dlpack__``.
        stream: handle of the stream that will read it; DLPack makes its producer wait for nothing else.

    Raises:
        EngineError: it is not contiguous, of a type that no network takes, on another GPU, or not to be had.
    """
    # DLPack first: torch tells both, and in the other not what is still being computed.
    try:
        if hasattr(array, "__dlpack__"):
            return _from_dlpack(array, stream)
        interface = getattr(array, "__cuda_array_interface__", None)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:  # a tensor that wants a gradient, for one
        raise EngineError(f"the array on the GPU cannot be read ({first_line(error)}); give a plain one") from error
    return _from_interface(interface) if isinstance(interface, dict) else None


def _from_dlpack(array: Any, stream: int) -> Foreign:
    kind, number = array.__dlpack_device__() if hasattr(array, "__dlpack_device__") else (CPU, 0)
    if int(kind) in (CPU, CUDA_HOST):
        made = np.from_dlpack(array)
        return Foreign(made.ctypes.data, made.shape, made.dtype, host=made)
    if int(kind) not in (CUDA, CUDA_MANAGED) or (int(kind) == CUDA and int(number) != 0):
        raise EngineError("the array does not lie on the GPU that the network runs on, the first; bring it there")
    return _from_capsule(array.__dlpack__(stream=stream))


def _from_interface(interface: dict[str, Any]) -> Foreign:
    shape = tuple(int(size) for size in interface["shape"])
    dtype = np.dtype(interface["typestr"])
    strides = interface.get("strides")
    if strides is not None and tuple(strides) != _strides(shape, dtype.itemsize):
        raise EngineError("the array on the GPU is not contiguous; make it so before the step")
    # Before version 3 nothing is said of a stream: whatever was given to the default one may still be going on.
    queue = interface.get("stream", DEFAULT_STREAM if interface.get("version", 0) < 3 else None)
    return Foreign(int(interface["data"][0]), shape, dtype, queue)


def _strides(shape: tuple[int, ...], unit: int) -> tuple[int, ...]:
    return tuple(unit * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


class _Device(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int32), ("number", ctypes.c_int32)]


class _Type(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _Type),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    ]


class Managed(ctypes.Structure):
    """DLPack's DLManagedTensor, of the versions before 1, which every producer still gives when not asked for more."""


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(Managed))
Managed._fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]


def _from_capsule(capsule: Any) -> Foreign:
    api = ctypes.pythonapi
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    address = api.PyCapsule_GetPointer(capsule, b"dltensor")
    tensor = Managed.from_address(address).tensor
    shape = tuple(int(tensor.shape[axis]) for axis in range(tensor.ndim))
    if tensor.dtype.code not in _KINDS or tensor.dtype.lanes != 1:
        raise EngineError("the array on the GPU is of a type that no network takes; give float32 or uint8")
    dtype = np.dtype(f"{_KINDS[tensor.dtype.code]}{tensor.dtype.bits}")
    if tensor.strides and tuple(tensor.strides[axis] for axis in range(tensor.ndim)) != _strides(shape, 1):
        raise EngineError("the array on the GPU is not contiguous; make it so before the step")

    def release(held: Any = capsule) -> None:
        """The capsule was not renamed, so that its own destructor gives the tensor back."""

    return Foreign((tensor.data or 0) + tensor.offset, shape, dtype, release=release)
