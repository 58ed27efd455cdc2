"""Small networks that INT8 has something to do in: dense and depthwise layers, maxima, attention, strides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from engine_parity import exported
from streaming import randomise_norms
from torch import Tensor, nn

from edgeco.bundle.manifest import Manifest
from edgeco.bundle.ranges import Ranges
from edgeco.calibration.recordings import recorded
from edgeco.calibration.rollout import observe
from edgeco.export.exported import Exported
from edgeco.export.package import manifest_of
from edgeco.spec import BuildSpec

Array = np.ndarray[Any, Any]


class Mobile(nn.Module):
    """Clips (B, 16, T, 8, 8): expand, depthwise over time and space, swish, project, residual; then a window mean."""

    clip = (16, 8, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv3d(16, 32, 1, bias=False), nn.BatchNorm3d(32), nn.ReLU())
        self.depth = nn.Sequential(nn.Conv3d(32, 32, 3, padding=1, groups=32, bias=False), nn.BatchNorm3d(32))
        self.project = nn.Sequential(nn.Conv3d(32, 16, 1, bias=False), nn.BatchNorm3d(16))
        self.dense = nn.Sequential(nn.Conv3d(16, 32, (3, 3, 3), padding=1), nn.BatchNorm3d(32), nn.ReLU())
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x + self.project(nn.functional.silu(self.depth(self.expand(x)))))
        return self.head(self.dense(x).mean((2, 3, 4)))


class Greatest(nn.Module):
    """Readings (B, 16, T): strides and dilation, a padded maximum over time, whose border is minus infinity."""

    clip = (16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(16, 32, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool1d(3, 1, 1))
        self.more = nn.Sequential(nn.Conv1d(32, 32, 3, dilation=2), nn.BatchNorm1d(32))
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.more(self.body(x)).mean(2))


class Tokens(nn.Module):
    """Features (B, T, 32) through attention over the window; the newest token answers."""

    clip = (8, 32)
    time_dim = 1

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(32, 32)
        self.layer = nn.TransformerEncoderLayer(32, 4, 256, dropout=0.0, batch_first=True)
        self.head = nn.Linear(32, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.enter(x))[:, -1])


class Round(nn.Module):
    """Readings (B, 16, T): a dense layer, then a GRU, whose state goes round."""

    clip = (16, 6)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(16, 32, 3, padding=1)
        self.cell = nn.GRU(32, 16, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(torch.relu(self.conv(x)).transpose(1, 2))[0][:, -1])


NETS: tuple[Callable[[], nn.Module], ...] = (Mobile, Greatest, Tokens, Round)


def recording_of(manifest: Manifest, steps: int, seed: int) -> Array:
    """Frames that change a little from step to step, negative ones included."""
    rng = np.random.default_rng(seed)
    frames = rng.standard_normal((steps, *manifest.inputs[0].shape)).astype(np.float32)
    for index in range(1, steps):
        frames[index] = 0.8 * frames[index - 1] + 0.6 * frames[index]
    return frames


def calibrated(net: nn.Module) -> tuple[Exported, Manifest, Ranges]:
    """A network exported, with ranges from two streams."""
    torch.manual_seed(1)
    time_dim = getattr(net, "time_dim", 2)
    step, made = exported(randomise_norms(net).eval(), net.clip, time_dim)  # type: ignore[arg-type]
    spec = BuildSpec(model="m", clip=net.clip, time_dim=time_dim)  # type: ignore[arg-type]
    manifest = manifest_of("net", spec, step, None, None, 0, 0, {})
    streams = [recording_of(manifest, manifest.timeline.valid_from + 60, seed) for seed in (1, 2)]
    return made, manifest, observe(made, manifest, recorded(manifest, streams), threads=1)
