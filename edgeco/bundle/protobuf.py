"""The wire form of Protocol Buffers, as far as reading an ONNX graph's structure and appending to it takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from edgeco.errors import BundleError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    """One field of a message: an integer for ``VARINT``, bytes otherwise."""

    number: int
    wire: int
    value: int | memoryview

    @property
    def message(self) -> memoryview:
        """The bytes of an embedded message or text; refused where the field is something else."""
        if isinstance(self.value, int) or self.wire != BYTES:
            raise BundleError("its protobuf structure is damaged")
        return self.value


def read_fields(message: memoryview) -> Iterator[Field]:
    """Walk the fields of one message; the last ends exactly where the message does.

    Raises:
        BundleError: the bytes are not a protobuf message.
    """
    position, end = 0, len(message)
    while position < end:
        tag, position = read_varint(message, position)
        number, wire = tag >> 3, tag & 7
        if not number or tag >= 2**32:
            raise BundleError("its protobuf structure is damaged")
        if wire == VARINT:
            value, position = read_varint(message, position)
            yield Field(number, wire, value)
            continue
        if wire == BYTES:
            length, position = read_varint(message, position)
        elif wire in (FIXED64, FIXED32):
            length = 8 if wire == FIXED64 else 4
        else:
            raise BundleError("its protobuf structure is damaged")
        if position + length > end:
            raise BundleError("its protobuf structure is cut short")
        yield Field(number, wire, message[position : position + length])
        position += length


def read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """An unsigned integer of up to 64 bits and the position after it."""
    value = shift = 0
    while position < len(message) and shift < 70:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), position
        shift += 7
    raise BundleError("its protobuf structure is cut short")


def varint(value: int) -> bytes:
    """Encode a non-negative integer."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def integer(number: int, value: int) -> bytes:
    """An integer field."""
    return varint(number << 3 | VARINT) + varint(value)


def head(number: int, length: int) -> bytes:
    """What stands before the ``length`` bytes of a text, bytes or message field."""
    return varint(number << 3 | BYTES) + varint(length)
