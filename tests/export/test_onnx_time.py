"""Strides, dilations and recurrent layers in ONNX Runtime: 130 steps from reset equal the torch runner's."""

from __future__ import annotations

import pytest
import torch
from engine_parity import differences
from torch import Tensor, nn
from torch.nn import functional as F

TOLERANCE = 1e-4


class Pathways(nn.Module):
    """A slow pathway beside a fast one, and a recurrent layer over what joins them; two answers of unequal rate."""

    def __init__(self) -> None:
        super().__init__()
        self.slow, self.fast = nn.Conv1d(2, 4, 3, padding=1), nn.Conv1d(2, 3, 5, padding=4, dilation=2)
        self.lateral = nn.Conv1d(3, 4, 5, stride=4, padding=2)
        self.recurrent = nn.GRU(8, 5, 2, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fast = F.relu(self.fast(x))
        joined = torch.cat([self.slow(x[:, :, ::4]), self.lateral(fast)], 1)
        return self.recurrent(joined.transpose(1, 2))[0].transpose(1, 2), fast


class Projected(nn.Module):
    """A deep LSTM with projections and learned initial states; the last state answers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.LSTM(2, 6, 3, proj_size=3)
        self.hidden, self.memory = nn.Parameter(torch.randn(3, 1, 3)), nn.Parameter(torch.randn(3, 1, 6))

    def forward(self, x: Tensor) -> Tensor:
        start = [s.expand(-1, x.shape[0], -1).contiguous() for s in (self.hidden, self.memory)]
        return self.layers(x.permute(2, 0, 1), tuple(start))[1][0][-1]


class Pyramid(nn.Module):
    """Strides of 2 four deep, a mean over what is real, a maximum over many."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv3d(2, 2, 3, stride=(2, 1, 1), padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.relu(layer(x))
        x = F.avg_pool3d(x, (3, 1, 1), (2, 1, 1), (1, 0, 0), count_include_pad=False)
        return F.max_pool3d(x, (7, 1, 1), 1, (3, 0, 0))


class Thinned(nn.Module):
    """Every third frame alone is looked at: two steps of three have nothing to do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x[:, :, ::3]).mean(2)


class DownAndUp(nn.Module):
    """A branch at a quarter of the rate, back by a transposed convolution and nearest neighbours, beside the frames."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(2, 3, 3, 2, padding=1), nn.Conv3d(3, 4, 3, 2, padding=1)
        self.up = nn.ConvTranspose3d(4, 3, 4, 2, padding=1)
        self.join = nn.Conv3d(5, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        half = F.relu(self.first(x))
        half = half + self.up(F.relu(self.second(half)))
        half = half + F.interpolate(F.interpolate(half[:, :, ::2], scale_factor=(1, 0.5, 0.5)), scale_factor=2)
        smooth = F.interpolate(half, scale_factor=2, mode="trilinear")
        return self.join(torch.cat([x * smooth[:, :2], F.interpolate(half, scale_factor=2)], 1))


NETS = {
    "down and up": (DownAndUp, (2, 16, 4, 4)),
    "pathways": (Pathways, (2, 24)),
    "projected": (Projected, (2, 9)),
    "pyramid": (Pyramid, (2, 33, 4, 4)),
    "thinned": (Thinned, (2, 16)),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("name", NETS)
def test_engine_equals_the_torch_runner(name: str, rows: int) -> None:
    torch.manual_seed(0)
    make, clip = NETS[name]
    worst = differences(make().eval(), clip, steps=130, rows=rows)
    assert max(worst.values()) < TOLERANCE, worst
