"""SlowFast: a narrow pathway sees every frame, a wide one every fourth or eighth (Feichtenhofer et al., 2019).

Parameter names are those of PySlowFast's checkpoints. There the slow pathway's frames are spread over the clip to its
very last (0, 4, 8, 13, … 31 of 32); here they are 4, or 8, frames apart, for a stream has no last frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeco.models.resnet3d import DEPTHS, MEAN, STD, Head, Stem, add_stage

BETA = 8
"""The slow pathway's channels for each of the fast one's."""
SLOW_TAPS = (1, 1, 3, 3)
FAST_STEM, FAST_TAPS = 5, (3, 3, 3, 3)


@dataclass(frozen=True)
class Form:
    """Frames of a clip, how many of them to one of the slow pathway, and the taps of the convolutions between them."""

    alpha: int
    taps: int
    frames: int = 32
    pixels: int = 224
    frame_stride: int = 2


FORMS = {"4x16": Form(alpha=8, taps=5), "8x8": Form(alpha=4, taps=7)}


class Fuse(nn.Module):
    """Hands the fast pathway's features to the slow one, at its rate."""

    def __init__(self, channels: int, taps: int, alpha: int) -> None:
        super().__init__()
        padding = (taps // 2, 0, 0)
        self.conv_f2s = nn.Conv3d(channels, 2 * channels, (taps, 1, 1), (alpha, 1, 1), padding, bias=False)
        self.bn = nn.BatchNorm3d(2 * channels)

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        """(B, C, T / alpha, h, w) and (B, c, T, h, w) to (B, C + 2 c, T / alpha, h, w)."""
        return torch.cat([slow, F.relu(self.bn(self.conv_f2s(fast)))], 1)


class SlowFast(nn.Module):
    """SlowFast-R50 on clips (B, 3, T, H, W) of the fast pathway's frames, returning logits (B, classes).

    Args:
        form: a member of ``FORMS``.
        classes: classes told apart.
        pixels: side of the frame, if another than the form's own.
        width: channels of the slow stem, a multiple of 8.
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
        self.alpha = form.alpha
        narrow = width // BETA
        self.s1 = nn.Module()
        self.s1.add_module("pathway0_stem", Stem(width, 1))
        self.s1.add_module("pathway1_stem", Stem(narrow, FAST_STEM))
        self.s1_fuse = Fuse(narrow, form.taps, form.alpha)
        slow, fast = width + 2 * narrow, narrow
        for i, depth in enumerate(depths):
            stage, last = nn.Module(), i + 1 == len(depths)
            stride = 2 if i else 1
            slow = add_stage(stage, 0, slow, width * 2**i, (SLOW_TAPS[i],), depth, stride)
            fast = add_stage(stage, 1, fast, narrow * 2**i, (FAST_TAPS[i],), depth, stride)
            self.add_module(f"s{i + 2}", stage)
            if not last:
                self.add_module(f"s{i + 2}_fuse", Fuse(fast, form.taps, form.alpha))
                slow += 2 * fast
        side = math.ceil((pixels or form.pixels) / 32)
        self.head = Head([slow, fast], [form.frames // form.alpha, form.frames], side, classes)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pre-pooling features of the slow and of the fast pathway."""
        slow, fast = x[:, :, :: self.alpha], x
        for name, part in self.named_children():
            if name.endswith("_fuse"):
                slow = part(slow, fast)
            elif name != "head":
                for place, block in part.named_children():
                    if place.startswith("pathway0"):
                        slow = block(slow)
                    else:
                        fast = block(fast)
        return slow, fast

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) to logits (B, classes)."""
        return self.head(*self.features(x))  # type: ignore[no-any-return]


def slowfast_4x16(classes: int = 400, pixels: int | None = None) -> SlowFast:
    """SlowFast-4x16-R50: 32 frames, the slow pathway sees every eighth."""
    return SlowFast(FORMS["4x16"], classes, pixels)


def slowfast_8x8(classes: int = 400, pixels: int | None = None) -> SlowFast:
    """SlowFast-8x8-R50: 32 frames, the slow pathway sees every fourth."""
    return SlowFast(FORMS["8x8"], classes, pixels)


for _factory, _form in ((slowfast_4x16, FORMS["4x16"]), (slowfast_8x8, FORMS["8x8"])):
    _factory.clip = (3, _form.frames, _form.pixels, _form.pixels)  # type: ignore[attr-defined]
    _factory.mean, _factory.std = MEAN, STD  # type: ignore[attr-defined]
    _factory.fps = 30.0 / _form.frame_stride  # type: ignore[attr-defined]
