"""MoViNet in its stream form, A0 to A2 (Kondratyuk et al., 2021, arXiv:2103.11511).

Convolutions look back only, gates and the head take the mean of all frames so far: every frame has an answer, without
delay. Parameter names are those of the PyTorch port of the published weights (Atze00/MoViNet-pytorch).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FRAMES = 50
HIDDEN = 2048
EPS = 1e-3


@dataclass(frozen=True)
class Layer:
    """One block: channels out and inside, taps over time, side of the kernel, stride over space."""

    out: int
    inner: int
    taps: int
    kernel: int
    stride: int = 1


def _stage(out: int, *rest: tuple[int, int, int], stride: int = 2) -> tuple[Layer, ...]:
    """A stage of blocks, each (inner, taps, kernel); the first strides."""
    return tuple(
        Layer(out, inner, taps, kernel, stride if i == 0 else 1) for i, (inner, taps, kernel) in enumerate(rest)
    )


@dataclass(frozen=True)
class Size:
    """One member of the family."""

    pixels: int
    stem: int
    stages: tuple[tuple[Layer, ...], ...]
    head: int


A0 = Size(
    172,
    8,
    (
        _stage(8, (24, 1, 5)),
        _stage(32, *[(80, 3, 3)] * 3),
        _stage(56, (184, 5, 3), (112, 3, 3), (184, 3, 3)),
        _stage(56, (184, 5, 3), *[(184, 3, 3)] * 3, stride=1),
        _stage(104, (384, 5, 3), *[(280, 1, 5)] * 2, (344, 1, 5)),
    ),
    480,
)
A1 = Size(
    172,
    16,
    (
        _stage(16, (40, 1, 5), (40, 3, 3)),
        _stage(40, (96, 3, 3), (120, 3, 3), *[(96, 3, 3)] * 2),
        _stage(64, (216, 5, 3), (128, 3, 3), (216, 3, 3), (168, 3, 3), (216, 3, 3)),
        _stage(64, (216, 5, 3), *[(216, 3, 3)] * 2, (128, 3, 3), (128, 1, 5), (216, 3, 3), stride=1),
        _stage(136, (456, 5, 3), *[(360, 1, 5)] * 3, (456, 1, 5), (456, 3, 3), (544, 1, 3)),
    ),
    600,
)
A2 = Size(
    224,
    16,
    (
        (*_stage(16, (40, 1, 5), (40, 3, 3)), Layer(16, 64, 3, 3)),
        _stage(40, (96, 3, 3), (120, 3, 3), *[(96, 3, 3)] * 2, (120, 3, 3)),
        _stage(72, (240, 5, 3), (160, 3, 3), (240, 3, 3), (192, 3, 3), (240, 3, 3)),
        _stage(72, (240, 5, 3), *[(240, 3, 3)] * 3, (144, 1, 5), (240, 3, 3), stride=1),
        _stage(144, (480, 5, 3), *[(384, 1, 5)] * 2, *[(480, 1, 5)] * 2, (480, 3, 3), (576, 1, 3)),
    ),
    640,
)
SIZES = {"a0": A0, "a1": A1, "a2": A2}


def _divisible(channels: float) -> int:
    """The nearest multiple of 8, never less by more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding before and behind that gives ceil(size / stride) places; where it is odd, more behind."""
    whole = max(kernel - (stride if size % stride == 0 else size % stride), 0)
    return whole // 2, whole - whole // 2


class Conv(nn.Module):
    """A 2-D convolution over frames, or over (time, places), with norm and activation where it has them."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: tuple[int, int] = (1, 1),
        stride: int = 1,
        groups: int = 1,
        *,
        norm: bool = True,
        active: bool = True,
    ) -> None:
        super().__init__()
        conv = nn.Conv2d(channels_in, channels_out, kernel, stride, groups=groups, bias=not norm)
        self.conv_1 = nn.Module()
        self.conv_1.add_module("conv2d", conv)
        if norm:
            self.conv_1.add_module("norm", nn.BatchNorm2d(channels_out, EPS))
        self.kernel, self.stride, self.active = kernel[0], stride, active

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H / stride, W / stride)."""
        if self.kernel > 1:
            x = F.pad(x, (*_same(x.shape[3], self.kernel, self.stride), *_same(x.shape[2], self.kernel, self.stride)))
        for part in self.conv_1.children():
            x = part(x)
        return F.hardswish(x) if self.active else x


class Depthwise(Conv):
    """Over space, then back over time; the frames kept lie between the two."""

    def __init__(self, channels: int, layer: Layer) -> None:
        super().__init__(channels, channels, (layer.kernel, layer.kernel), layer.stride, channels)
        self.taps = layer.taps
        if layer.taps > 1:
            self.conv_2 = Conv(channels, channels, (layer.taps, 1), groups=channels).conv_1

    def forward(self, x: Tensor, frames: int) -> Tensor:  # type: ignore[override]
        """(B T, C, H, W) to (B T, C, H / stride, W / stride)."""
        x = super().forward(x)
        if self.taps == 1:
            return x
        side = x.shape[2:]
        x = x.unflatten(0, (-1, frames)).transpose(1, 2).flatten(3)
        x = F.pad(x, (0, 0, self.taps - 1, 0))
        for part in self.conv_2.children():
            x = part(x)
        x = F.hardswish(x).transpose(1, 2).unflatten(3, side)
        return x.flatten(0, 1)


def running_mean(x: Tensor) -> Tensor:
    """(B, T, C) to the mean of all frames up to each."""
    return x.cumsum(1) / torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)[:, None]


class SqueezeExcite(nn.Module):
    """Gates channels by the mean over the frame and its mean over all frames so far."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = _divisible(channels // 4 * 2)
        self.fc1 = Conv(2 * channels, squeezed, norm=False)
        self.fc2 = Conv(squeezed, channels, norm=False, active=False)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B T, C, H, W) to the same."""
        present = x.mean((2, 3)).unflatten(0, (-1, frames))
        both = torch.cat([running_mean(present), present], 2).flatten(0, 1)
        gate: Tensor = self.fc2(self.fc1(both[:, :, None, None]))
        return x * (0.2 * gate + 0.5).clamp(0, 1)


class Shrink(nn.Module):
    """The mean over 3 x 3 places, of which padding is none."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, ceil(H / 2), ceil(W / 2))."""
        padding = (*_same(x.shape[3], 3, 2), *_same(x.shape[2], 3, 2))
        there = F.pad(torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device), padding)
        return F.avg_pool2d(F.pad(x, padding), 3, 2) / F.avg_pool2d(there, 3, 2)


