"""X3D: efficient video networks grown one axis at a time (Feichtenhofer, 2020, arXiv:2004.04730).

Sizes XS and S differ in clip length only, as do S and M in frame size; parameter names are those of the published
checkpoints, so that their weights load by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

MEAN = (0.45, 0.45, 0.45)
STD = (0.225, 0.225, 0.225)

STEM_WIDTH = 12
WIDTH_FACTOR = 2.0
BOTTLENECK = 2.25
STAGES = ((1, 1), (2, 2), (5, 4), (3, 8))
"""Blocks before the depth factor, and width relative to the first stage."""


@dataclass(frozen=True)
class Size:
    """One member of the family."""

    frames: int
    pixels: int
    frame_stride: int
    depth: float = 2.2


SIZES = {
    "xs": Size(frames=4, pixels=160, frame_stride=12),
    "s": Size(frames=13, pixels=160, frame_stride=6),
    "m": Size(frames=16, pixels=224, frame_stride=5),
    "l": Size(frames=16, pixels=312, frame_stride=5, depth=5.0),
}


def round_width(width: float, multiplier: float, divisor: int = 8) -> int:
    """Width times multiplier, rounded to a multiple of `divisor` but never by more than a tenth down."""
    scaled = width * multiplier
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


class SqueezeExcite(nn.Module):
    """Gates channels by their mean over the frame, or over the whole clip.

    Args:
        channels: channels gated.
        scope: "frame" (each frame by its own mean: streams exactly) or "clip" (as published).
    """

    def __init__(self, channels: int, scope: str) -> None:
        super().__init__()
        reduced = round_width(channels, 0.0625)
        self.fc1 = nn.Conv3d(channels, reduced, 1)
        self.fc2 = nn.Conv3d(reduced, channels, 1)
        self.over = (3, 4) if scope == "frame" else (2, 3, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to the same."""
        gate: Tensor = self.fc2(F.relu(self.fc1(x.mean(self.over, keepdim=True))))
        return x * gate.sigmoid()


class Branch(nn.Module):
    """The bottleneck of a block: 1x1x1, depthwise 3x3x3, 1x1x1."""

    def __init__(self, inner: int, channels_in: int, channels_out: int, stride: int, excite: str | None) -> None:
        super().__init__()
        self.a = nn.Conv3d(channels_in, inner, 1, bias=False)
        self.a_bn = nn.BatchNorm3d(inner)
        self.b = nn.Conv3d(inner, inner, 3, stride=(1, stride, stride), padding=1, groups=inner, bias=False)
        self.b_bn = nn.BatchNorm3d(inner)
        self.se = SqueezeExcite(inner, excite) if excite else nn.Identity()
        self.c = nn.Conv3d(inner, channels_out, 1, bias=False)
        self.c_bn = nn.BatchNorm3d(channels_out)
        nn.init.zeros_(self.c_bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T, H / stride, W / stride)."""
        x = F.relu(self.a_bn(self.a(x)))
        x = F.silu(self.se(self.b_bn(self.b(x))))
        return self.c_bn(self.c(x))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Residual block; the first of a stage halves the frame and widens the shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, excite: str | None) -> None:
        super().__init__()
        if stride != 1 or channels_in != channels_out:
            self.branch1 = nn.Conv3d(channels_in, channels_out, 1, stride=(1, stride, stride), bias=False)
            self.branch1_bn = nn.BatchNorm3d(channels_out)
        self.branch2 = Branch(int(channels_out * BOTTLENECK), channels_in, channels_out, stride, excite)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T, H / stride, W / stride)."""
        shortcut = self.branch1_bn(self.branch1(x)) if hasattr(self, "branch1") else x
        return F.relu(shortcut + self.branch2(x))


class Stem(nn.Module):
    """Convolution over space, then depthwise over time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_xy = nn.Conv3d(3, width, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False)
        self.conv = nn.Conv3d(width, width, (5, 1, 1), padding=(2, 0, 0), groups=width, bias=False)
        self.bn = nn.BatchNorm3d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) to (B, width, T, H / 2, W / 2)."""
        return F.relu(self.bn(self.conv(self.conv_xy(x))))


class Head(nn.Module):
    """Expands, pools over the clip, classifies."""

    def __init__(self, width: int, frames: int, pixels: int, classes: int) -> None:
        super().__init__()
        inner = int(width * BOTTLENECK)
        side = math.ceil(pixels / 32)
        self.conv_5 = nn.Conv3d(width, inner, 1, bias=False)
        self.conv_5_bn = nn.BatchNorm3d(inner)
        self.pool = nn.AvgPool3d((frames, side, side), stride=1)
        self.lin_5 = nn.Conv3d(inner, 2048, 1, bias=False)
        self.dropout = nn.Dropout(0.5)
        self.projection = nn.Linear(2048, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, h, w) to logits (B, classes)."""
        x = self.pool(F.relu(self.conv_5_bn(self.conv_5(x))))
        x = self.dropout(F.relu(self.lin_5(x)))
        return self.projection(x.flatten(1))  # type: ignore[no-any-return]


class X3D(nn.Module):
    """An X3D network on clips (B, 3, T, H, W), returning logits (B, classes).

    Args:
        size: a member of ``SIZES``.
        classes: classes told apart.
        excite: scope of squeeze-and-excitation, "frame" or "clip" (as published).
        pixels: side of the frame, if another than the size's own.
    """

    s2: nn.Module
    s3: nn.Module
    s4: nn.Module
    s5: nn.Module

    def __init__(self, size: Size, classes: int = 400, excite: str = "frame", pixels: int | None = None) -> None:
        super().__init__()
        width = round_width(STEM_WIDTH, WIDTH_FACTOR)
        self.s1 = _container(pathway0_stem=Stem(width))
        first = width
        for i, (repeats, factor) in enumerate(STAGES):
            out = round_width(first, factor)
            blocks = {}
            for j in range(math.ceil(size.depth * repeats)):
                stride = 2 if j == 0 else 1
                blocks[f"pathway0_res{j}"] = Block(width, out, stride, excite if j % 2 == 0 else None)
                width = out
            self.add_module(f"s{i + 2}", _container(**blocks))
        self.head = Head(width, size.frames, pixels or size.pixels, classes)

    def features(self, x: Tensor) -> Tensor:
        """Pre-pooling features (B, 192, T, H / 32, W / 32)."""
        for stage in (self.s1, self.s2, self.s3, self.s4, self.s5):
            for block in stage.children():
                x = block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) to logits (B, classes)."""
        return self.head(self.features(x))  # type: ignore[no-any-return]


def _container(**modules: nn.Module) -> nn.Module:
    made = nn.Module()
    for name, module in modules.items():
        made.add_module(name, module)
    return made


def _factory(name: str) -> Callable[..., X3D]:
    size = SIZES[name]

    def make(classes: int = 400, excite: str = "frame", pixels: int | None = None) -> X3D:
        return X3D(size, classes, excite, pixels)

    make.__name__ = make.__qualname__ = f"x3d_{name}"
    make.__doc__ = f"X3D-{name.upper()}: {size.frames} frames of {size.pixels} pixels."
    make.clip = (3, size.frames, size.pixels, size.pixels)  # type: ignore[attr-defined]
    make.mean, make.std = MEAN, STD  # type: ignore[attr-defined]
    make.fps = 30.0 / size.frame_stride  # type: ignore[attr-defined]
    return make


x3d_xs, x3d_s, x3d_m, x3d_l = (_factory(name) for name in SIZES)
