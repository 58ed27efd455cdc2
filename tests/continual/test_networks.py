"""Networks as users write them that keep time: functional calls, slices, branches, merges of time with other axes."""

from __future__ import annotations

import copy

import pytest
import torch
from small_nets import Functional, PaddedPair, SharedWeights
from streaming import assert_streams, randomise_norms
from torch import Tensor, nn
from torch.nn import functional as F


class TimeSum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        lagging, centred, leading = x[:, :, :-4], x[:, :, 2:-2], x[:, :, 4:]
        return lagging + 2 * centred - leading


class ShiftedChannels(nn.Module):
    """A temporal shift of some channels, written into a tensor of zeros."""

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        out[:, :2, 1:] = x[:, :2, :-1]
        out[:, 2:4, :-1] = x[:, 2:4, 1:]
        out[:, 4:] = x[:, 4:]
        return out * 2 + 1


class Frames2d(nn.Module):
    """A 2-D backbone over time merged with the batch, its features mixed over time."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.mix = nn.Conv1d(4, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, t, h, w = x.shape
        frames = x.permute(0, 2, 1, 3, 4).reshape(b * t, c, h, w)
        features = self.backbone(frames).view(b, t, -1)
        return self.mix(features.transpose(1, 2))


class Graph(nn.Module):
    """A skeleton block: joints mixed by a matrix, time by a tall kernel; persons merged into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.adjacency = nn.Parameter(torch.rand(5, 5))
        self.widen = nn.Conv2d(3, 6, 1)
        self.time = nn.Conv2d(6, 6, (9, 1), padding=(4, 0))
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        b, c, t, v, m = x.shape
        x = x.permute(0, 4, 1, 2, 3).reshape(b * m, c, t, v)
        x = torch.einsum("nctv,vw->nctw", self.widen(x), self.adjacency)
        x = F.relu(self.norm(self.time(x)) + x)
        return x.view(b, m, 6, t, v).mean(dim=(1, 4))


class Matrices(nn.Module):
    """Products with time in the rows, in the columns and in the leading axes."""

    def __init__(self) -> None:
        super().__init__()
        self.right, self.left = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(7, 4))
        self.late = nn.Conv1d(6, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = (x.transpose(1, 2) @ self.right).transpose(1, 2)
        columns = self.left @ x
        return self.late(rows) * (columns.softmax(1)[:, :6, 1:-1])


class ConstantPad(nn.Module):
    """Padding by a number, and by concatenation, seen through a ReLU and a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 4)

    def forward(self, x: Tensor) -> Tensor:
        one = self.conv(F.relu(F.pad(x, (2, 1), value=0.5)) - 1.0)
        zeros = torch.zeros(x.shape[0], x.shape[1], 3)
        two = self.conv(torch.cat([zeros, x], dim=2))
        return one + two


class PaddedAgain(nn.Module):
    """Padding that is cut off again with some of what it surrounded, and other zeros in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        cut = F.pad(F.pad(x, (3, 1)), (-4, -2), value=1.0)
        return self.conv(F.pad(cut, (2, 2)))


class FrameNorms(nn.Module):
    """Statistics of each frame by itself stream exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LayerNorm(4)
        self.group = nn.GroupNorm(2, 4)
        self.conv = nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, t = x.shape
        x = self.layer(x.transpose(1, 2))
        x = self.group(x.reshape(b * t, c, 1)).reshape(b, t, c).transpose(1, 2)
        return self.conv(F.glu(torch.cat([x, x * 2], 1), 1))


class BatchInside(nn.Module):
    """The batch is not the first axis where the past is read."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(1, 0, 2)
        return (x[:, :, 1:] - 2 * x[:, :, :-1]).permute(1, 0, 2)


class DeepManyAxes(nn.Module):
    """A long delay of a value with more axes than a state may have."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(1, 0, 2)[None, None, None]
        x = F.pad(x, (20, 0))[..., :-20] * 1.5 + x
        return x[0, 0, 0].permute(1, 0, 2)


class Assigned(nn.Module):
    """Assignments to one position and to a slice, of a constant and of something computed."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        y[:, 0] = 0.5
        y[:, 1] += y[:, 2]
        y[:, :, 0:0] = 1
        return y[:, :, 1:] - y[:, :, :-1]


KEEPING = {
    "assigned": (Assigned(), (3, 8), 2),
    "batch inside": (BatchInside(), (3, 8), 2),
    "deep and of many axes": (DeepManyAxes(), (3, 30), 2),
    "functional": (Functional(), (3, 9, 4, 5), 2),
    "slices": (TimeSum(), (3, 9), 2),
    "shared weights": (SharedWeights(), (3, 8), 2),
    "padded pair": (PaddedPair(), (2, 6, 4, 3), 2),
    "shift": (ShiftedChannels(), (6, 7, 2, 2), 2),
    "frames in the batch": (Frames2d(), (3, 6, 9, 7), 2),
    "skeleton": (Graph(), (3, 12, 5, 2), 2),
    "matrices": (Matrices(), (4, 8), 2),
    "constant padding": (ConstantPad(), (2, 8), 2),
    "padded, cut and padded again": (PaddedAgain(), (2, 9), 2),
    "frame norms": (FrameNorms(), (4, 8), 2),
    "even kernel": (nn.Conv2d(3, 4, (4, 3), padding=(2, 1)), (3, 9, 5), 2),
    "same padding": (nn.Conv1d(3, 4, 4, padding="same"), (3, 9), 2),
    "padding beyond the kernel": (nn.Conv1d(2, 2, 3, padding=5), (2, 9), 2),
    "grouped 1-D": (nn.Conv1d(6, 6, 5, groups=3, padding=2), (6, 9), 2),
    "long average": (nn.AvgPool1d(7, stride=1, padding=3), (3, 12), 2),
    "long maximum": (nn.MaxPool1d(7, stride=1, padding=3), (3, 12), 2),
    "time last of four": (nn.Conv2d(3, 4, (3, 5), padding=(1, 2)), (3, 6, 11), 3),
}


@pytest.mark.parametrize("name", KEEPING)
def test_stream_equals_clip_network_on_the_whole_recording(name: str) -> None:
    net, clip, time_dim = KEEPING[name]
    torch.manual_seed(3)
    assert_streams(randomise_norms(copy.deepcopy(net)), clip, time_dim=time_dim)
