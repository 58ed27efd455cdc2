"""Skeletons and other numbers of ROS messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_ros import CLASSES

from edgeco.errors import FrameError
from edgeco.runtime.ros2 import decode_array


def message(values: Any, *sizes: int, offset: int = 0) -> Any:
    dims = [CLASSES["std_msgs/MultiArrayDimension"](size=size) for size in sizes]
    layout = CLASSES["std_msgs/MultiArrayLayout"](dim=dims, data_offset=offset)
    return CLASSES["std_msgs/Float32MultiArray"](layout=layout, data=list(values))


NUMBERS = np.arange(12, dtype=np.float32)


@pytest.mark.parametrize("sizes", [(), (3, 4), (1, 3, 4), (3, 4, 1)])
def test_sizes_that_fit(sizes: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(decode_array(message(NUMBERS, *sizes), (3, 1, 4)), NUMBERS.reshape(3, 1, 4))


def test_an_offset_is_left_out() -> None:
    found = decode_array(message([9.0, *NUMBERS], offset=1), (3, 4))
    np.testing.assert_array_equal(found, NUMBERS.reshape(3, 4))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (message(NUMBERS, 4, 3), "an array of 4 x 3 numbers came where the network takes 3 x 4"),
        (message(NUMBERS[:11]), "an array of 11 numbers came where the network takes 3 x 4"),
        (message(NUMBERS, 12), "an array of 12 numbers came where the network takes 3 x 4"),
        (message(NUMBERS, offset=1), "an array of 11 numbers"),
        (message([]), "an array of 0 numbers"),
    ],
)
def test_sizes_that_do_not(given: Any, sentence: str) -> None:
    with pytest.raises(FrameError, match=sentence):
        decode_array(given, (3, 4))
