"""Numeric arrays of a MATLAB 5 file (``.mat``): real matrices, compressed or not, and nothing else.

SciPy reads all of the format and weighs 35 MB; the one file that is read here holds four plain matrices. Layout:
MathWorks, "MAT-File Format", chapter 1 (level 5).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgeco.errors import DataError
from edgeco.train.data.case import Array

_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""miINT8 … miUINT64: how numbers are stored, whatever class they have in MATLAB."""
_MATRIX, _COMPRESSED = 14, 15
_NUMERIC = range(6, 16)
"""mxDOUBLE_CLASS to mxUINT64_CLASS."""
_COMPLEX = 0x0800


def read_mat(path: Path) -> dict[str, Array]:
    """The real numeric matrices of a file by name; others are passed over.

    Raises:
        DataError: the file cannot be read, is of another version, or is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: it cannot be read ({error.strerror or error}).") from None
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if len(data) < 128 or order is None or data[124:126] not in (b"\x00\x01", b"\x01\x00"):
        raise DataError(f"{path}: it is no MATLAB 5 file; save it with save(…, '-v7') or older.")
    found: dict[str, Array] = {}
    try:
        for kind, part in _elements(data[128:], order):
            if kind == _COMPRESSED:
                kind, part = next(_elements(zlib.decompress(part), order))
            if kind == _MATRIX and (matrix := _matrix(part, order)) is not None:
                found[matrix[0]] = matrix[1]
    except (struct.error, zlib.error, ValueError, KeyError, StopIteration) as error:
        raise DataError(f"{path}: the file is damaged ({type(error).__name__}); fetch it again.") from None
    return found


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """The data elements in a row: type and contents."""
    place = 0
    while place < len(data):
        kind, size = struct.unpack_from(order + "II", data, place)
        if kind >> 16:  # a small element: its size beside its type, its contents where the size would be
            yield kind & 0xFFFF, data[place + 4 : place + 4 + (kind >> 16)]
            place += 8
            continue
        contents = data[place + 8 : place + 8 + size]
        if len(contents) < size:
            raise ValueError("cut short")
        yield kind, contents
        place += 8 + size if kind == _COMPRESSED else 8 + -(-size // 8) * 8


def _matrix(data: bytes, order: str) -> tuple[str, Array] | None:
    """A matrix element's name and array, None where it is not of real numbers."""
    parts = _elements(data, order)
    (flags,) = struct.unpack_from(order + "I", next(parts)[1])
    shape = np.frombuffer(next(parts)[1], order + "i4")
    name = next(parts)[1].decode("latin-1")
    if flags & 0xFF not in _NUMERIC or flags & _COMPLEX:
        return None
    kind, numbers = next(parts)
    values = np.frombuffer(numbers, order + _TYPES[kind])
    return name, values.reshape(tuple(int(n) for n in shape), order="F").astype(values.dtype.newbyteorder("="))
