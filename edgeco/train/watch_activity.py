"""The training script of ``watch-activity``, from BasicMotions of the UEA archive: forty recordings of ten seconds.

Recordings are split, never torn: what tests was not learnt from in any part. The archive does not say who of the four
persons made which, so that a person may be in several parts.

The shipped weights were made by::

    python -m edgeco.train.watch_activity --data BasicMotions_TRAIN.ts --out watch-activity.safetensors
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeco.models.watch import CLIP_SHAPE, FPS, LABELS, WatchActivity
from edgeco.train.config import Recipe
from edgeco.train.data import Batches, Data, clip_of, read_data, windows
from edgeco.train.loop import BatchFunction
from edgeco.train.script import Clips, Task, main_of

FRAMES = CLIP_SHAPE[1]
FRACTIONS = (0.5, 0.1, 0.4)
"""Of each class's recordings: to learn from, to validate, to test."""
EVERY = 10
"""Frames from one tested window to the next: eight windows of a recording."""
EARLY = 0.3
"""Share of the clips that begin before their recording, as a stream does that has just begun."""


RECIPE = Recipe(steps=600, batch=32, peak=3e-3, weight_decay=0.05, average=0.99, validate_every=100)
"""Of the shipped weights."""


def varied(rng: np.random.Generator, frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """A watch that sits otherwise on the arm, and moves a little more or less: (frames, 6) turned and scaled."""
    axis = rng.normal(size=3)
    x, y, z = axis / np.linalg.norm(axis) * rng.uniform(0, 0.5)
    turn = np.linalg.matrix_power(np.eye(3) + np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) / 64, 64)
    turned = frames.reshape(-1, 2, 3) @ turn.T
    made = turned.reshape(-1, 6) * rng.uniform(0.8, 1.25) + rng.normal(0, 0.05, frames.shape)
    return np.asarray(made, np.float32)


class WatchTask(Task):
    """What the common script needs to know of this network."""

    recipe = RECIPE
    labels = LABELS
    fps = FPS

    def fresh(self) -> WatchActivity:
        return WatchActivity()

    def parts(self, path: Path, seed: int) -> tuple[Data, Data, Data]:
        learnt, validation, test = read_data(path, labels=LABELS, fps=FPS).split(FRACTIONS, by="case", seed=seed)
        return learnt, validation, test

    def batches(self, data: Data, recipe: Recipe) -> BatchFunction:
        return Batches(data, FRAMES, recipe.batch, recipe.seed, early=EARLY, augment=varied)

    def clips(self, data: Data, seed: int) -> Clips:
        found = windows(data, FRAMES, EVERY)
        frames = [data[window.case].array()[window.start : window.start + FRAMES] for window in found]
        return np.stack(frames), np.array([data[window.case].label for window in found])

    def entering(self, frames: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(np.stack([clip_of(window) for window in frames]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the network, write its weights, and tell its accuracy on recordings that it has not learnt from."""
    main_of(WatchTask(), nn.CrossEntropyLoss(label_smoothing=0.05), arguments, main.__doc__)


if __name__ == "__main__":
    main()
