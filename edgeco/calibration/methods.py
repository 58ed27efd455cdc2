"""From a histogram of magnitudes to the magnitude up to which INT8 tells numbers apart.

What lies beyond is clipped to it, what lies below is rounded to one of 127 steps: a lower threshold clips more and
rounds finer. Zeros are exact at every threshold. ``entropy`` follows Migacz, "8-bit inference with TensorRT" (GTC
2017): the threshold whose quantised distribution loses least information, by the divergence of Kullback and Leibler.
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np

from edgeco.bundle.ranges import LEVELS, Method
from edgeco.calibration.observer import BINS, Observer
from edgeco.errors import SpecError

Array = np.ndarray[Any, Any]

METHOD: Method = "percentile"
"""What chooses a range unless another method is named."""

PERCENTILE = 99.9999
"""Share of magnitudes kept by the method of that name, in percent: where a million numbers were seen or more, one in a
million is clipped, and all others are told apart more finely; of fewer, none is."""

CANDIDATES = 300
"""Thresholds that are tried, each about a hundredth above the one before."""

MOST_CLIPPED = 0.1
"""Share of the numbers that ``entropy`` clips at most: where few were seen, to lose most of them looks like no loss."""

FEWEST = LEVELS + 1
"""Intervals below the least threshold: fewer could not be told from the quantised numbers themselves."""


def check_method(method: str, percentile: float = PERCENTILE) -> None:
    """Raises SpecError for a method that is none, or a share that is none."""
    if method not in get_args(Method):
        raise SpecError(f"There is no calibration method {method!r}; choose {', '.join(get_args(Method))}.")
    if not 0 < percentile <= 100:
        raise SpecError(f"The percentile is {percentile}; give a share above 0 and up to 100, as 99.99.")


def threshold(observer: Observer, method: Method, percentile: float = PERCENTILE) -> float:
    """The magnitude that a method chooses; 0 for a tensor that was always 0, never above the greatest seen."""
    peak = observer.peak
    if method == "max" or peak == 0:
        return peak
    width = observer.limit / BINS
    used = max(int(peak / width) + 1, 1)
    counts = observer.bins[:used].astype(np.float64)
    if method == "percentile":
        kept = np.cumsum(counts) >= counts.sum() * (percentile / 100)
        return min(float(np.argmax(kept) + 1) * width, peak)
    counts[0] -= observer.zeros
    tried = _candidates(used)
    losses = [(_divergence if method == "entropy" else _squared_error)(counts, edge) for edge in tried]
    # The first of equal losses would clip most; where nothing is lost by keeping more, keep it.
    best = tried[len(tried) - 1 - int(np.argmin(losses[::-1]))]
    return peak if best == used else min(best * width, peak)


def _candidates(used: int) -> list[int]:
    """Numbers of intervals that lie below the thresholds to try, all of them last."""
    if used <= FEWEST:
        return [used]
    return sorted({round(edge) for edge in np.geomspace(FEWEST, used, CANDIDATES)})


def _divergence(counts: Array, edge: int) -> float:
    """Information lost when magnitudes below an edge share 128 levels, and those above it are clipped to it."""
    kept = counts[:edge]
    filled = kept > 0
    if kept.sum() < (1 - MOST_CLIPPED) * counts.sum():
        return float("inf")
    level = np.repeat(np.arange(FEWEST), np.diff(np.arange(FEWEST + 1) * edge // FEWEST))
    members = np.bincount(level, weights=filled, minlength=FEWEST)
    means = np.bincount(level, weights=kept, minlength=FEWEST) / np.maximum(members, 1)
    # Clipped numbers join the highest there are: in an interval of its own, what they become would have no counterpart.
    reference = kept[filled]
    reference[-1] += counts[edge:].sum()
    p, q = reference / counts.sum(), means[level][filled] / kept.sum()
    return float((p * np.log(p / q)).sum())


def _squared_error(counts: Array, edge: int) -> float:
    """Sum of squared differences of magnitudes, in intervals, from their nearest of 127 steps up to an edge."""
    middles = np.arange(len(counts)) + 0.5
    step = edge / LEVELS
    nearest = np.minimum(np.rint(middles / step), LEVELS) * step
    return float((counts * (middles - nearest) ** 2).sum())
