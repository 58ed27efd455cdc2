"""Strides and dilations in time: every element, at the steps where it is due, in any merge of branches."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from streaming import assert_answers, assert_streams, randomise_norms, recording, relative
from torch import Tensor, nn
from torch.nn import functional as F

import edgeco

LAYERS = {
    "stride": nn.Conv1d(2, 3, 3, stride=2),
    "stride, padded": nn.Conv1d(2, 3, 3, stride=2, padding=1),
    "kernel 1, stride 2": nn.Conv1d(2, 3, 1, stride=2),
    "stride beyond the kernel": nn.Conv1d(2, 3, 2, stride=5, padding=1),
    "dilation": nn.Conv1d(2, 3, 3, dilation=4),
    "dilation, padded": nn.Conv1d(2, 3, 3, dilation=3, padding=3),
    "dilation and stride": nn.Conv1d(2, 3, 3, dilation=3, padding=2, stride=3),
    "padding beyond the reach": nn.Conv1d(2, 3, 3, padding=5),
    "padding beyond the reach, strided": nn.Conv1d(2, 3, 3, padding=5, stride=2),
    "max": nn.MaxPool1d(2),
    "max, padded": nn.MaxPool1d(3, 2, 1),
    "max, dilated": nn.MaxPool1d(3, 1, 1, dilation=3),
    "max, rounded up": nn.MaxPool1d(2, 2, ceil_mode=True),
    "max, padded, rounded up": nn.MaxPool1d(3, 3, 1, ceil_mode=True),
    "max over many": nn.MaxPool1d(7, 2, 3),
    "mean": nn.AvgPool1d(3, 2),
    "mean, padded": nn.AvgPool1d(3, 2, 1),
    "mean over many, padded": nn.AvgPool1d(8, 3, 4),
    "mean of what is real": nn.AvgPool1d(3, 2, 1, count_include_pad=False),
    "mean of what is real, many": nn.AvgPool1d(7, 1, 3, count_include_pad=False),
    "mean, rounded up": nn.AvgPool1d(3, 2, ceil_mode=True),
    "stack": nn.Sequential(
        nn.Conv1d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Conv1d(3, 2, 3, padding=1), nn.MaxPool1d(3, 2, 1)
    ),
    "pyramid": nn.Sequential(*[nn.Conv1d(2, 2, 3, stride=2, padding=1) for _ in range(4)]),
    "rates 2 and 3": nn.Sequential(nn.Conv1d(2, 3, 4, stride=2, padding=1), nn.Conv1d(3, 2, 3, stride=3, padding=2)),
}


class Wrapped(nn.Module):
    """A layer whose name the trace knows."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("frames", [16, 17, 19])
@pytest.mark.parametrize("name", LAYERS)
def test_every_element_of_a_strided_layer(name: str, frames: int) -> None:
    torch.manual_seed(0)
    for more in range(3):
        assert_streams(Wrapped(copy.deepcopy(LAYERS[name])), (2, frames), more=more)


class Residual(nn.Module):
    """A strided block with its shortcut, as ST-GCN and ResNets have it."""

    def __init__(self, kernel: int = 3, stride: int = 2) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 4, (kernel, 1), stride=(stride, 1), padding=(kernel // 2, 0))
        self.a_bn = nn.BatchNorm2d(4)
        self.b = nn.Conv2d(4, 4, (3, 1), padding=(1, 0))
        self.shortcut = nn.Conv2d(2, 4, 1, stride=(stride, 1))
        self.shortcut_bn = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.b(F.relu(self.a_bn(self.a(x)))) + self.shortcut_bn(self.shortcut(x)))


@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("kernel", [1, 3, 9])
def test_a_strided_residual_block(kernel: int, stride: int) -> None:
    assert_streams(randomise_norms(Residual(kernel, stride)), (2, 21, 3))


