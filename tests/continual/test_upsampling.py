"""Down and up again in time: every element of the full rate, of nearest neighbours and of transposed convolutions."""

from __future__ import annotations

import copy

import pytest
import torch
from streaming import assert_streams, randomise_norms, recording, relative
from torch import Tensor, nn
from torch.nn import functional as F

import edgeco
from edgeco.errors import UnsupportedOperator


class Joined(nn.Module):
    """A branch that goes down and up again, cut to what it is joined with."""

    def __init__(self, down: nn.Module, up: nn.Module) -> None:
        super().__init__()
        self.down, self.up = down, up

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(F.relu(self.down(x)))
        length = min(x.shape[2], y.shape[2])
        return torch.cat([x[:, :, :length], y[:, :, :length]], 1)


class Repeated(nn.Module):
    """repeat_interleave as a layer."""

    def __init__(self, times: int, axis: int = 2) -> None:
        super().__init__()
        self.times, self.axis = times, axis

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.times, self.axis)


def down(stride: int = 2, kernel: int = 3, padding: int = 1) -> nn.Module:
    return nn.Conv1d(2, 4, kernel, stride=stride, padding=padding)


BRANCHES = {
    "nearest": (down(), nn.Upsample(scale_factor=2)),
    "nearest, unpadded": (down(padding=0), nn.Upsample(scale_factor=2)),
    "nearest by 3": (down(3), nn.Upsample(scale_factor=3)),
    "nearest-exact": (down(), nn.Upsample(scale_factor=2, mode="nearest-exact")),
    "repeated": (down(4), Repeated(4)),
    "half way up": (down(4), Repeated(2)),
    "up twice": (down(4), nn.Sequential(Repeated(2), nn.Conv1d(4, 3, 3, padding=1), nn.Upsample(scale_factor=2))),
    "up by 2 and 3": (down(6, 6), nn.Sequential(Repeated(2), nn.Conv1d(4, 3, 3, padding=1), Repeated(3))),
    "filtered after": (down(), nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv1d(4, 3, 3, padding=1))),
    "down again": (down(), nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv1d(4, 3, 4, stride=2), Repeated(2))),
    "pooled": (nn.MaxPool1d(3, 2, 1), nn.Sequential(nn.Upsample(scale_factor=2), nn.MaxPool1d(5, 1, 2))),
    "ring after": (down(), nn.Sequential(nn.Upsample(scale_factor=2), nn.AvgPool1d(8, 1, 4))),
    "transposed 2": (down(), nn.ConvTranspose1d(4, 3, 2, stride=2)),
    "transposed 4, padded": (down(), nn.ConvTranspose1d(4, 3, 4, stride=2, padding=1)),
    "transposed 3, padded, more": (down(), nn.ConvTranspose1d(4, 3, 3, stride=2, padding=1, output_padding=1)),
    "transposed 5": (down(3), nn.ConvTranspose1d(4, 3, 5, stride=3)),
    "transposed with gaps": (down(3), nn.ConvTranspose1d(4, 3, 2, stride=3, bias=False)),
    "transposed with gaps, bias": (down(4, 5), nn.ConvTranspose1d(4, 3, 2, stride=4, dilation=2)),
    "transposed, dilated": (down(2), nn.ConvTranspose1d(4, 3, 3, stride=2, dilation=3, padding=2)),
    "transposed, grouped": (down(2), nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1, groups=2)),
    "transposed, no stride": (down(2), nn.Sequential(nn.ConvTranspose1d(4, 3, 3, padding=1), Repeated(2))),
    "transposed alone": (nn.Identity(), nn.ConvTranspose1d(2, 3, 4, padding=1)),
    "transposed, cropped much": (down(2), nn.ConvTranspose1d(4, 3, 6, stride=2, padding=4)),
    "linear": (down(), nn.Upsample(scale_factor=2, mode="linear")),
    "linear by 3": (down(3), nn.Upsample(scale_factor=3, mode="linear")),
    "linear by 4, filtered": (
        down(4),
        nn.Sequential(nn.Upsample(scale_factor=4, mode="linear"), nn.Conv1d(4, 3, 3, padding=1)),
    ),
    "linear, twice": (down(4), nn.Sequential(*[nn.Upsample(scale_factor=2, mode="linear") for _ in range(2)])),
    "channels repeated": (down(2), nn.Sequential(nn.BatchNorm1d(4), Repeated(3, 1), Repeated(2))),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", BRANCHES)
def test_every_element_of_a_branch_that_comes_back(name: str) -> None:
    torch.manual_seed(0)
    for more in range(3):
        before, after = BRANCHES[name]
        net = nn.Sequential(copy.deepcopy(before), copy.deepcopy(after))
        assert_streams(randomise_norms(net), (2, 25), more=more)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("frames", [24, 27])
@pytest.mark.parametrize("name", [n for n in BRANCHES if n not in ("half way up", "transposed, cropped much")])
def test_every_element_joined_with_the_full_rate(name: str, frames: int) -> None:
    torch.manual_seed(0)
    before, after = BRANCHES[name]
    assert_streams(randomise_norms(Joined(copy.deepcopy(before), copy.deepcopy(after))), (2, frames))


