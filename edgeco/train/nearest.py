"""One nearest neighbour: what a network has to beat to be worth its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Clips = tuple[NDArray[Any], NDArray[np.int64]]


def nearest_accuracy(known: Clips, asked: Clips) -> float:
    """Share of clips whose nearest known clip, by the Euclidean distance of all values, is of their class.

    Example:
        >>> known = np.array([[0.0], [1.0]]), np.array([0, 1])
        >>> nearest_accuracy(known, (np.array([[0.1], [0.2], [0.9]]), np.array([0, 1, 1])))
        0.6666666666666666
    """
    values = known[0].reshape(len(known[0]), -1).astype(np.float32)
    norms = (values.astype(np.float64) ** 2).sum(1)
    right = 0
    for start in range(0, len(asked[0]), 256):
        block = asked[0][start : start + 256].reshape(-1, values.shape[1]).astype(np.float32)
        nearest = (norms - 2 * (block @ values.T)).argmin(1)
        right += int((known[1][nearest] == asked[1][start : start + 256]).sum())
    return right / len(asked[0])
