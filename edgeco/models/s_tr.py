"""S-TR: the joints of every frame attend to each other (Plizzari et al., 2021, arXiv:2008.07404).

Layers 1 to 3 are those of ST-GCN; from the fourth on self-attention takes the place of the graph.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeco.models.skeleton import LAYOUTS, SkeletonNet, skeleton_clip
from edgeco.models.stgcn import GraphConv

HEADS = 8
GRAPH_LAYERS = 3
"""Layers before attention begins."""


class Attention(nn.Module):
    """Self-attention over the joints of each frame by itself.

    In training every head loses half of the joints it could look at, as published.
    """

    def __init__(self, channels_in: int, channels_out: int, heads: int = HEADS) -> None:
        super().__init__()
        self.heads, self.key, self.value = heads, channels_out // 4, channels_out
        self.qkv_conv = nn.Conv2d(channels_in, 2 * self.key + self.value, 1)
        self.attn_out = nn.Conv2d(self.value, self.value, 1)
        for conv in (self.qkv_conv, self.attn_out):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out")
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V) to (N, C', T, V)."""
        n, _, t, v = x.shape
        query, key, value = (
            part.reshape(n, self.heads, -1, t, v).permute(0, 3, 1, 4, 2)  # (N, T, heads, V, width)
            for part in self.qkv_conv(x).split([self.key, self.key, self.value], 1)
        )
        weights = (query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)).softmax(-1)
        if self.training:
            weights = self._dropped(weights)
        mixed = (weights @ value).permute(0, 2, 4, 1, 3).reshape(n, self.value, t, v)
        return self.attn_out(mixed)  # type: ignore[no-any-return]

    def _dropped(self, weights: Tensor) -> Tensor:
        kept = torch.rand(*weights.shape[:-2], 1, weights.shape[-1], device=weights.device) < 0.5
        weights = weights * kept
        return weights / (weights.sum(-1, keepdim=True) + 1e-8)


class JointAttention(nn.Module):
    """Attention in place of a graph convolution: norm of every joint's channels, attention, shortcut, norm."""

    def __init__(self, channels_in: int, channels_out: int, joints: int) -> None:
        super().__init__()
        self.data_bn = nn.BatchNorm1d(channels_in * joints)
        self.attention_conv = Attention(channels_in, channels_out)
        self.bn = nn.BatchNorm2d(channels_out)
        self.shortcut = channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V) to (N, C', T, V)."""
        n, c, t, v = x.shape
        y = self.data_bn(x.transpose(2, 3).reshape(n, c * v, t)).reshape(n, c, v, t).transpose(2, 3)
        y = self.attention_conv(y)
        return F.relu(self.bn(y + x if self.shortcut else y))


def _make(star: bool, classes: int, layout: str, persons: int, width: int) -> SkeletonNet:
    skeleton = LAYOUTS[layout]

    def layer(number: int, a: int, b: int) -> nn.Module:
        return GraphConv(a, b, skeleton) if number <= GRAPH_LAYERS else JointAttention(a, b, skeleton.joints)

    return SkeletonNet(layer, skeleton, classes, star, persons, width)


def s_tr(classes: int = 60, layout: str = "ntu", persons: int = 2, width: int = 64) -> SkeletonNet:
    """S-TR: padded in time, strided twice, an answer every fourth frame."""
    return _make(False, classes, layout, persons, width)


def s_tr_star(classes: int = 60, layout: str = "ntu", persons: int = 2, width: int = 64) -> SkeletonNet:
    """S-TR*: neither stride nor padding in time, an answer every frame."""
    return _make(True, classes, layout, persons, width)


for _factory in (s_tr, s_tr_star):
    _factory.clip, _factory.fps, _factory.input = skeleton_clip(), 30.0, "array"  # type: ignore[attr-defined]
