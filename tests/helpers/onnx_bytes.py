"""ONNX models written field by field, so that tests make good and bad ones without the onnx package.

Field numbers are those of onnx.proto. Repeated fields are given as sequences of finished messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from edgeco.bundle.protobuf import head, integer

FLOAT = 1
TYPES = {"float32": FLOAT, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "float16": 10}
"""ONNX's number of a type, by numpy's name."""
EXTERNAL = 1
"""A tensor's data_location where its data lie in another file."""


def message(number: int, data: bytes) -> bytes:
    """One text, bytes or message field."""
    return head(number, len(data)) + data


def texts(number: int, values: Iterable[str]) -> bytes:
    return b"".join(message(number, value.encode()) for value in values)


def many(number: int, messages: Iterable[bytes]) -> bytes:
    return b"".join(message(number, data) for data in messages)


def node(
    op: str, inputs: Iterable[str], outputs: Iterable[str], attributes: Iterable[bytes] = (), domain: str = ""
) -> bytes:
    named = message(7, domain.encode()) if domain else b""
    return texts(1, inputs) + texts(2, outputs) + texts(4, [op]) + many(5, attributes) + named


def attribute(name: str, number: int, values: Iterable[bytes], kind: int) -> bytes:
    """An attribute whose messages stand in field ``number``; ``kind`` is its AttributeType."""
    return texts(1, [name]) + many(number, values) + integer(20, kind)


def whole(name: str, value: int) -> bytes:
    """An integer attribute."""
    return texts(1, [name]) + integer(3, value) + integer(20, 2)


def operation(op: str, inputs: Iterable[str], outputs: Iterable[str], **attributes: int | Sequence[int]) -> bytes:
    """A node whose attributes are integers, none below zero, or lists of them."""
    made = [
        whole(name, value)
        if isinstance(value, int)
        else texts(1, [name]) + b"".join(integer(8, entry) for entry in value) + integer(20, 7)
        for name, value in attributes.items()
    ]
    return node(op, inputs, outputs, made)


def constant(name: str, value: Any) -> bytes:
    """A tensor that holds an array."""
    array = np.asarray(value)
    dims = b"".join(integer(1, size) for size in array.shape)
    return dims + integer(2, TYPES[str(array.dtype)]) + texts(8, [name]) + message(9, array.tobytes())


def tensor(
    name: str, shape: Iterable[int], raw: bytes = b"", location: int = 0, places: Iterable[tuple[str, str]] = ()
) -> bytes:
    """A float32 tensor; ``places`` are the keys and values of its external_data."""
    dims = b"".join(integer(1, size) for size in shape)
    data = message(9, raw) if raw else b""
    outside = many(13, (texts(1, [key]) + texts(2, [value]) for key, value in places))
    return dims + integer(2, FLOAT) + texts(8, [name]) + data + outside + (integer(14, location) if location else b"")


def value(name: str, shape: Iterable[int | str], dtype: str = "float32") -> bytes:
    """An input or output; a text in its shape is a symbolic axis."""
    axes = many(1, (integer(1, size) if isinstance(size, int) else texts(2, [size]) for size in shape))
    return texts(1, [name]) + message(2, message(1, integer(1, TYPES[dtype]) + message(2, axes)))


def graph(
    nodes: Iterable[bytes],
    inputs: Iterable[bytes] = (),
    outputs: Iterable[bytes] = (),
    initializers: Iterable[bytes] = (),
    sparse: Iterable[bytes] = (),
    name: str = "toy",
) -> bytes:
    begin = many(1, nodes) + texts(2, [name]) + many(5, initializers)
    return begin + many(11, inputs) + many(12, outputs) + many(15, sparse)


def model(main: bytes, opset: int = 20, ir_version: int = 9) -> bytes:
    return integer(1, ir_version) + message(7, main) + message(8, integer(2, opset))


def weighted(bare: bytes, *weights: bytes) -> bytes:
    """A model with further initializers: concatenated messages merge."""
    return bare + message(7, many(5, weights))
