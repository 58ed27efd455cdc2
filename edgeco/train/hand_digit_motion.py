"""The training script of ``hand-digit-motion``: real digits, of which test and training share none, in drawn clips.

The shipped weights were made by::

    python -m edgeco.train.hand_digit_motion --data MNIST_vs_USPS.mat --out hand-digit-motion.safetensors
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeco.models.digit_motion import FPS, LABELS, MEAN, STD, WAYS, DigitMotion
from edgeco.train.config import Recipe
from edgeco.train.data import Data
from edgeco.train.digits import FRAMES, by_digit, clip, draw, read_digits
from edgeco.train.script import Clips, Task, main_of

FRACTIONS = (0.65, 0.1, 0.25)
"""Of the digits' images: to learn from, to validate, to test."""
TESTED, KNOWN = 1200, 6000
"""Clips drawn to validate and to test, and from each part that a nearest neighbour knows."""
EARLY = 0.35
"""Share of the clips that begin in mid-clip, led by copies of that frame, as a stream is that has just begun."""


RECIPE = Recipe(steps=3000, batch=64, peak=4e-3, average=0.995, validate_every=250)
"""Of the shipped weights."""


def normalise(clips: NDArray[np.uint8]) -> Tensor:
    """Gray clips (B, T, H, W) -> normalised clips (B, 1, T, H, W)."""
    return (torch.from_numpy(clips.astype(np.float32) / 255).unsqueeze(1) - MEAN[0]) / STD[0]


@dataclass(frozen=True)
class Drawn:
    """Batches of newly drawn clips: a function of seed and step."""

    images: list[NDArray[np.float32]]
    size: int
    seed: int

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng((self.seed, 2, step))
        labels = rng.integers(len(LABELS), size=self.size)
        clips = []
        for label in labels:
            pool = self.images[label // len(WAYS)]
            made = clip(rng, pool[int(rng.integers(len(pool)))], int(label) % len(WAYS))
            if rng.random() < EARLY:
                made = made[np.maximum(np.arange(FRAMES) - rng.integers(1, FRAMES - 2), 0)]
            clips.append(made)
        return normalise(np.stack(clips)), torch.from_numpy(labels)


class DigitTask(Task):
    """What the common script needs to know of this network."""

    recipe = RECIPE
    labels = LABELS
    fps = FPS

    def fresh(self) -> DigitMotion:
        return DigitMotion()

    def parts(self, path: Path, seed: int) -> tuple[Data, Data, Data]:
        train, validate, test = read_digits(path).split(FRACTIONS, by="case", seed=seed)
        return train, validate, test

    def batches(self, data: Data, recipe: Recipe) -> Drawn:
        return Drawn(by_digit(data), recipe.batch, recipe.seed)

    def clips(self, data: Data, seed: int) -> Clips:
        return draw(data, TESTED, seed)

    def known(self, data: Data, seed: int) -> Clips:
        return draw(data, KNOWN, seed)

    def entering(self, frames: NDArray[np.uint8]) -> Tensor:
        return normalise(frames)

    def shown(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.repeat(frames[..., None], 3, axis=-1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the network, write its weights, and tell its accuracy on digits it has not seen."""
    main_of(DigitTask(), nn.CrossEntropyLoss(label_smoothing=0.02), arguments, main.__doc__)


if __name__ == "__main__":
    main()
