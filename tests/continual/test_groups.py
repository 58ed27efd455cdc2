"""Frames taken in groups: unfolded, stacked into channels, cut into tubelets, ranked by size."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from engine_parity import differences
from streaming import assert_streams, assert_windows, clip_answers, recording, relative
from torch import Tensor, nn
from torch.nn import functional as F

import edgeco


class Unfolded(nn.Module):
    """Overlapping groups of frames, a linear layer over each; the frame's own axis unfolded as well."""

    def __init__(self, size: int, stride: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.size, self.stride = size, stride
        self.enter, self.mix = nn.Conv2d(2, 3, (3, 1), padding=(1, 0)), nn.Linear(size * 2, 4)

    def forward(self, x: Tensor) -> Tensor:
        parts = F.relu(self.enter(x)).unfold(2, self.size, self.stride).unfold(3, 2, 2)
        return self.mix(parts.flatten(-2)).movedim(-1, 1)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 1), (4, 2), (2, 3), (20, 1)])
def test_unfold_along_time_and_along_the_frame(size: int, stride: int) -> None:
    net = Unfolded(size, stride)
    program = assert_streams(net, (2, 21, 4), more=1)
    assert (program.stride, program.receptive_field) == (stride, size + 2)
    assert max(differences(net.float(), (2, 21, 4), steps=100, rows=2).values()) < 1e-4


