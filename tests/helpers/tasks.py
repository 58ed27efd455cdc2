"""A small base network and recordings of a task that it does not know: how fast one number swings."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgeco.spec import BuildSpec
from edgeco.train.data import Case, Data
from edgeco.train.data.case import Held

SPEC = BuildSpec(model="base", clip=(2, 12))
SOURCE = '''"""A base network for tests."""

from torch import nn


def make(classes: int = 2) -> nn.Module:
    """(B, 2, 12) -> (B, classes); padded in time."""
    return nn.Sequential(
        nn.Conv1d(2, 8, 3, padding=1, bias=False),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Conv1d(8, 8, 3, padding=1),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    )


make.clip = (2, 12)
'''


def make_base(classes: int = 2) -> nn.Module:
    """The network of `SOURCE`, always with the same weights."""
    space: dict[str, object] = {}
    exec(SOURCE, space)
    torch.manual_seed(0)
    net: nn.Module = space["make"](classes)  # type: ignore[operator]
    return net.eval()


def swings(count: int = 60, frames: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Recordings (count, frames, 2) and their classes, of three."""
    rng, steps = np.random.default_rng(seed), np.arange(frames)
    classes = np.arange(count) % 3
    waves = [np.sin(steps * (0.3 + 0.3 * c) + rng.uniform(0, 6)) for c in classes]
    return np.stack([np.stack([w, 0.3 * rng.normal(size=frames)], 1) for w in waves]).astype(np.float32), classes


def swinging(count: int = 60, frames: int = 24) -> Data:
    """The same as data."""
    recordings, classes = swings(count, frames)
    cases = (
        Case(f"case {i}", int(c), f"case {i}", None, Held(x))
        for i, (x, c) in enumerate(zip(recordings, classes, strict=True))
    )
    return Data(tuple(cases), ("slow", "middle", "fast"))
