"""ST-GCN: graph convolution over the joints of a skeleton (Yan et al., 2018, arXiv:1801.07455).

As in the implementation of Hedegaard et al. (2022, arXiv:2203.11009), from which parameter names are taken: a graph
convolution of its own per part of the neighbourhood, each with a learned mask.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeco.models.skeleton import LAYOUTS, Layout, SkeletonNet, adjacency, skeleton_clip


class GraphConv(nn.Module):
    """Sum over itself, inward and outward neighbours: joints mixed by a matrix, then channels by another.

    Args:
        original: channels first, then joints, and no shortcut, as first published.
    """

    A: Tensor

    def __init__(self, channels_in: int, channels_out: int, layout: Layout, original: bool = False) -> None:
        super().__init__()
        self.original = original
        self.register_buffer("A", adjacency(layout))
        self.graph_attn = nn.Parameter(torch.ones_like(self.A))
        self.g_conv = nn.ModuleList(nn.Conv2d(channels_in, channels_out, 1) for _ in self.A)
        self.bn = nn.BatchNorm2d(channels_out)
        if not original:
            self.gcn_residual = nn.Identity() if channels_in == channels_out else widening(channels_in, channels_out)
        for conv in self.g_conv:
            nn.init.normal_(conv.weight, 0, math.sqrt(2 / (len(self.A) * conv.weight.numel())))  # type: ignore[arg-type, operator]
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.bn.weight, 1e-6)

    def mixed(self, x: Tensor) -> Tensor:
        """(N, C, T, V) to (N, C', T, V), before norm and shortcut."""
        matrices = self.A * self.graph_attn
        pairs = zip(self.g_conv, matrices, strict=True)
        parts = [conv(x) @ matrix if self.original else conv(x @ matrix) for conv, matrix in pairs]
        return parts[0] + parts[1] + parts[2]  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V) to (N, C', T, V)."""
        y = self.bn(self.mixed(x))
        return F.relu(y if self.original else y + self.gcn_residual(x))


def widening(channels_in: int, channels_out: int) -> nn.Sequential:
    """A shortcut to another number of channels."""
    conv = nn.Conv2d(channels_in, channels_out, 1)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out))


def _make(star: bool, classes: int, layout: str, persons: int, width: int, original: bool = False) -> SkeletonNet:
    skeleton = LAYOUTS[layout]

    def layer(_: int, a: int, b: int) -> nn.Module:
        return GraphConv(a, b, skeleton, original)

    return SkeletonNet(layer, skeleton, classes, star, persons, width, original=original)


def st_gcn(
    classes: int = 60, layout: str = "ntu", persons: int = 2, width: int = 64, original: bool = False
) -> SkeletonNet:
    """ST-GCN as published: padded in time, strided twice, an answer every fourth frame.

    With `original` as first published and in pyskl, whose graph convolutions have no shortcuts of their own.
    """
    return _make(False, classes, layout, persons, width, original)


def st_gcn_star(classes: int = 60, layout: str = "ntu", persons: int = 2, width: int = 64) -> SkeletonNet:
    """ST-GCN*: neither stride nor padding in time, an answer every frame."""
    return _make(True, classes, layout, persons, width)


for _factory in (st_gcn, st_gcn_star):
    _factory.clip, _factory.fps, _factory.input = skeleton_clip(), 30.0, "array"  # type: ignore[attr-defined]
