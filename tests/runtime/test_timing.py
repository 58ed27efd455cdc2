"""The clock and the percentiles."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeco.runtime.timing import Percentiles, Stages, now


def test_the_clock_counts_nanoseconds_upwards() -> None:
    start = now()
    assert isinstance(start, int)
    assert now() >= start


@given(st.lists(st.floats(1e-6, 100), min_size=1, max_size=300), st.sampled_from([50, 90, 99, 100]))
def test_percentiles_are_within_half_a_percent(samples: list[float], percent: float) -> None:
    percentiles = Percentiles()
    for sample in samples:
        percentiles.add(sample)
    exact = float(np.percentile(samples, percent, method="inverted_cdf"))
    assert percentiles.percentile(percent) == pytest.approx(exact, rel=0.0051)
    assert percentiles.max == max(samples)
    assert percentiles.mean == pytest.approx(float(np.mean(samples)))
    assert percentiles.count == len(samples)
    assert percentiles.p50 <= percentiles.p90 <= percentiles.p99 <= percentiles.max


def test_samples_beyond_the_scale_are_counted() -> None:
    percentiles = Percentiles()
    for sample in (-1.0, 0.0, 1e-12, 1e9):
        percentiles.add(sample)
    assert percentiles.count == 4
    assert percentiles.max == 1e9
    assert percentiles.p50 <= 1.01e-7
    assert percentiles.total == pytest.approx(1e9)


def test_nothing_measured_is_zero() -> None:
    summary = Percentiles().summary()
    assert summary.to_json() == {"count": 0, "mean": 0.0, "p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0}


def test_memory_does_not_grow() -> None:
    percentiles = Percentiles()
    before = sys.getsizeof(percentiles._counts)
    for index in range(20000):
        percentiles.add(index * 1e-5)
    assert sys.getsizeof(percentiles._counts) == before
    percentiles.clear()
    assert (percentiles.count, percentiles.max, percentiles.p99) == (0, 0.0, 0.0)


def test_stages_keep_their_order_and_count_failures() -> None:
    stages = Stages()
    stages.add("read", 0.25)
    with pytest.raises(KeyError), stages.measure("infer"):
        raise KeyError("x")
    stages.add("read", 0.75)
    assert list(stages) == ["read", "infer"]
    assert len(stages) == 2
    assert stages["infer"].count == 1
    assert stages.report()["read"].count == 2
    assert stages.report()["read"].mean == pytest.approx(0.5)
