"""Clips for `task_packs.py`: digits of three origins that drift, and digits whose way is to be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgeco.train.digits import read_digits

FRAMES, SIDE = 6, 16
CLIP = (1, FRAMES, SIDE, SIDE)
WAYS = ((-1, 0), (1, 0), (0, -1), (0, 1))
TASKS = ("usps", "scikit-learn", "ways")

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """Clips (count, 1, frames, height, width), of mean 0 and deviation 1 about, and their classes."""

    clips: Tensor
    labels: Tensor

    def batch(self, step: int, size: int, seed: int) -> tuple[Tensor, Tensor]:
        """A batch as a function of the step alone: every epoch in another order."""
        each = len(self.labels) // size
        order = np.random.default_rng((seed, step // each)).permutation(len(self.labels))
        chosen = order[step % each * size :][:size]
        return self.clips[chosen], self.labels[chosen]


@dataclass(frozen=True)
class TaskData:
    """One task: what it learns from, what chooses learning rates, and what is reported."""

    classes: int
    train: Part
    validation: Part
    test: Part


def base_data(folder: Path) -> tuple[Part, Part]:
    """What the base learns: MNIST's digits that drift; the second part tells how well."""
    images, labels = _digits(folder, "mnist")
    clips = _drifting(images, np.random.default_rng(0))
    return _part(clips[:1700], labels[:1700]), _part(clips[1700:], labels[1700:])


def task_data(folder: Path, task: str, seed: int) -> TaskData:
    """200 cases to learn from, 300 for validation, up to 1000 to test on, drawn anew for every seed."""
    rng = np.random.default_rng(seed + 1)
    classes = 10
    if task == "usps":
        images, labels = _digits(folder, "usps")
    elif task == "scikit-learn":
        images, labels = _scikit()
    else:
        images, _ = _digits(folder, "mnist")
        classes, labels = len(WAYS), rng.integers(0, len(WAYS), len(images))
    order = rng.permutation(len(images))[:1500]
    images, labels = images[order], labels[order]
    clips = _moving(images, labels) if task == "ways" else _drifting(images, rng)
    parts = [slice(0, 200), slice(200, 500), slice(500, 1500)]
    return TaskData(classes, *(_part(clips[p], labels[p]) for p in parts))


def _digits(folder: Path, origin: str) -> tuple[Images, NDArray[np.int64]]:
    found = read_digits(folder / "images" / "MNIST_vs_USPS.mat").filter(lambda case: case.group == origin)
    order = np.random.default_rng(7).permutation(len(found))
    images = np.stack([found[int(i)].array()[0] for i in order]).astype(np.float32)
    return images, np.array([found[int(i)].label for i in order])


def _scikit() -> tuple[Images, NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    given = load_digits()
    small = torch.from_numpy(given.images / 16).float()[:, None]
    large = torch.nn.functional.interpolate(small, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return large[:, 0].numpy(), given.target.astype(np.int64)


def _drifting(images: Images, rng: np.random.Generator) -> Images:
    """Every digit drifts its own way, by up to half a pixel a frame."""
    return np.stack([_shifted(image, *rng.uniform(-0.5, 0.5, 2)) for image in images])


def _moving(images: Images, labels: NDArray[np.int64]) -> Images:
    """Every digit moves by a pixel a frame, the way its class says."""
    return np.stack([_shifted(image, *WAYS[label]) for image, label in zip(images, labels, strict=True)])


def _shifted(image: Images, down: float, right: float) -> Images:
    frames = np.zeros((FRAMES, SIDE, SIDE), np.float32)
    for i in range(FRAMES):
        y, x = round(down * (i - FRAMES / 2)), round(right * (i - FRAMES / 2))
        to = (slice(max(0, y), SIDE + min(0, y)), slice(max(0, x), SIDE + min(0, x)))
        of = (slice(max(0, -y), SIDE + min(0, -y)), slice(max(0, -x), SIDE + min(0, -x)))
        frames[i][to] = image[of]
    return frames


def _part(clips: Images, labels: NDArray[np.int64]) -> Part:
    return Part((torch.from_numpy(clips)[:, None] - 0.2) / 0.35, torch.from_numpy(labels).long())