class Block(nn.Module):
    """Widen, depthwise, gate, narrow; added to the shortcut by a learned share that begins at none."""

    def __init__(self, channels_in: int, layer: Layer) -> None:
        super().__init__()
        self.expand = Conv(channels_in, layer.inner)
        self.deep = Depthwise(layer.inner, layer)
        self.se = SqueezeExcite(layer.inner)
        self.project = Conv(layer.inner, layer.out, active=False)
        if layer.stride != 1 or channels_in != layer.out:
            shrink = [Shrink()] if layer.stride != 1 else []
            self.res = nn.Sequential(*shrink, Conv(channels_in, layer.out, active=False))
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B T, C, H, W) to (B T, C', H / stride, W / stride)."""
        y = self.project(self.se(self.deep(self.expand(x), frames), frames))
        return (self.res(x) if hasattr(self, "res") else x) + self.alpha * y  # type: ignore[no-any-return]


class MoViNet(nn.Module):
    """MoViNet's stream form on clips (B, 3, T, H, W), returning logits of every frame (B, T, classes).

    Args:
        size: a member of ``SIZES``.
        classes: classes told apart.
    """

    def __init__(self, size: Size, classes: int = 600) -> None:
        super().__init__()
        self.conv1 = Conv(3, size.stem, (3, 3), 2)
        self.blocks = nn.ModuleDict()
        before = size.stem
        for i, stage in enumerate(size.stages):
            for j, layer in enumerate(stage):
                self.blocks[f"b{i}_l{j}"] = Block(before, layer)
                before = layer.out
        self.conv7 = Conv(before, size.head)
        hidden = Conv(size.head, HIDDEN, norm=False, active=False)
        answer = Conv(HIDDEN, classes, norm=False, active=False)
        self.classifier = nn.Sequential(hidden, nn.SiLU(), nn.Dropout(0.2), answer)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) to logits (B, T, classes)."""
        frames = x.shape[2]
        x = self.conv1(x.transpose(1, 2).flatten(0, 1))
        for block in self.blocks.values():
            x = block(x, frames)
        x = self.conv7(x).mean((2, 3)).unflatten(0, (-1, frames))
        logits: Tensor = self.classifier(running_mean(x).flatten(0, 1)[:, :, None, None])
        return logits.reshape(-1, frames, logits.shape[1])


def _factory(name: str) -> Callable[..., MoViNet]:
    size = SIZES[name]

    def make(classes: int = 600) -> MoViNet:
        return MoViNet(size, classes)

    make.__name__ = make.__qualname__ = f"movinet_{name}"
    make.__doc__ = f"MoViNet-{name.upper()}-Stream: {size.pixels} pixels."
    make.clip = (3, FRAMES, size.pixels, size.pixels)  # type: ignore[attr-defined]
    make.mean, make.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # type: ignore[attr-defined]
    make.fps = 5.0  # type: ignore[attr-defined]
    return make


movinet_a0, movinet_a1, movinet_a2 = (_factory(name) for name in SIZES)
