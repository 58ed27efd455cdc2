"""The four ways to choose a range, against plain numpy on all the numbers themselves."""

from __future__ import annotations

import numpy as np
import pytest

from edgeco.bundle.ranges import LEVELS
from edgeco.calibration.methods import check_method, threshold
from edgeco.calibration.observer import BINS, Observer
from edgeco.errors import SpecError

RNG = np.random.default_rng(3)
DATA = {
    "normal": RNG.standard_normal(60_000),
    "one-sided": np.maximum(RNG.standard_normal(60_000), 0),
    "negative": -np.abs(RNG.standard_normal(60_000)) - 0.5,
    "heavy tails": RNG.standard_t(3, 60_000) * 1e-3,
    "outliers": np.append(RNG.standard_normal(60_000), [30.0, -31.0, 35.0]),
    "uniform": RNG.uniform(-7, 7, 60_000),
    "mostly zeros": np.where(RNG.random(60_000) < 0.9, 0, RNG.gamma(2, 1, 60_000)),
}


def observed(numbers: np.ndarray) -> Observer:
    observer = Observer()
    for piece in np.array_split(numbers.astype(np.float32), 7):
        assert observer.add(piece) is None
    return observer


def quantised(numbers: np.ndarray, amax: float) -> np.ndarray:
    step = amax / LEVELS
    return np.clip(np.rint(numbers / step), -LEVELS, LEVELS) * step


@pytest.mark.parametrize("name", DATA)
def test_max_is_the_greatest_magnitude(name: str) -> None:
    assert threshold(observed(DATA[name]), "max") == np.abs(DATA[name].astype(np.float32)).max()


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("share", [50.0, 99.0, 99.9, 99.99, 100.0])
def test_percentile_is_that_of_the_magnitudes(name: str, share: float) -> None:
    observer = observed(DATA[name])
    sought = np.percentile(np.abs(DATA[name].astype(np.float32)), share, method="inverted_cdf")
    assert threshold(observer, "percentile", share) == pytest.approx(sought, abs=1.01 * observer.limit / BINS)


@pytest.mark.parametrize("name", DATA)
def test_mse_loses_as_little_as_the_best_threshold(name: str) -> None:
    numbers = DATA[name].astype(np.float32).astype(np.float64)
    peak = np.abs(numbers).max()

    def lost(amax: float) -> float:
        return float(((numbers - quantised(numbers, amax)) ** 2).mean())

    chosen = threshold(observed(numbers), "mse")
    assert lost(chosen) <= 1.02 * min(lost(peak * share) for share in np.geomspace(0.02, 1, 150))


def divergence(magnitudes: np.ndarray, width: float, edge: int) -> float:
    """Of the magnitudes' own histogram from its quantised one, written out number by number."""
    counts = [0.0] * edge
    clipped = 0.0
    for place in np.floor(magnitudes / width).astype(int):
        if place < edge:
            counts[place] += 1
        else:
            clipped += 1
    reference = list(counts)
    reference[max(place for place in range(edge) if counts[place])] += clipped
    quantised = [0.0] * edge
    for level in range(128):
        inside = range(level * edge // 128, (level + 1) * edge // 128)
        filled = [place for place in inside if counts[place]]
        for place in filled:
            quantised[place] = sum(counts[p] for p in inside) / len(filled)
    total, kept = sum(reference), sum(quantised)
    lost = 0.0
    for p, q in zip(reference, quantised, strict=True):
        if p:
            lost += p / total * np.log((p / total) / (q / kept))
    return lost


@pytest.mark.parametrize("name", ["normal", "outliers", "heavy tails", "one-sided"])
def test_entropy_loses_as_little_as_the_best_threshold(name: str) -> None:
    numbers = DATA[name][:6000] if name != "outliers" else DATA[name][-6000:]
    magnitudes = np.abs(numbers.astype(np.float32)).astype(np.float64)
    magnitudes = magnitudes[magnitudes > 0]
    observer = observed(numbers)
    width = observer.limit / BINS
    used = int(observer.peak / width) + 1
    found = threshold(observer, "entropy")
    chosen = used if found == observer.peak else round(found / width)
    losses = [divergence(magnitudes, width, edge) for edge in np.geomspace(128, used, 25).astype(int)]
    assert divergence(magnitudes, width, chosen) <= min(losses) * 1.001 + 1e-12  # tried at other thresholds


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_rare_outliers_do_not_stretch_the_range(method: str) -> None:
    observer = observed(DATA["outliers"])
    assert 2.5 < threshold(observer, method, 99.99) < 16 < threshold(observer, "max")


@pytest.mark.parametrize("method", ["max", "entropy", "percentile", "mse"])
def test_a_dead_tensor_has_no_range_and_a_constant_its_own(method: str) -> None:
    assert threshold(observed(np.zeros(100)), method) == 0
    assert threshold(observed(np.full(100, -2.5)), method) == 2.5
    assert threshold(observed(np.append(np.zeros(1000), 1e-30)), method) <= np.float32(1e-30)


@pytest.mark.parametrize("method", ["max", "entropy", "percentile", "mse"])
def test_no_method_goes_beyond_what_was_seen(method: str) -> None:
    for numbers in DATA.values():
        observer = observed(numbers)
        assert 0 < threshold(observer, method) <= observer.peak


def test_a_method_or_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(SpecError, match="no calibration method 'minmax'; choose max, entropy, percentile, mse"):
        check_method("minmax")
    for share in (0.0, -1.0, 100.5, float("nan")):
        with pytest.raises(SpecError, match="percentile"):
            check_method("percentile", share)
