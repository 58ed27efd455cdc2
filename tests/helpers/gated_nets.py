"""Networks that keep time and pad in every layer, so that each has a start-up: name to network and clip shape."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Persons(nn.Module):
    """Two persons folded into the batch, several rows of every element."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(4, 4, 3, padding=2, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        rows, channels, frames, persons = x.shape
        x = x.permute(0, 3, 1, 2).reshape(rows * persons, channels, frames)
        x = F.max_pool1d(self.second(F.relu(self.first(x))), 3, 1, 1)
        return self.first.bias[:, None] + F.max_pool1d(x, 3, 1, 1).reshape(rows, persons, 4, -1).sum(1)


class Residual(nn.Module):
    """A padded branch beside its input, joined late."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(torch.sigmoid(self.b(torch.tanh(self.norm(self.a(x)))) + x) - 2, 3, 1, 1)


def conv(channels: int, out: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Module:
    """Padded so that as many elements come out as go in."""
    padding = dilation * (kernel // 2)
    return nn.Conv1d(channels, out, kernel, stride, padding, dilation)


def most(kernel: int = 3, stride: int = 1) -> nn.Module:
    """A padded maximum, whose border is the least number."""
    return nn.MaxPool1d(kernel, stride, kernel // 2)


def convolutions() -> nn.Module:
    return nn.Sequential(conv(2, 3), nn.BatchNorm1d(3), nn.Sigmoid(), conv(3, 3, 5), nn.ELU(), conv(3, 2))


def pools() -> nn.Module:
    return nn.Sequential(conv(2, 3), most(), nn.AvgPool1d(3, 1, 1), most(5))


def deep() -> nn.Module:
    """Mirrors and a ring rather than slots."""
    return nn.Sequential(conv(2, 3, 3, dilation=12), nn.Softplus(), most(9), conv(3, 2, 3, dilation=9))


def space() -> nn.Module:
    layers = [nn.Conv3d(2, 3, 3, padding=1), nn.BatchNorm3d(3), nn.ReLU(), nn.MaxPool3d(3, 1, 1)]
    return nn.Sequential(*layers, nn.Conv3d(3, 2, 3, padding=1))


def twice() -> nn.Module:
    return nn.Sequential(conv(2, 3), conv(3, 3, 3, stride=2), nn.Sigmoid(), most())


def fourth() -> nn.Module:
    return nn.Sequential(conv(2, 3), most(3, 2), conv(3, 3, 5, stride=2), nn.Sigmoid(), conv(3, 2))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolutions": (convolutions, (2, 12)),
    "pools": (pools, (2, 12)),
    "deep": (deep, (2, 30)),
    "space": (space, (2, 8, 4, 4)),
    "residual": (Residual, (2, 10, 3)),
    "persons": (Persons, (3, 12, 2)),
    "rates 1 and 2": (twice, (2, 16)),
    "rate 4": (fourth, (2, 24)),
}
