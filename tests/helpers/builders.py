"""What the tests of the build side share: a user's files, small networks, and what an error must look like."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from edgeco.errors import EdgecoError


def one_sentence(error: EdgecoError) -> str:
    """The message of an error, which must be one line that ends once."""
    said = str(error)
    assert "\n" not in said and said.endswith(".") and not said.endswith(".."), said
    return said


def written(path: Path, text: str) -> Path:
    """A text file, where it was asked for."""
    path.write_text(text, encoding="utf-8")
    return path


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network with statistics and gains that are not those of a fresh one, ready for inference."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            numbers = torch.rand(tensor.shape, generator=generator)
            tensor.copy_(numbers - 0.4 if tensor.ndim > 1 else numbers + 0.5)
    return net.eval()


class PictureNet(nn.Module):
    """Clips (B, channels, T, H, W) to 4 numbers: unpadded in time, norms, a mean over the clip."""

    clip = (3, 6, 12, 16)

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, 6, 3, padding=(0, 1, 1), bias=False)
        self.norm = nn.BatchNorm3d(6)
        self.head = nn.Linear(6, 4)
        randomised(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3, 4)))


class PooledPictureNet(PictureNet):
    """The same behind a pooling, so that no convolution reads the frame."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.avg_pool3d(x, (1, 2, 2)))


class SensorNet(nn.Module):
    """Readings (B, 4, T) to 5 numbers."""

    clip = (4, 10)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.Tanh(), nn.Conv1d(8, 8, 2, groups=8))
        self.head = nn.Linear(8, 5)
        randomised(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(2))


class SkeletonNet(nn.Module):
    """Joints (B, 3, T, 5) to 4 numbers: along the skeleton, then along time."""

    clip = (3, 9, 5)

    def __init__(self) -> None:
        super().__init__()
        self.bones = nn.Parameter(torch.zeros(5, 5))
        self.conv = nn.Conv2d(3, 6, (4, 1))
        self.head = nn.Linear(6, 4)
        randomised(self)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.einsum("nctv,vw->nctw", x, self.bones)
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


class TwoAnswers(PictureNet):
    """The class, and the mean of the features."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = torch.relu(self.norm(self.conv(x)))
        pooled = features.mean((2, 3, 4))
        return {"label": self.head(pooled), "features": pooled}


class Gated(PictureNet):
    """Squeeze-and-excitation over the clip: a stream can know the past alone."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        x = x * x.mean((2, 3, 4), keepdim=True).sub(1).sigmoid()
        return self.head(x.mean((2, 3, 4)))


class Branching(PictureNet):
    """Its forward looks at the data."""

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0:  # the data decide here
            x = -x
        return super().forward(x)
