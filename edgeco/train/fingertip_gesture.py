"""The training script of ``fingertip-gesture``, from tracks of Kazuhito00/hand-gesture-recognition-using-mediapipe.

A line of the file is the last sixteen places at some moment, and its neighbour those at the next: 99.7 % of neighbours
share frames (`recordings` tells), and the 3,707 lines are 13 recordings, of some classes a single one. A split by line
would test on what was learnt. It is by blocks of neighbours therefore, and between blocks that part as many lines are
left out as a line has frames, so that no frame is in two parts.

The shipped weights were made by::

    python -m edgeco.train.fingertip_gesture --data fingertip_tracks_train.csv --out fingertip-gesture.safetensors
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeco.models.fingertip import CLIP_SHAPE, FPS, LABELS, FingertipGesture
from edgeco.train.config import Recipe
from edgeco.train.data import Batches, Data, clip_of, read_data
from edgeco.train.loop import BatchFunction
from edgeco.train.script import Clips, Task, main_of

FRAMES = CLIP_SHAPE[1]
FRACTIONS = (0.7, 0.1, 0.2)
"""Of each class's lines: to learn from, to validate, to test."""
BLOCKS = 10
"""Runs that each class is cut into."""
EARLY = 0.3
"""Share of the clips that begin in mid-track, as a stream does that has just begun."""
_MIRRORED = np.array([0, 2, 1, 3])
"""What a class becomes in a mirror, and in time reversed: the circles change places."""


RECIPE = Recipe(steps=1500, batch=64, peak=3e-3, weight_decay=0.05, average=0.99, validate_every=100)
"""Of the shipped weights."""


def read_tracks(path: Path) -> Data:
    """The tracks, a case each, (16, 2); grouped by the recording that they are from."""
    data = read_data(path, shape=(FRAMES, 2), labels=LABELS, fps=FPS)
    return data.grouped([f"recording {i}" for i in recordings(data)])


def recordings(data: Data, most: int = 10, tolerance: float = 2e-6) -> list[int]:
    """The recording that each track is from: a new one begins where a track is not the one before, some frames later.

    Args:
        data: tracks in the order of their file.
        most: frames by which a track may be later than its neighbour; 15 - ``most`` changes of place must be equal.
        tolerance: of a change of place, which the file gives to nine digits.
    """
    moves = [np.diff(case.array(), axis=0) for case in data]
    found = [0]
    for before, after, first, second in zip(moves, moves[1:], data, data[1:], strict=False):
        goes_on = first.label == second.label and any(
            np.abs(before[k:] - after[: len(after) - k]).max() < tolerance for k in range(most + 1)
        )
        found.append(found[-1] + (not goes_on))
    return found


@dataclass(frozen=True)
class Varied:
    """Batches of tracks turned, stretched, mirrored and reversed, with the classes that then fit."""

    batches: Batches
    seed: int

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        clips, labels = self.batches(step)
        rng = np.random.default_rng((self.seed, 1, step))
        mirror, backwards = rng.random((2, len(clips))) < 0.5
        clips[mirror, 0] *= -1
        clips[backwards] = clips[backwards, :, ::-1]
        labels = np.where(mirror ^ backwards, _MIRRORED[labels], labels)
        turn = rng.uniform(-0.3, 0.3, len(clips))
        turned = np.stack([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]).transpose(2, 0, 1)
        size = np.exp(rng.uniform(np.log(0.7), np.log(1.4), (len(clips), 2, 1)))
        noise = rng.normal(0, 6e-4, clips.shape)
        return torch.from_numpy((size * (turned @ clips) + noise).astype(np.float32)), torch.from_numpy(labels)


class TrackTask(Task):
    """What the common script needs to know of this network."""

    recipe = RECIPE
    labels = LABELS
    fps = FPS

    def fresh(self) -> FingertipGesture:
        return FingertipGesture()

    def parts(self, path: Path, seed: int) -> tuple[Data, Data, Data]:
        data = read_data(path, shape=(FRAMES, 2), labels=LABELS, fps=FPS)
        learnt, validation, test = data.split(FRACTIONS, by="blocks", seed=seed, blocks=BLOCKS, gap=FRAMES)
        return learnt, validation, test

    def batches(self, data: Data, recipe: Recipe) -> BatchFunction:
        return Varied(Batches(data, FRAMES, recipe.batch, recipe.seed, early=EARLY), recipe.seed)

    def clips(self, data: Data, seed: int) -> Clips:
        return np.stack([case.array() for case in data]), np.array([case.label for case in data])

    def entering(self, frames: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(np.stack([clip_of(track) for track in frames]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the network, write its weights, and tell its accuracy on tracks that share no frame with those learnt."""
    main_of(TrackTask(), nn.CrossEntropyLoss(label_smoothing=0.05), arguments, main.__doc__)


if __name__ == "__main__":
    main()
