"""Real handwritten digits that move over a noisy background: clips drawn with known digit and way."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeco.models.digit_motion import CLIP_SHAPE, WAYS
from edgeco.train.data import Case, Data
from edgeco.train.data.case import Held
from edgeco.train.mat import read_mat

_, FRAMES, HEIGHT, WIDTH = CLIP_SHAPE
SIDE = 16
"""Pixels of a digit's image."""
SLOWEST, FASTEST = 0.6, 2.4
"""Pixels from frame to frame."""

Clip = NDArray[np.uint8]


def read_digits(path: Path) -> Data:
    """The digits of ``MNIST_vs_USPS.mat``, a case each: one frame (16, 16) from 0 to 1, in the group of its origin.

    Raises:
        DataError: the file cannot be read, or is another.
    """
    arrays = read_mat(path)
    cases = []
    for origin, images, classes in (("mnist", "X_src", "Y_src"), ("usps", "X_tar", "Y_tar")):
        digits = arrays[classes].ravel().astype(int) - 1
        for i, digit in enumerate(digits):
            image = arrays[images][:, i].reshape(1, SIDE, SIDE).astype(np.float32)
            cases.append(Case(f"{origin} {i}", int(digit), origin, None, Held(image / max(float(image.max()), 1e-6))))
    return Data(tuple(cases), tuple(map(str, range(10))))


def clip(rng: np.random.Generator, digit: NDArray[np.float32], way: int, frames: int = FRAMES) -> Clip:
    """A digit's image (16, 16) on its way over a background: (frames, 32, 32) in uint8."""
    path = _path(rng, way, frames)
    shape = _shape(rng)
    strength = rng.uniform(0.55, 1.0)
    ground = _ground(rng, frames)
    drawn = np.empty((frames, HEIGHT, WIDTH), np.float32)
    for i, (x, y) in enumerate(path):
        matrix = np.hstack([shape, [[x], [y]]]) @ _CENTRED
        ink = cv2.warpAffine(digit, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
        drawn[i] = ground[i] * (1 - ink) + strength * ink
    drawn *= 1 + rng.uniform(0, 0.1) * np.sin(np.arange(frames) * rng.uniform(0.1, 0.8))[:, None, None]
    drawn += rng.normal(0, rng.uniform(0.01, 0.12), drawn.shape)
    return np.clip(np.round(255 * drawn), 0, 255).astype(np.uint8)


_CENTRED = np.array([[1, 0, -(SIDE - 1) / 2], [0, 1, -(SIDE - 1) / 2], [0, 0, 1.0]])


def _path(rng: np.random.Generator, way: int, frames: int) -> NDArray[np.float64]:
    """Where the digit's middle is in every frame, (frames, 2): at an even pace, with a hand's drift and tremor."""
    axis, sign = divmod(way, 2)
    speed = rng.uniform(SLOWEST, FASTEST)
    step = np.zeros(2)
    step[axis] = speed * (1 if sign else -1)
    step[1 - axis] = rng.uniform(-0.3, 0.3) * speed
    pace = 1 + 0.2 * np.sin(np.arange(frames) * rng.uniform(0.2, 0.8) + rng.uniform(0, 6))
    path = np.cumsum(step * pace[:, None], axis=0)
    middle = np.array([WIDTH - 1, HEIGHT - 1]) / 2
    reach = np.abs(path[-1] - path[0]) / 2
    room = np.maximum(0.5, 7.5 - reach)  # most of the digit stays in the frame
    centre = middle + rng.uniform(-1, 1, 2) * room
    centred: NDArray[np.float64] = path - path.mean(axis=0) + centre
    return centred + rng.normal(0, rng.uniform(0, 0.25), path.shape)


def _shape(rng: np.random.Generator) -> NDArray[np.float64]:
    """Slant, turn and size (2, 2) of a digit."""
    turn, slant = rng.uniform(-0.2, 0.2), rng.uniform(-0.15, 0.15)
    size = np.exp(rng.uniform(np.log(0.85), np.log(1.25), 2))
    cos, sin = np.cos(turn), np.sin(turn)
    shape: NDArray[np.float64] = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, slant], [0, 1]]) * size
    return shape


def _ground(rng: np.random.Generator, frames: int) -> NDArray[np.float32]:
    """A soft texture that drifts a little, (frames, 32, 32)."""
    grain = cv2.GaussianBlur(rng.normal(size=(HEIGHT, WIDTH)).astype(np.float32), (0, 0), rng.uniform(0.7, 4.0))
    texture = np.asarray(grain * (rng.uniform(0, 0.16) / max(float(grain.std()), 1e-6)) + rng.uniform(0.05, 0.3))
    drift = rng.normal(0, 0.06, 2)
    moved = [
        cv2.warpAffine(
            texture, np.array([[1, 0, drift[0] * i], [0, 1, drift[1] * i]]), (WIDTH, HEIGHT), borderMode=cv2.BORDER_WRAP
        )
        for i in range(frames)
    ]
    return np.clip(np.stack(moved), 0, 0.6).astype(np.float32)


def draw(data: Data, number: int, seed: int, frames: int = FRAMES) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Clips (number, frames, 32, 32) of these digits and their classes, every pair of digit and way alike often."""
    rng = np.random.default_rng((seed, 3))
    images = by_digit(data)
    classes = np.arange(number) % (10 * len(WAYS))
    drawn = [
        clip(rng, pool[int(rng.integers(len(pool)))], int(label) % len(WAYS), frames)
        for label in classes
        for pool in [images[int(label) // len(WAYS)]]
    ]
    return np.stack(drawn), classes


def by_digit(data: Data) -> list[NDArray[np.float32]]:
    """The images of every digit, (number, 16, 16) each."""
    return [np.stack([case.array()[0] for case in data if case.label == digit]) for digit in range(10)]