class Tubelets(nn.Module):
    """Patches of 2 frames by 2 by 2, embedded as a vision transformer reshapes them."""

    def __init__(self, merged: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.after, self.merged = nn.Linear(16, 5), nn.Conv1d(5, 3, 3), merged

    def forward(self, x: Tensor) -> Tensor:
        rows, channels, frames, height, width = x.shape
        x = x.reshape(rows, channels, frames // 2, 2, height // 2, 2, width // 2, 2).permute(0, 2, 4, 6, 1, 3, 5, 7)
        if self.merged:
            tokens = self.embed(x.reshape(rows * (frames // 2), -1, 16)).mean(1).reshape(rows, frames // 2, 5)
        else:
            tokens = self.embed(x.flatten(4)).mean((2, 3))
        return self.after(tokens.transpose(1, 2))


@pytest.mark.parametrize("merged", [True, False])
def test_tubelets_stride_in_time(merged: bool) -> None:
    net = Tubelets(merged)
    program = assert_streams(net, (2, 12, 4, 4))
    assert (program.stride, program.receptive_field, program.exactness) == (2, 6, "exact")
    assert max(differences(net.float(), (2, 12, 4, 4), steps=100).values()) < 1e-4


class Shuffled(nn.Module):
    """Channels shuffled with time behind them; pixels shuffled with time before them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.a = nn.Conv3d(4, 8, (3, 1, 1), padding=(2, 0, 0))

    def forward(self, x: Tensor) -> Tensor:
        y = F.channel_shuffle(self.a(x), 2).transpose(1, 2)
        return F.pixel_unshuffle(F.pixel_shuffle(y, 2), 4)


def test_shuffles_within_a_frame() -> None:
    net = Shuffled()
    assert_streams(net, (4, 9, 6, 6))
    assert max(differences(net.float(), (4, 9, 6, 6), steps=100).values()) < 1e-4


class Ranked(nn.Module):
    """The three largest of a clip and their mean order, per channel."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.topk(3, 2)[0].mean(2), x.sort(2)[0][:, :, 2]], 1)


class Reversed(nn.Module):
    """A clip read from its end as well: of a stream only a live window can."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.a = nn.Conv1d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return (self.a(x) + self.a(x.flip(2).roll(1, 2))).amax(2)


def test_the_order_of_a_clip_takes_a_live_window() -> None:
    assert_windows(Ranked(), (3, 8))
    assert max(differences(Ranked(), (3, 8), steps=100).values()) < 1e-4


class Whole(nn.Module):
    """A convolution that takes the whole clip, whose one element loses the axis of time in one of several ways."""

    def __init__(self, way: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.way = nn.Conv1d(4, 3, 12), way

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self.conv(x))


@pytest.mark.parametrize(
    "way", [lambda y: y.squeeze(-1), lambda y: y.flatten(1), lambda y: y.view(y.shape[0], -1), lambda y: y[..., 0]]
)
@pytest.mark.parametrize("exact", [False, "clip"])
def test_a_clip_of_one_element_loses_the_axis_of_time(way: Callable[[Tensor], Tensor], exact: bool | str) -> None:
    net = Whole(way).double().eval()
    program = edgeco.convert(net, torch.zeros(1, 4, 12).double(), exact=exact)
    long = recording(2, 4, 72)
    assert program.exactness == "exact"
    assert relative(program.forward_steps(long), clip_answers(net, long, 12)) < 1e-12


def test_segments_of_a_clip_are_a_live_window() -> None:
    """(T,) as (segments, frames of each): the segments of a longer clip are longer, not more."""

    class Segments(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.view(x.shape[0], 4, 3, -1).mean(2)

    program = edgeco.convert(Segments(), torch.zeros(1, 4, 12).double())
    long = recording(2, 4, 72)
    assert program.exactness == "exact"
    assert relative(program.forward_steps(long), clip_answers(Segments(), long, 12)) < 1e-12


def test_what_reads_backwards_is_refused_or_recomputed() -> None:
    with pytest.raises(edgeco.EdgecoError, match=r"flip .*test_groups.py.*exact=True"):
        edgeco.convert(Reversed().eval(), torch.zeros(1, 3, 8))
    net = Reversed().double().eval()
    program = edgeco.convert(net, torch.zeros(1, 3, 8).double(), exact=True)
    long = torch.randn(2, 3, 60).double()
    expected = clip_answers(net, long, 8)
    assert torch.allclose(program.forward_steps(long), expected, atol=1e-12)
    assert max(differences(Reversed(), (3, 8), steps=100, exact="interior").values()) < 1e-4


@pytest.mark.parametrize("layer", [nn.AdaptiveAvgPool1d(4), nn.AdaptiveMaxPool1d(4)], ids=["mean", "max"])
def test_pooling_to_a_divisor_strides(layer: nn.Module) -> None:
    torch.manual_seed(6)
    before = nn.Conv1d(2, 3, 3, padding=1)
    program = edgeco.convert(nn.Sequential(before, layer).double().eval(), torch.zeros(1, 2, 12).double())
    long = torch.randn(2, 2, 90).double()
    pool = F.avg_pool1d if isinstance(layer, nn.AdaptiveAvgPool1d) else F.max_pool1d
    with torch.no_grad():
        expected = pool(before(long), 3, 3)
    assert (program.stride, program.exactness) == (3, "unpadded")
    assert torch.allclose(program.forward_steps(long, pad_end=True), expected, atol=1e-12)


class PooledToFive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool1d(x, 5).flatten(1))


def test_pooling_to_any_other_length_takes_a_live_window() -> None:
    assert_windows(PooledToFive(), (2, 12))


class Learned(nn.Module):
    """A learned query and dropout, which evaluation has none of, weigh a clip."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.query, self.drop = nn.Parameter(torch.randn(3)), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(2) * self.drop(self.query)


def test_dropout_of_what_has_no_time() -> None:
    assert_windows(Learned(), (3, 8))


@pytest.mark.parametrize(
    "use",
    [
        lambda x: F.interpolate(x, size=5, mode="linear").flatten(1),
        lambda x: F.interpolate(x, scale_factor=2.0, mode="linear", align_corners=True).amax(2),
        lambda x: torch.fft.rfft(x, dim=2).abs().sum(2),
        lambda x: F.pad(x, (2, 2), mode="circular").unfold(2, 4, 4).prod(3).sum(2),
    ],
    ids=["resized", "corners", "spectrum", "circular"],
)
def test_what_is_refused_of_a_stream_may_be_had_of_a_live_window(use: Callable[[Tensor], Tensor]) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return use(torch.tanh(x))

    with pytest.raises(edgeco.EdgecoError):
        edgeco.convert(Net().eval(), torch.zeros(1, 3, 8))
    program = edgeco.convert(Net().eval(), torch.zeros(1, 3, 8).double(), exact=True)
    long = torch.randn(2, 3, 60).double()
    expected = torch.stack([Net()(long[:, :, i : i + 8]) for i in range(53)], 1)
    assert program.exactness == "exact" and torch.allclose(program.forward_steps(long), expected, atol=1e-12)
