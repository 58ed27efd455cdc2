"""R(2+1)D-18: every convolution over the frame, then over time (Tran et al., 2018, arXiv:1711.11248).

Parameter names are those of torchvision's checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

MEAN = (0.43216, 0.394666, 0.37645)
STD = (0.22803, 0.22145, 0.216989)
FRAMES, PIXELS = 16, 112


class Factored(nn.Sequential):
    """A convolution over the frame, and one over time; both stride."""

    def __init__(self, channels_in: int, channels_out: int, middle: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv3d(channels_in, middle, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
            nn.BatchNorm3d(middle),
            nn.ReLU(inplace=True),
            nn.Conv3d(middle, channels_out, (3, 1, 1), (stride, 1, 1), (1, 0, 0), bias=False),
        )


class Block(nn.Module):
    """Two factored convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        middle = channels_in * channels_out * 27 // (channels_in * 9 + 3 * channels_out)
        first = Factored(channels_in, channels_out, middle, stride)
        self.conv1 = nn.Sequential(first, nn.BatchNorm3d(channels_out), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(Factored(channels_out, channels_out, middle), nn.BatchNorm3d(channels_out))
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            shortcut = nn.Conv3d(channels_in, channels_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(channels_out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T / stride, H / stride, W / stride)."""
        return F.relu(self.conv2(self.conv1(x)) + self.downsample(x))


class R2Plus1d(nn.Module):
    """R(2+1)D on clips (B, 3, T, H, W), returning logits (B, classes).

    Args:
        classes: classes told apart.
        width: channels of the first stage.
        middle: channels between the two convolutions of the stem.
        depths: blocks of each stage; every stage but the first halves frames and their number.
    """

    def __init__(
        self, classes: int = 400, width: int = 64, middle: int = 45, depths: Sequence[int] = (2, 2, 2, 2)
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, middle, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
            nn.BatchNorm3d(middle),
            nn.ReLU(inplace=True),
            nn.Conv3d(middle, width, (3, 1, 1), padding=(1, 0, 0), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        before = width
        for i, depth in enumerate(depths):
            after = width * 2**i
            blocks = [Block(before if j == 0 else after, after, 2 if i and j == 0 else 1) for j in range(depth)]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
            before = after
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.fc = nn.Linear(before, classes)

    def features(self, x: Tensor) -> Tensor:
        """Pre-pooling features (B, 8 width, T / 8, H / 16, W / 16)."""
        for name, part in self.named_children():
            if name not in ("avgpool", "fc"):
                x = part(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) to logits (B, classes)."""
        return self.fc(self.avgpool(self.features(x)).flatten(1))  # type: ignore[no-any-return]


def r2plus1d_18(classes: int = 400) -> R2Plus1d:
    """R(2+1)D-18: 16 frames of 112 pixels, an answer every eighth frame."""
    return R2Plus1d(classes)


r2plus1d_18.clip = (3, FRAMES, PIXELS, PIXELS)  # type: ignore[attr-defined]
r2plus1d_18.mean, r2plus1d_18.std = MEAN, STD  # type: ignore[attr-defined]
r2plus1d_18.fps = 15.0  # type: ignore[attr-defined]