class TwoRates(nn.Module):
    """A slow pathway on every fourth frame beside a fast one that joins it by a strided convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = nn.Conv3d(2, 4, 3, padding=1)
        self.fast = nn.Conv3d(2, 3, (5, 3, 3), padding=(2, 1, 1))
        self.lateral = nn.Conv3d(3, 4, (5, 1, 1), stride=(4, 1, 1), padding=(2, 0, 0))
        self.join = nn.Conv3d(8, 3, 3, padding=1)

    def pathways(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fast = F.relu(self.fast(x))
        return self.join(torch.cat([self.slow(x[:, :, ::4]), self.lateral(fast)], 1)), fast

    def forward(self, x: Tensor) -> Tensor:
        return self.pathways(x)[0]


class TwoRateHead(TwoRates):
    """Both pathways pooled over their own time, then joined: summaries at unequal rates."""

    def forward(self, x: Tensor) -> Tensor:
        slow, fast = self.pathways(x)
        return torch.cat([slow.mean((2, 3, 4)), fast.mean((2, 3, 4))], 1)


@pytest.mark.parametrize("frames", [16, 17, 18, 19])
def test_two_pathways_of_unequal_rate(frames: int) -> None:
    program = assert_streams(TwoRates(), (2, frames, 4, 4), more=frames % 4)
    assert (program.stride, len(program.schedule)) == (4, 4)


def test_summaries_at_unequal_rates_meet_at_the_slower() -> None:
    torch.manual_seed(0)
    net = TwoRateHead().double().eval()
    program = edgeco.convert(net, torch.zeros(1, 2, 16, 4, 4, dtype=torch.float64))
    assert program.stride == 4
    long = recording(2, 2, 120, 4, 4)
    given = program.forward_steps(long)
    slow, fast = net.pathways(long)
    with torch.no_grad():
        for i in range(given.shape[1]):
            expected = torch.cat(
                [slow[:, :, i : i + 4].mean((2, 3, 4)), fast[:, :, 4 * i : 4 * i + 16].mean((2, 3, 4))], 1
            )
            assert relative(given[:, i], expected) < 1e-12


class Head(nn.Module):
    """Strided, unpadded, pooled over what is left: exact on every window whose start the stride reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(2, 4, 3, stride=2), nn.Conv1d(4, 3, 3, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.relu(self.a(x))).mean(2)


def test_answers_of_a_strided_head_equal_the_clip_network_on_every_other_window() -> None:
    torch.manual_seed(0)
    net = Head().double().eval()
    program = edgeco.convert(net, torch.zeros(1, 2, 15, dtype=torch.float64))
    assert (program.stride, program.exactness, program.receptive_field) == (2, "exact", 15)
    assert_answers(program, net, recording(4, 2, 90), 15)


class BothRates(nn.Module):
    """An answer per frame beside one for every other frame."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(2, 3, 3, padding=1), nn.Conv1d(3, 2, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.a(x)
        return y, self.b(y)


def test_outputs_of_unequal_rate_and_the_steps_between() -> None:
    net = BothRates().double().eval()
    program = edgeco.convert(net, torch.zeros(1, 2, 12, dtype=torch.float64))
    long = recording(3, 2, 40)
    with torch.no_grad():
        for given, expected in zip(program.forward_steps(long, pad_end=True), net(long), strict=True):
            assert relative(given, expected) < 1e-12
    program.clean_state()
    shown = [program.forward_step(frame) for frame in long.unbind(2)]
    assert shown[0] is None
    assert [one is not None and one[1] is not None for one in shown] == [t > 0 and t % 2 == 0 for t in range(40)]


def test_chunks_copies_and_peeks_of_a_strided_network() -> None:
    net = Wrapped(copy.deepcopy(LAYERS["stack"])).double().eval()
    program = edgeco.convert(net, torch.zeros(1, 2, 16, dtype=torch.float64))
    long = recording(2, 2, 61)
    whole = program.forward_steps(long)
    for other in (program, copy.deepcopy(program), pickle.loads(pickle.dumps(program))):
        other.clean_state()
        chunks = [other.forward_steps(part) for part in long.split([1, 2, 3, 1, 20, 33, 1], 2)]
        assert torch.equal(torch.cat([c for c in chunks if c is not None], 2), whole)
    before = program.state
    program.forward_step(long[:, :, 0], update_state=False)
    assert program.state is before


def test_float32_and_a_batch_of_four() -> None:
    torch.manual_seed(0)
    net = randomise_norms(Residual(9, 2)).eval()
    program = edgeco.convert(net, torch.zeros(1, 2, 21, 3))
    long = recording(4, 2, 120, 3, dtype=torch.float32)
    with torch.no_grad():
        assert relative(program.forward_steps(long, pad_end=True), net(long)) < 1e-5


def test_each_step_does_its_own_work_only() -> None:
    """A pyramid of strides 2^k needs k + 1 graphs, and the deeper layers run at their own rate."""
    net = Wrapped(copy.deepcopy(LAYERS["pyramid"])).double().eval()
    program = edgeco.convert(net, torch.zeros(1, 2, 33, dtype=torch.float64))
    assert (program.stride, len(program.schedule), len(program.phases)) == (16, 16, 5)
    convolutions = [sum("linear" in str(n.target) for n in phase.module.graph.nodes) for phase in program.phases]
    work = [convolutions[number] for number in program.schedule if number is not None]
    assert sum(work) == 8 + 4 + 2 + 1
