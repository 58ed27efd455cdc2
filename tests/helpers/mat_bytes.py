"""A writer of MATLAB 5 files, by the format's description: what the reader is tested with."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

_KINDS = {"f8": (9, 6), "u1": (2, 9), "i2": (3, 10), "f4": (7, 7)}
"""By NumPy's name: the type of the numbers, the class of the matrix."""


def mat_file(arrays: Mapping[str, np.ndarray[Any, Any]], order: str = "<", compressed: bool = False) -> bytes:
    """The bytes of a file that holds these matrices."""
    mark = b"IM" if order == "<" else b"MI"
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(order + "H", 0x0100) + mark
    parts = [_matrix(name, array, order) for name, array in arrays.items()]
    if compressed:
        packed = [zlib.compress(part) for part in parts]
        parts = [struct.pack(order + "II", 15, len(part)) + part for part in packed]
    return head + b"".join(parts)


def _matrix(name: str, array: np.ndarray[Any, Any], order: str, flags: int = 0) -> bytes:
    array = array if array.dtype.str[1:] in _KINDS else array.astype("u1")
    kind, of_class = _KINDS[array.dtype.str[1:]]
    body = (
        _element(6, struct.pack(order + "II", of_class | flags, 0), order)
        + _element(5, struct.pack(f"{order}{array.ndim}i", *array.shape), order)
        + _element(1, name.encode(), order)
        + _element(kind, array.astype(array.dtype.newbyteorder(order)).tobytes(order="F"), order)
    )
    return struct.pack(order + "II", 14, len(body)) + body


def _element(kind: int, data: bytes, order: str) -> bytes:
    if len(data) <= 4:
        return struct.pack(order + "I", len(data) << 16 | kind) + data.ljust(4, b"\0")
    return struct.pack(order + "II", kind, len(data)) + data + b"\0" * (-len(data) % 8)
