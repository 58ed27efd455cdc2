"""Networks for tests of adapters: every kind of layer, and adapters as if something had been learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeco.adapters import Delta

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {}
"""Layers by what is peculiar in them, and the shape of their input."""


def _add(name: str, layer: nn.Module, *shape: int) -> None:
    LAYERS[name] = (layer, shape)


_add("1x1x1", nn.Conv3d(3, 5, 1), 2, 3, 4, 5, 5)
_add("3x3x3", nn.Conv3d(3, 5, 3, padding=1), 2, 3, 4, 5, 5)
_add("3x1x1", nn.Conv3d(3, 5, (3, 1, 1)), 2, 3, 4, 5, 5)
_add("1x3x3", nn.Conv3d(3, 5, (1, 3, 3), bias=False), 2, 3, 4, 5, 5)
_add("1x1x3", nn.Conv3d(3, 5, (1, 1, 3)), 2, 3, 4, 5, 5)
_add("9x1", nn.Conv2d(3, 5, (9, 1), padding=(4, 0), stride=(2, 1)), 2, 3, 10, 5)
_add("even", nn.Conv2d(3, 5, 4, stride=2), 2, 3, 10, 9)
_add("dilated", nn.Conv3d(3, 5, 3, dilation=(2, 1, 2), stride=(1, 2, 1)), 2, 3, 7, 6, 7)
_add("grouped", nn.Conv1d(6, 4, 3, groups=2), 2, 6, 9)
_add("depthwise", nn.Conv3d(4, 4, (3, 5, 5), groups=4, padding=(1, 2, 2)), 2, 4, 4, 6, 6)
_add("multiplied", nn.Conv2d(4, 8, 3, groups=4), 2, 4, 5, 5)
_add("reflecting", nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect"), 2, 3, 6, 6)
_add("circular", nn.Conv3d(3, 5, 3, padding=1, padding_mode="circular"), 2, 3, 4, 5, 5)
_add("replicating", nn.Conv1d(3, 5, 5, padding=2, padding_mode="replicate"), 2, 3, 9)
_add("same", nn.Conv1d(3, 5, 4, padding="same"), 2, 3, 9)
_add("transposed", nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), 2, 4, 5, 5)
_add("linear", nn.Linear(7, 5), 2, 3, 7)


class Mixed(nn.Module):
    """A clip network of a layer that is used twice, a depthwise one, attention, norms of two kinds and a head."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 8, (1, 3, 3), stride=(1, 2, 2), bias=False)
        self.norm = nn.BatchNorm3d(8)
        self.twice = nn.Conv3d(8, 8, (3, 1, 1), padding=(1, 0, 0))
        self.depth = nn.Conv3d(8, 8, 3, padding=1, groups=8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.LayerNorm(8)
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = self.depth(self.twice(self.twice(x).relu())).relu()
        x = x.mean((3, 4)).transpose(1, 2)
        x = self.last(x + self.attention(x, x, x, need_weights=False)[0])
        made: Tensor = self.head(x.mean(1))
        return made


def learn(net: nn.Module, seed: int = 0) -> nn.Module:
    """Give every adapter numbers as if it had learned something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for delta in net.modules():
            for parameter in delta.parameters() if isinstance(delta, Delta) else ():
                noise = torch.randn(parameter.shape, generator=generator) * 0.3
                parameter.copy_(noise.to(parameter.dtype))
    return net
