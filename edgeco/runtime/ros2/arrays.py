"""Skeletons and other numbers of ``std_msgs/Float32MultiArray`` as arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from edgeco.errors import FrameError


class _Dimension(Protocol):
    size: int


class _Layout(Protocol):
    dim: Sequence[_Dimension]
    data_offset: int


class ArrayMessage(Protocol):
    """The fields of ``std_msgs/Float32MultiArray``."""

    layout: _Layout
    data: Any


def decode_array(message: ArrayMessage, shape: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The numbers of a message in the shape of a network's input.

    A layout, if the message has one, must have the sizes of ``shape`` once sizes of 1 are left out of both; strides
    are not looked at, for elements are in order. Without a layout the count decides.

    Raises:
        FrameError: the sizes do not fit.
    """
    shape = tuple(shape)
    sizes = tuple(int(dimension.size) for dimension in message.layout.dim)
    if sizes and [size for size in sizes if size != 1] != [size for size in shape if size != 1]:
        raise FrameError(f"an array of {_by(sizes)} numbers came where the network takes {_by(shape)}")
    begin, count = int(message.layout.data_offset), math.prod(shape)
    values = np.asarray(message.data, np.float32)
    if values.size - begin != count:
        raise FrameError(f"an array of {values.size - begin} numbers came where the network takes {_by(shape)}")
    return values[begin:].reshape(shape)


def _by(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes)) or "1"
