"""What a safetensors member holds: names, types, shapes and places, without copying the data."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeco.bundle.limits import MAX_NAME, MAX_RANK, MAX_TENSOR_HEADER
from edgeco.bundle.text import parse_json, shown
from edgeco.errors import BundleError

NUMPY_TYPES = {"F32": "float32", "F16": "float16", "I8": "int8", "U8": "uint8", "I32": "int32", "I64": "int64"}
"""Types a bundle may hold, by their safetensors name."""


class Tensor(NamedTuple):
    """One tensor as it lies in its member: little-endian, row by row."""

    dtype: str
    """Its numpy name."""
    shape: tuple[int, ...]
    data: memoryview

    def array(self) -> NDArray[np.generic]:
        """A fresh, writable array."""
        little = np.dtype(self.dtype).newbyteorder("<")
        return np.frombuffer(self.data, little).reshape(self.shape).astype(self.dtype)


def read_tensors(member: memoryview, name: str) -> dict[str, Tensor]:
    """Tensors of a safetensors member by name; every byte belongs to exactly one of them.

    Args:
        member: its contents.
        name: its name, for messages.

    Raises:
        BundleError: the header is damaged, a type is not in ``NUMPY_TYPES``, or sizes, shapes and places disagree.
    """
    length = int.from_bytes(member[:8], "little")
    if len(member) < 8 or length > len(member) - 8:
        raise BundleError(f"{name} is cut short: it holds no whole safetensors header.")
    if length > MAX_TENSOR_HEADER:
        raise BundleError(f"{name} has a header of {length} bytes; the limit is {MAX_TENSOR_HEADER}.")
    header = parse_json(member[8 : 8 + length], f"the header of {name}")
    header.pop("__metadata__", None)
    data = member[8 + length :]
    tensors: dict[str, Tensor] = {}
    places: list[tuple[int, int]] = []
    for key, record in header.items():
        dtype, shape, begin, end = _read_record(record, key, name)
        if end > len(data) or end - begin != math.prod(shape) * np.dtype(dtype).itemsize:
            raise BundleError(f"tensor {shown(key)} of {name} has a place that does not fit its shape or the file.")
        tensors[key] = Tensor(dtype, shape, data[begin:end])
        places.append((begin, end))
    position = 0
    for begin, end in sorted(places):
        if begin != position:
            raise BundleError(f"{name} has a gap or an overlap between its tensors.")
        position = end
    if position != len(data):
        raise BundleError(f"{name} holds bytes that belong to no tensor.")
    return tensors


def _read_record(record: object, key: str, name: str) -> tuple[str, tuple[int, ...], int, int]:
    """Numpy type, shape, first byte and end of one header record."""
    if not isinstance(record, dict) or set(record) != {"dtype", "shape", "data_offsets"}:
        raise BundleError(f"tensor {shown(key)} of {name} is not described as safetensors describes one.")
    kind, shape, place = record["dtype"], record["shape"], record["data_offsets"]
    dtype = NUMPY_TYPES.get(kind) if isinstance(kind, str) else None
    if dtype is None:
        known = ", ".join(NUMPY_TYPES)
        raise BundleError(f"tensor {shown(key)} of {name} is of type {shown(str(kind))}; a bundle takes {known}.")
    whole = isinstance(shape, list) and isinstance(place, list) and len(place) == 2
    if not whole or not all(type(number) is int and number >= 0 for number in (*shape, *place)):
        raise BundleError(f"tensor {shown(key)} of {name} has a shape or a place that is not whole numbers.")
    if len(shape) > MAX_RANK or not 0 < len(key) <= MAX_NAME:
        raise BundleError(
            f"tensor {shown(key)} of {name} has more than {MAX_RANK} axes or a name not of 1 to {MAX_NAME} characters."
        )
    return dtype, tuple(shape), place[0], place[1]
