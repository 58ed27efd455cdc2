"""Networks that strain the placement of INT8: shared weights, grouped and transposed layers, dead ones, borders."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SharedWeight(nn.Module):
    """Clips (B, 16, T, 6, 6): one weight with two biases over inputs of different ranges, and one module used twice."""

    clip = (16, 8, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(32, 16, 3, 3, 3) * 0.1)
        self.one, self.other = nn.Parameter(torch.randn(32)), nn.Parameter(torch.randn(32) - 1)
        self.twice = nn.Conv3d(32, 32, (3, 1, 1), padding=(1, 0, 0))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(F.conv3d(x, self.weight, self.one, padding=(0, 1, 1)))
        b = F.conv3d(x * 0.3 + 2, self.weight, self.other, padding=(0, 1, 1))
        return self.head(self.twice(F.relu(self.twice(a - b)) * 5).mean((2, 3, 4)))


class Widened(nn.Module):
    """Clips (B, 16, T, 6, 6): transposed convolutions, one of them depthwise; a grouped one; a dead layer."""

    clip = (16, 8, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv3d(16, 32, (3, 1, 1))
        self.apart = nn.ConvTranspose3d(32, 32, (1, 4, 4), stride=(1, 2, 2), padding=(0, 1, 1), groups=32)
        self.dense = nn.ConvTranspose3d(32, 32, (1, 4, 4), stride=(1, 2, 2), padding=(0, 1, 1))
        self.grouped = nn.Conv3d(32, 32, (3, 3, 3), groups=4)
        self.dead = nn.Conv3d(32, 32, (3, 1, 1), padding=(1, 0, 0))
        self.head = nn.Linear(32, 5)
        with torch.no_grad():
            self.dead.weight.zero_()
            self.dead.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.grouped(F.relu(self.dense(F.relu(self.apart(F.relu(self.enter(x))))))))
        return self.head((x + F.relu(self.dead(x))).mean((2, 3, 4)))


class Below(nn.Module):
    """Clips (B, 16, T, 8, 8): padded maxima of negative numbers, a padded mean, branches of unlike range."""

    clip = (16, 8, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv3d(16, 32, 1)
        self.inner = nn.Conv3d(32, 32, 3, padding=1)
        self.after = nn.Conv3d(64, 32, 1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool3d(self.enter(x) - 3, 3, (1, 2, 2), 1)
        y = F.avg_pool3d(self.inner(x), 3, 1, 1)
        y = F.max_pool3d(y, (3, 1, 1), 1, (1, 0, 0))
        return self.head(self.after(torch.cat([x, y * 20], 1)).mean((2, 3, 4)))


class Dense(nn.Module):
    """Clips (B, 16, T, 6, 6): a layer over two steps whose result, after a ReLU, is remembered by the next."""

    clip = (16, 8, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(16, 48, (2, 1, 1))
        self.second = nn.Conv3d(48, 32, 3)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(F.relu(self.first(x))).mean((2, 3, 4)))
