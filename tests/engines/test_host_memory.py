"""Host memory: the same bytes for numpy and for ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from edgeco.engines.host import ALIGNMENT, HostBuffer, HostMemory
from edgeco.errors import EngineError

MEMORY = HostMemory()


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 1, 7, 3)])
def test_buffers_are_aligned_filled_and_shared_with_onnxruntime(dtype: str, shape: tuple[int, ...]) -> None:
    buffer = MEMORY.allocate(shape, dtype, 3)
    assert (buffer.shape, buffer.dtype) == (shape, np.dtype(dtype))
    assert buffer.address % ALIGNMENT == 0
    assert (buffer.array == 3).all()
    assert isinstance(buffer.value, onnxruntime.OrtValue)
    assert buffer.value is buffer.value
    assert buffer.value.data_ptr() == buffer.address
    MEMORY.fill(buffer, 7)
    assert (buffer.value.numpy() == 7).all()


def test_a_border_of_minus_infinity() -> None:
    assert np.isneginf(MEMORY.allocate((2, 2), "float16", float("-inf")).array).all()


def test_windows_and_elements_are_views() -> None:
    buffer = MEMORY.allocate((6, 2, 3), "float32")
    buffer.array[:] = np.arange(36).reshape(6, 2, 3)
    window, element = MEMORY.window(buffer, 2, 3), MEMORY.element(buffer, 4)
    assert window.shape == (3, 2, 3)
    assert element.shape == (2, 3)
    assert window.address == buffer.address + 2 * 24
    assert element.value.data_ptr() == buffer.address + 4 * 24
    MEMORY.fill(element, -1)
    assert (buffer.array[4] == -1).all()
    assert (window.array[2] == -1).all()
    assert (buffer.array[[0, 1, 2, 3, 5]] != -1).all()


@pytest.mark.parametrize(("start", "length"), [(-1, 2), (5, 2), (0, 7), (2, -1)])
def test_windows_beyond_the_buffer_are_refused(start: int, length: int) -> None:
    with pytest.raises(EngineError, match="does not lie"):
        MEMORY.window(MEMORY.allocate((6,), "uint8"), start, length)


def test_write_takes_any_strides_and_read_is_a_copy() -> None:
    buffer = MEMORY.allocate((3, 4), "float32")
    array = np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::2].T
    assert not array.flags.c_contiguous
    MEMORY.write(buffer, array)
    read = MEMORY.read(buffer)
    np.testing.assert_array_equal(read, array)
    MEMORY.fill(buffer, 0)
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("array", [np.zeros((1, 4), np.float32), np.zeros((3, 4)), np.zeros((4, 3), np.float32)])
def test_write_neither_broadcasts_nor_converts(array: np.ndarray) -> None:
    buffer = MEMORY.allocate((3, 4), "float32", 5)
    with pytest.raises(EngineError, match=r"float32\(3, 4\)"):
        MEMORY.write(buffer, array)
    assert (buffer.array == 5).all()


def test_copy_is_between_equals() -> None:
    source, destination = MEMORY.allocate((2, 2), "int8", 4), MEMORY.allocate((2, 2), "int8")
    copy = MEMORY.copier(destination, source)
    for value in (4, 5):
        MEMORY.fill(source, value)
        copy()
        assert (destination.array == value).all()
    with pytest.raises(EngineError, match="cannot copy"):
        MEMORY.copier(MEMORY.allocate((1, 2, 2), "int8"), source)
    with pytest.raises(EngineError, match="cannot copy"):
        MEMORY.copier(MEMORY.allocate((2, 2), "uint8"), source)


def test_scattered_arrays_and_other_memories_are_refused() -> None:
    with pytest.raises(EngineError, match="contiguous"):
        HostBuffer(np.zeros((4, 4))[:, ::2])
    with pytest.raises(EngineError, match="host memory"):
        MEMORY.read(object())  # type: ignore[arg-type]


def test_too_large_a_buffer_is_one_sentence() -> None:
    with pytest.raises(EngineError, match="no memory for a buffer of"):
        MEMORY.allocate((2**40, 2**20), "float32")
