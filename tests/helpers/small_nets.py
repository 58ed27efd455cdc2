"""Small networks that several tests of the conversion share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Functional(nn.Module):
    """Functional calls, slices along time, two branches of unequal kernel, a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Parameter(torch.randn(4, 3, 5, 3, 3) * 0.2)
        self.narrow = nn.Conv3d(3, 4, (3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        wide = F.relu(F.conv3d(x, self.wide, padding=(0, 1, 1)))
        narrow = torch.tanh(self.narrow(x))[:, :, 1:-1]
        return torch.cat([wide, narrow, x[:, :, 2:-2]], dim=1)


class SharedWeights(nn.Module):
    """One convolution used twice, at different delays."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(F.silu(self.layer(x))) + x


class PaddedPair(nn.Module):
    """A padded convolution and a padded max-pool read one value: zeros for one, minus infinity for the other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = -x.abs() - 1
        return self.conv(x) + F.max_pool3d(x, 3, stride=1, padding=1)