class UNet(nn.Module):
    """A temporal U-Net of two levels over frames: strided convolutions down, `up` up, skips at every rate."""

    def __init__(self, up: str) -> None:
        super().__init__()
        self.up = up
        self.first = nn.Conv3d(2, 3, 3, padding=1)
        self.down = nn.ModuleList([nn.Conv3d(3, 4, 3, stride=2, padding=1), nn.Conv3d(4, 5, 3, stride=2, padding=1)])
        self.lift = nn.ModuleList([nn.ConvTranspose3d(5, 4, 2, stride=2), nn.ConvTranspose3d(4, 3, 4, 2, padding=1)])
        self.narrow = nn.ModuleList([nn.Conv3d(5, 4, 1), nn.Conv3d(4, 3, 1)])
        self.join = nn.ModuleList([nn.Conv3d(8, 4, 3, padding=1), nn.Conv3d(6, 2, 3, padding=1)])
        self.norm = nn.BatchNorm3d(4)

    def forward(self, x: Tensor) -> Tensor:
        skips = [F.relu(self.first(x))]
        for layer in self.down:
            skips.append(F.silu(layer(skips[-1])))
        y = skips.pop()
        for i, join in enumerate(self.join):
            skip = skips.pop()
            if self.up == "transposed":
                y = self.lift[i](y)
            elif self.up in ("scale", "trilinear"):
                mode = "nearest" if self.up == "scale" else self.up
                y = self.narrow[i](F.interpolate(y, scale_factor=2, mode=mode))
            else:
                y = self.narrow[i](F.interpolate(y, size=skip.shape[2:]))
            y = join(torch.cat([skip, y], 1))
            y = self.norm(y) if i == 0 else y
        return y


@pytest.mark.parametrize("up", ["transposed", "scale", "size", "trilinear"])
def test_a_u_net_over_frames(up: str) -> None:
    torch.manual_seed(0)
    program = assert_streams(randomise_norms(UNet(up)), (2, 16, 8, 8))
    assert (program.stride, len(program.schedule)) == (1, 4)


def test_float32_and_a_batch_of_four() -> None:
    torch.manual_seed(0)
    net = randomise_norms(UNet("transposed")).eval()
    program = edgeco.convert(net, torch.zeros(1, 2, 16, 8, 8))
    long = recording(4, 2, 160, 8, 8, dtype=torch.float32)
    with torch.no_grad():
        assert relative(program.forward_steps(long, pad_end=True), net(long)) < 1e-5


class Spectrum(nn.Module):
    """(B, C, T, bands): both axes down and up, by other factors."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.down, self.mode = nn.Conv2d(2, 4, 3, stride=(3, 2), padding=1), mode
        self.up = nn.ConvTranspose2d(4, 2, (3, 4), stride=(3, 2), padding=(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(x)
        return self.up(y) if self.mode == "transposed" else F.interpolate(y, scale_factor=(3, 2), mode=self.mode)


@pytest.mark.parametrize("mode", ["transposed", "nearest", "nearest-exact", "bilinear"])
def test_time_beside_another_axis_that_is_resized(mode: str) -> None:
    assert_streams(Spectrum(mode), (2, 21, 6))


class Resized(nn.Module):
    """F.interpolate as a layer."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, **self.options)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("frames", [12, 13, 14, 16])
def test_resizing_to_every_other_element(mode: str, frames: int) -> None:
    for factor in (2, 4):
        assert_streams(Resized(scale_factor=1 / factor, mode=mode), (2, frames), more=1)


@pytest.mark.parametrize("mode", ["nearest", "trilinear"])
def test_frames_alone_are_resized(mode: str) -> None:
    program = assert_streams(Resized(scale_factor=(1, 2, 1.5), mode=mode), (2, 8, 4, 4))
    assert (program.delay, program.exactness) == (0, "exact")


class Pyramid(nn.Module):
    """The mean of the clip put back beside each of its elements, by resizing."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, F.interpolate(x.mean(2, keepdim=True), size=x.shape[2:])], 1)


def test_a_summary_resized_to_the_clip_is_causal() -> None:
    net = Pyramid().double()
    program = edgeco.convert(net, torch.zeros(1, 2, 6, dtype=torch.float64))
    long = recording(2, 2, 40)
    assert program.exactness == "causal"
    given = program.forward_steps(long)
    for i in range(given.shape[2]):
        assert relative(given[:, :, i], net(long[:, :, i : i + 6])[:, :, -1]) < 1e-12


REFUSED = {
    "above the rate of the frames": (nn.Sequential(nn.Upsample(scale_factor=2)), "several answers"),
    "transposed above the rate": (nn.Sequential(nn.ConvTranspose1d(2, 2, 4, 2)), "several answers"),
    "to no whole rate": (nn.Sequential(nn.Conv1d(2, 2, 3, stride=3), Repeated(2)), "every 3 frames"),
    "by no whole factor": (nn.Sequential(nn.Conv1d(2, 2, 2, stride=2), Resized(size=15)), "from 12 elements to 15"),
    "by the place in the clip": (
        nn.Sequential(nn.Conv1d(2, 2, 2, 2), Resized(scale_factor=2, mode="linear", align_corners=True)),
        "by its place in the clip",
    ),
    "between frames above their rate": (nn.Sequential(nn.Upsample(scale_factor=2, mode="linear")), "several answers"),
    "the batch": (Repeated(2, 0), "rows of the batch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_upsampled_is_refused_with_its_line(name: str) -> None:
    net, words = REFUSED[name]
    with pytest.raises(UnsupportedOperator, match=words) as error:
        edgeco.convert(net, torch.zeros(1, 2, 24))
    assert "layer" in str(error.value) or "test_upsampling.py" in str(error.value)


def test_an_upsampled_element_is_computed_once() -> None:
    """The slow branch runs at its own rate; what reads its answer in the steps between does not compute it again."""
    before, after = BRANCHES["repeated"]
    net = Joined(copy.deepcopy(before), copy.deepcopy(after))
    program = edgeco.convert(net, torch.zeros(1, 2, 24))
    assert (program.stride, len(program.schedule), len(program.phases)) == (1, 4, 2)
    work = [sum("linear" in str(n.target) for n in phase.module.graph.nodes) for phase in program.phases]
    assert sorted(work[n] for n in program.schedule if n is not None) == [0, 0, 0, 1]
