"""Skeletons: which joints hang together, and the trunk that all skeleton networks share.

Clips are (B, C, T, V, M): coordinates, frames, joints, persons. A network is ten blocks, each joints first, then time
(Yan et al., 2018, arXiv:1801.07455). As published they pad in time and stride twice; their ``*`` form does neither, so
that it answers at every frame, exactly (Hedegaard et al., 2022, arXiv:2203.11009).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FRAMES, PERSONS, COORDINATES = 300, 2, 3
TAPS = 9
"""Frames that the convolution over time of each block sees."""
WIDTHS = (1, 1, 1, 1, 2, 2, 2, 4, 4, 4)
"""Channels of the ten blocks, relative to the first."""


@dataclass(frozen=True)
class Layout:
    """Joints of a skeleton, and for each edge the joint and the neighbour nearer to the centre."""

    joints: int
    inward: tuple[tuple[int, int], ...]


def _from_one(*edges: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    return tuple((i - 1, j - 1) for i, j in edges)


LAYOUTS = {
    "ntu": Layout(
        25,
        _from_one(
            *((1, 2), (2, 21), (3, 21), (4, 3), (5, 21), (6, 5), (7, 6), (8, 7), (9, 21), (10, 9), (11, 10), (12, 11)),
            *((13, 1), (14, 13), (15, 14), (16, 15), (17, 1), (18, 17), (19, 18), (20, 19)),
            *((22, 23), (23, 8), (24, 25), (25, 12)),
        ),
    ),
    "openpose": Layout(
        18,
        (
            *((4, 3), (3, 2), (7, 6), (6, 5), (13, 12), (12, 11), (10, 9), (9, 8), (11, 5), (8, 2), (5, 1), (2, 1)),
            *((0, 1), (15, 0), (14, 0), (17, 15), (16, 14)),
        ),
    ),
    "hand": Layout(21, tuple((i, i - 1 if i % 4 != 1 else 0) for i in range(1, 21))),
}
"""NTU RGB+D; OpenPose with 18 points; a hand of 21 points (the wrist, then every finger from its root)."""


def adjacency(layout: Layout) -> Tensor:
    """(3, V, V): each joint itself; its inward neighbours; its outward ones. Columns sum to one, or to zero."""
    inward = torch.zeros(layout.joints, layout.joints)
    for joint, neighbour in layout.inward:
        inward[neighbour, joint] = 1
    parts = (torch.eye(layout.joints), inward, inward.T)
    return torch.stack([part / part.sum(0).clamp_min(1) for part in parts])


def bones(x: Tensor, layout: Layout, dim: int = -2) -> Tensor:
    """Every joint less its inward neighbour, the centre zero; `dim` counts joints."""
    nearer = list(range(layout.joints))
    for joint, neighbour in layout.inward:
        nearer[joint] = neighbour
    return x - x.index_select(dim, torch.tensor(nearer, device=x.device))


class TemporalConv(nn.Module):
    """Convolution over time of every joint by itself, and its norm."""

    def __init__(self, channels_in: int, channels_out: int, taps: int, stride: int, padding: int) -> None:
        super().__init__()
        self.t_conv = nn.Conv2d(channels_in, channels_out, (taps, 1), (stride, 1), (padding, 0))
        self.bn = nn.BatchNorm2d(channels_out)
        nn.init.kaiming_normal_(self.t_conv.weight, mode="fan_out")
        nn.init.zeros_(self.t_conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V) to (N, C', T', V)."""
        return self.bn(self.t_conv(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Joints, then time, beside a shortcut, which is cut as short as a convolution without padding leaves the rest."""

    def __init__(
        self, gcn: nn.Module, channels_in: int, channels_out: int, stride: int, padded: bool, shortcut: bool
    ) -> None:
        super().__init__()
        self.gcn = gcn
        self.tcn = TemporalConv(channels_out, channels_out, TAPS, stride, TAPS // 2 if padded else 0)
        changes = channels_in != channels_out or stride != 1
        if shortcut:
            self.residual = TemporalConv(channels_in, channels_out, 1, stride, 0) if changes else nn.Identity()
        self.cut = 0 if padded else TAPS // 2

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, V) to (N, C', T', V)."""
        y = self.tcn(self.gcn(x))
        if hasattr(self, "residual"):
            y = y + self.residual(x[:, :, self.cut : x.shape[2] - self.cut] if self.cut else x)
        return F.relu(y)


class SkeletonNet(nn.Module):
    """A skeleton network on clips (B, 3, T, V, M), returning logits (B, classes).

    Args:
        joint_layer: from layer number (1 … 10), channels in and out to the part of a block that mixes joints.
        layout: the skeleton.
        classes: classes told apart.
        star: neither stride nor padding in time.
        persons: skeletons in a frame.
        width: channels of the first block.
        factors: channels of each block, relative to the first; where they grow, a block as published strides.
        original: norm the coordinates of all persons alike, as first published.
    """

    def __init__(
        self,
        joint_layer: Callable[[int, int, int], nn.Module],
        layout: Layout,
        classes: int,
        star: bool,
        persons: int = PERSONS,
        width: int = 64,
        factors: tuple[int, ...] = WIDTHS,
        original: bool = False,
    ) -> None:
        super().__init__()
        self.original = original
        self.data_bn = nn.BatchNorm1d((1 if original else persons) * layout.joints * COORDINATES)
        self.layers = nn.ModuleDict()
        before = COORDINATES
        for i, factor in enumerate(factors):
            after = width * factor
            stride = 2 if not star and i and after != before else 1
            gcn = joint_layer(i + 1, before, after)
            self.layers[f"layer{i + 1}"] = Block(gcn, before, after, stride, padded=not star, shortcut=i > 0)
            before = after
        self.fc = nn.Linear(before, classes)
        nn.init.normal_(self.fc.weight, 0, math.sqrt(2 / classes))

    def features(self, x: Tensor) -> Tensor:
        """Features before pooling over time (B, 4 width, T'): means over persons and joints."""
        b, c, t, v, m = x.shape
        x = self.data_bn(x.permute(0, 4, 3, 1, 2).reshape(-1, self.data_bn.num_features, t))
        x = x.reshape(b, m, v, c, t).permute(0, 1, 3, 4, 2).reshape(b * m, c, t, v)
        for layer in self.layers.values():
            x = layer(x)
        return x.reshape(b, m, *x.shape[1:]).mean((1, 4))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, V, M) to logits (B, classes)."""
        return self.fc(self.features(x).mean(2))  # type: ignore[no-any-return]


class TwoStream(nn.Module):
    """Sum of what one network says of the joints and another of the bones.

    Args:
        joint, bone: networks on clips (B, 3, T, V, M).
        layout: name of their skeleton.
    """

    def __init__(self, joint: nn.Module, bone: nn.Module, layout: str = "ntu") -> None:
        super().__init__()
        self.joint, self.bone, self.layout = joint, bone, LAYOUTS[layout]

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, V, M) to logits (B, classes)."""
        return self.joint(x) + self.bone(bones(x, self.layout))  # type: ignore[no-any-return]


def skeleton_clip(layout: str = "ntu") -> tuple[int, int, int, int]:
    """Shape of a clip without the batch."""
    return COORDINATES, FRAMES, LAYOUTS[layout].joints, PERSONS
