"""One pass keeps what a second one over all numbers at once would find."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgeco.calibration.observer import BINS, Observer

FLOATS = st.floats(-(2.0**127), 2.0**127, width=32, allow_nan=False, allow_infinity=False)
PIECES = st.lists(arrays.arrays(np.float32, st.integers(0, 12), elements=FLOATS), min_size=1, max_size=5)


def whole(pieces: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """The histogram of all numbers in one go, in plain numpy, and its upper end."""
    numbers = np.abs(np.concatenate([piece.ravel() for piece in pieces])).astype(np.float64)
    peak = numbers.max(initial=0.0)
    if peak == 0:
        return np.array([len(numbers)] + [0] * (BINS - 1)), 0.0
    limit = 2.0 ** max(math.floor(math.log2(peak)) + 1, -100)
    if peak >= limit:  # log2 rounds down just below a power of two
        limit *= 2
    if peak < limit / 2 and limit > 2.0**-100:
        limit /= 2
    return np.bincount(np.floor(numbers / limit * BINS).astype(int), minlength=BINS), limit


@settings(max_examples=150)
@given(PIECES)
def test_pieces_in_any_order_give_the_histogram_of_all(pieces: list[np.ndarray]) -> None:
    expected, limit = whole(pieces)
    for order in (pieces, pieces[::-1]):
        observer = Observer()
        for piece in order:
            assert observer.add(piece) is None
        assert observer.limit == limit
        np.testing.assert_array_equal(observer.bins, expected)
        assert observer.count == sum(map(np.size, pieces))
        assert observer.zeros == sum(int((piece == 0).sum()) for piece in pieces)


@pytest.mark.parametrize("scale", [1e-28, 1e-6, 1.0, 1e6, 1e35])
def test_extremes_are_exact_at_any_scale(scale: float) -> None:
    rng = np.random.default_rng(0)
    pieces = [(rng.standard_normal((3, 50)) * scale * 4**i).astype(np.float32) for i in range(4)]
    observer = Observer()
    for piece in pieces:
        observer.add(piece)
    joined = np.concatenate(pieces, axis=None)
    assert (observer.low, observer.high) == (joined.min(), joined.max())
    assert observer.peak == np.abs(joined).max() < observer.limit <= 2 * observer.peak
    np.testing.assert_array_equal(observer.bins, whole(pieces)[0])


def test_a_power_of_two_falls_into_the_interval_that_it_begins() -> None:
    observer = Observer()
    for number in (1.0, 2.0, 4.0):
        observer.add(np.float32([number]))
    assert observer.limit == 8
    assert observer.bins.nonzero()[0].tolist() == [BINS // 8, BINS // 4, BINS // 2]


def test_what_is_no_number_is_told_and_not_taken() -> None:
    observer = Observer()
    observer.add(np.float32([1.0, -2.0]))
    assert observer.add(np.float32([3.0, np.nan])) == "NaN"
    assert observer.add(np.float32([np.inf, np.nan])) == "NaN"
    assert observer.add(np.float32([5.0, -np.inf])) == "infinite"
    assert observer.add(np.float32([-np.inf, np.nan]), absent=True) == "NaN"
    assert (observer.low, observer.high, observer.count) == (-2.0, 1.0, 2)


def test_what_stands_for_nothing_is_left_out_and_counted() -> None:
    observer = Observer()
    assert observer.add(np.float32([-np.inf, 0.5, -3.4e38, -1e9]), absent=True) is None
    assert (observer.low, observer.high, observer.count, observer.absent) == (-1e9, 0.5, 2, 2)
    assert observer.add(np.float32([-np.inf]), absent=True) is None
    assert (observer.count, observer.absent) == (2, 3)


def test_nothing_but_zeros_is_a_dead_tensor() -> None:
    observer = Observer()
    observer.add(np.zeros((4, 4), np.float32))
    assert (observer.peak, observer.limit, observer.count, observer.zeros) == (0.0, 0.0, 16, 16)


@given(PIECES, PIECES)
def test_one_that_is_resumed_goes_on_as_if_nothing_had_been(before: list[np.ndarray], after: list[np.ndarray]) -> None:
    through = Observer()
    for piece in before:
        through.add(piece)
    resumed = Observer.resume(np.array(through.numbers()), through.bins)
    for piece in after:
        through.add(piece)
        resumed.add(piece)
    assert resumed.numbers()[:5] == through.numbers()[:5] and resumed.limit == through.limit
    np.testing.assert_array_equal(resumed.bins, through.bins)


def test_extremes_of_channels_are_those_of_all_pieces() -> None:
    rng = np.random.default_rng(4)
    pieces = [(rng.standard_normal((1, 5, 3, 2)) * np.arange(1, 6).reshape(5, 1, 1)).astype(np.float32) for _ in "123"]
    whole = Observer()
    for piece in pieces:
        whole.add(piece, channels=True)
    assert whole.channels is not None
    by_channel = np.concatenate(pieces).transpose(1, 0, 2, 3).reshape(5, -1)
    np.testing.assert_array_equal(whole.channels, [by_channel.min(1), by_channel.max(1)])
    plain = Observer()
    plain.add(pieces[0])
    assert plain.channels is None
