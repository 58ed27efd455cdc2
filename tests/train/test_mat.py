"""Matrices of MATLAB files: every type and order, and one sentence about what is damaged."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
from mat_bytes import mat_file

from edgeco.errors import DataError
from edgeco.train.mat import read_mat

ARRAYS = {
    "X_src": np.random.default_rng(0).normal(size=(5, 3)),
    "bytes": np.arange(7, dtype=np.uint8)[None],
    "a": np.arange(-6, 6, dtype=np.int16).reshape(3, 4),
    "one": np.array([[2.5]], np.float32),
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
def test_matrices_come_back(tmp_path: Path, order: str, compressed: bool) -> None:
    (tmp_path / "x.mat").write_bytes(mat_file(ARRAYS, order, compressed))
    found = read_mat(tmp_path / "x.mat")
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert np.array_equal(found[name], array) and found[name].dtype == array.dtype


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    path, whole = tmp_path / "x.mat", mat_file(ARRAYS)
    with pytest.raises(DataError, match="cannot be read"):
        read_mat(path)
    for data, told in ((b"x" * 200, "no MATLAB 5 file"), (b"", "no MATLAB 5 file"), (whole[:-9], "damaged")):
        path.write_bytes(data)
        with pytest.raises(DataError, match=told):
            read_mat(path)


@pytest.mark.parametrize("place", range(128, 420, 7))
def test_a_damaged_byte_is_no_crash(tmp_path: Path, place: int) -> None:
    data = bytearray(mat_file(ARRAYS))
    data[place] ^= 0xFF
    (tmp_path / "x.mat").write_bytes(data)
    with contextlib.suppress(DataError):
        read_mat(tmp_path / "x.mat")


def test_the_real_file() -> None:
    root = os.environ.get("EDGECO_TEST_DATA")
    path = Path(root or "", "images", "MNIST_vs_USPS.mat")
    if not root or not path.is_file():
        pytest.skip("EDGECO_TEST_DATA names no folder with images/MNIST_vs_USPS.mat")
    found = read_mat(path)
    assert {name: array.shape for name, array in found.items()} == {
        "X_src": (256, 2000),
        "X_tar": (256, 1800),
        "Y_src": (2000, 1),
        "Y_tar": (1800, 1),
    }
    assert found["X_src"].min() >= 0 and found["X_src"].max() <= 1 and set(found["Y_tar"].ravel()) == set(range(1, 11))
