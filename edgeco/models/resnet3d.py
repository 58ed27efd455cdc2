"""Slow and I3D, the 3-D residual networks of Feichtenhofer et al. (2019, arXiv:1812.03982).

Bottlenecks whose first convolution may look over time. Parameter names are those of PySlowFast's checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)
DEPTHS = (3, 4, 6, 3)
"""Blocks of the four stages of a ResNet-50."""


@dataclass(frozen=True)
class Form:
    """One member of the family: frames, side of a frame, and how far each convolution looks over time.

    Attributes:
        stem: frames that the stem's convolution sees.
        taps: for each stage, those of its blocks in turn, over again.
        halved: whether a pool behind the first stage keeps every second frame.
    """

    frames: int
    pixels: int
    stem: int
    taps: tuple[tuple[int, ...], ...]
    halved: bool = False
    frame_stride: int = 8


SLOW = Form(frames=8, pixels=256, stem=1, taps=((1,), (1,), (3,), (3,)))
I3D = Form(frames=8, pixels=224, stem=5, taps=((3,), (3, 1), (3, 1), (1, 3)), halved=True)


class Bottleneck(nn.Module):
    """Over time, over space, and back to many channels."""

    def __init__(self, channels_in: int, inner: int, channels_out: int, taps: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Conv3d(channels_in, inner, (taps, 1, 1), padding=(taps // 2, 0, 0), bias=False)
        self.a_bn = nn.BatchNorm3d(inner)
        self.b = nn.Conv3d(inner, inner, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
        self.b_bn = nn.BatchNorm3d(inner)
        self.c = nn.Conv3d(inner, channels_out, 1, bias=False)
        self.c_bn = nn.BatchNorm3d(channels_out)
        nn.init.zeros_(self.c_bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T, H / stride, W / stride)."""
        x = F.relu(self.a_bn(self.a(x)))
        x = F.relu(self.b_bn(self.b(x)))
        return self.c_bn(self.c(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A bottleneck beside a shortcut."""

    def __init__(self, channels_in: int, inner: int, channels_out: int, taps: int, stride: int) -> None:
        super().__init__()
        if stride != 1 or channels_in != channels_out:
            self.branch1 = nn.Conv3d(channels_in, channels_out, 1, (1, stride, stride), bias=False)
            self.branch1_bn = nn.BatchNorm3d(channels_out)
        self.branch2 = Bottleneck(channels_in, inner, channels_out, taps, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T, H / stride, W / stride)."""
        shortcut = self.branch1_bn(self.branch1(x)) if hasattr(self, "branch1") else x
        return F.relu(shortcut + self.branch2(x))


class Stem(nn.Module):
    """Convolution over time and space, then a pool over space."""

    def __init__(self, width: int, taps: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, width, (taps, 7, 7), (1, 2, 2), (taps // 2, 3, 3), bias=False)
        self.bn = nn.BatchNorm3d(width)
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) to (B, width, T, H / 4, W / 4)."""
        return self.pool(F.relu(self.bn(self.conv(x))))  # type: ignore[no-any-return]


class Head(nn.Module):
    """Pools every pathway over the clip and classifies what they say together.

    Args:
        channels: of each pathway.
        frames: elements that each pathway has of a clip.
        side: of its features, in their own pixels.
    """

    def __init__(self, channels: Sequence[int], frames: Sequence[int], side: int, classes: int) -> None:
        super().__init__()
        self.pools = nn.ModuleList(nn.AvgPool3d((t, side, side), stride=1) for t in frames)
        self.dropout = nn.Dropout(0.5)
        self.projection = nn.Linear(sum(channels), classes)

    def forward(self, *paths: Tensor) -> Tensor:
        """(B, C, T, h, w) of each pathway to logits (B, classes)."""
        pooled = [pool(path).flatten(1) for pool, path in zip(self.pools, paths, strict=True)]
        return self.projection(self.dropout(torch.cat(pooled, 1)))  # type: ignore[no-any-return]


def add_stage(
    place: nn.Module, pathway: int, channels_in: int, inner: int, taps: Sequence[int], depth: int, stride: int
) -> int:
    """Add one stage of a pathway to a container; returns its channels."""
    out = 4 * inner
    for i in range(depth):
        before = channels_in if i == 0 else out
        block = Block(before, inner, out, taps[i % len(taps)], stride if i == 0 else 1)
        place.add_module(f"pathway{pathway}_res{i}", block)
    return out


class ResNet3d(nn.Module):
    """A 3-D ResNet-50 on clips (B, 3, T, H, W), returning logits (B, classes).

    Args:
        form: ``SLOW`` or ``I3D``.
        classes: classes told apart.
        pixels: side of the frame, if another than the form's own.
        width: channels of the stem.
        depths: blocks of each stage.
    """

    def __init__(
        self,
        form: Form,
        classes: int = 400,
        pixels: int | None = None,
        width: int = 64,
        depths: Sequence[int] = DEPTHS,
    ) -> None:
        super().__init__()
        self.s1 = nn.Module()
        self.s1.add_module("pathway0_stem", Stem(width, form.stem))
        channels = width
        for i, depth in enumerate(depths):
            stage = nn.Module()
            channels = add_stage(stage, 0, channels, width * 2**i, form.taps[i], depth, 2 if i else 1)
            self.add_module(f"s{i + 2}", stage)
            if i == 0 and form.halved:
                self.pathway0_pool = nn.MaxPool3d((2, 1, 1), (2, 1, 1))
        side = math.ceil((pixels or form.pixels) / 32)
        self.head = Head([channels], [form.frames // 2 if form.halved else form.frames], side, classes)

    def features(self, x: Tensor) -> Tensor:
        """Pre-pooling features (B, 32 width, T or T / 2, H / 32, W / 32)."""
        for name, part in self.named_children():
            if name == "pathway0_pool":
                x = part(x)
            elif name != "head":
                for block in part.children():
                    x = block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) to logits (B, classes)."""
        return self.head(self.features(x))  # type: ignore[no-any-return]


def slow_r50(classes: int = 400, pixels: int | None = None) -> ResNet3d:
    """Slow-8x8-R50: time is looked at in the last two stages alone."""
    return ResNet3d(SLOW, classes, pixels)


def i3d_r50(classes: int = 400, pixels: int | None = None) -> ResNet3d:
    """I3D-8x8-R50: time is looked at in every stage, and halved behind the first."""
    return ResNet3d(I3D, classes, pixels)


for _factory, _form in ((slow_r50, SLOW), (i3d_r50, I3D)):
    _factory.clip = (3, _form.frames, _form.pixels, _form.pixels)  # type: ignore[attr-defined]
    _factory.mean, _factory.std = MEAN, STD  # type: ignore[attr-defined]
    _factory.fps = 30.0 / _form.frame_stride  # type: ignore[attr-defined]
