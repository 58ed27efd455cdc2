"""TSM on MobileNetV2: some channels of each frame are those of the frame before (Lin et al., 2019, arXiv:1811.08383).

The online form: the shift goes one way, so that nothing waits. Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
FRAMES, PIXELS = 8, 224
ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks, and stride of the first of them."""
SHIFTED = 8
"""One channel in so many comes from the frame before."""


def shifted(x: Tensor, frames: int) -> Tensor:
    """(B T, C, H, W) with the first of its channels replaced by those of the frame before; zeros before the first."""
    x = x.unflatten(0, (-1, frames))
    fold = x.shape[2] // SHIFTED
    before = F.pad(x[:, :-1, :fold], (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.cat([before, x[:, :, fold:]], 2).flatten(0, 1)


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    padding = kernel // 2
    conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(channels_out)]


class Block(nn.Module):
    """Widen, depthwise, narrow; where a shortcut is, the inner part sees shifted channels."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels_in * expansion
        widen = [*_conv(channels_in, inner, 1), nn.ReLU6()] if expansion != 1 else []
        depthwise = [*_conv(inner, inner, 3, stride, groups=inner), nn.ReLU6()]
        self.conv = nn.Sequential(*widen, *depthwise, *_conv(inner, channels_out, 1))
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(B T, C, H, W) to (B T, C', H / stride, W / stride)."""
        if not self.residual:
            return self.conv(x)  # type: ignore[no-any-return]
        return x + self.conv(shifted(x, frames))  # type: ignore[no-any-return]


class TsmMobileNetV2(nn.Module):
    """MobileNetV2 with shifts on clips (B, 3, T, H, W), returning logits of every frame (B, T, classes).

    Args:
        classes: classes told apart.
        consensus: return the mean of the frames' logits (B, classes), as training does.
        rows: stages, as ``ROWS``.
    """

    def __init__(
        self, classes: int = 27, consensus: bool = False, rows: Sequence[tuple[int, int, int, int]] = ROWS
    ) -> None:
        super().__init__()
        self.features = nn.ModuleList([nn.Sequential(*_conv(3, 32, 3, 2), nn.ReLU6())])
        before = 32
        for expansion, after, count, stride in rows:
            for i in range(count):
                self.features.append(Block(before, after, stride if i == 0 else 1, expansion))
                before = after
        self.features.append(nn.Sequential(*_conv(before, 1280, 1), nn.ReLU6()))
        self.classifier = nn.Linear(1280, classes)
        self.consensus = consensus

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) to logits (B, T, classes)."""
        frames = x.shape[2]
        x = x.transpose(1, 2).flatten(0, 1)
        for part in self.features:
            x = part(x, frames) if isinstance(part, Block) else part(x)
        x = self.classifier(x.mean((2, 3))).unflatten(0, (-1, frames))
        return x.mean(1) if self.consensus else x


def tsm_mobilenetv2(classes: int = 27, consensus: bool = False) -> TsmMobileNetV2:
    """Online TSM-MobileNetV2: an answer at every frame, without delay."""
    return TsmMobileNetV2(classes, consensus)


tsm_mobilenetv2.clip = (3, FRAMES, PIXELS, PIXELS)  # type: ignore[attr-defined]
tsm_mobilenetv2.mean, tsm_mobilenetv2.std = MEAN, STD  # type: ignore[attr-defined]
tsm_mobilenetv2.fps = 15.0  # type: ignore[attr-defined]
