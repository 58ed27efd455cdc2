"""Widened depthwise convolutions: whole blocks of channels, the same answers, and nothing widened that may not be."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeco.continual.convert import StepGraph, convert_graph, trace_network
from edgeco.continual.program import StepProgram
from edgeco.export.edit import groups_of
from edgeco.export.fold import fold_norms
from edgeco.export.widen import widen_depthwise
from tests.helpers.streaming import randomise_norms, recording, relative

CLIP = (3, 6, 8, 8)


class Bottleneck(nn.Module):
    """Expand, depthwise over time and space, gate by the frame's mean, squash, project; beside a shortcut."""

    def __init__(self, inner: int, act: Callable[[Tensor], Tensor] = F.silu) -> None:
        super().__init__()
        self.act = act
        self.a = nn.Conv3d(3, inner, 1)
        self.a_bn = nn.BatchNorm3d(inner)
        self.b = nn.Conv3d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.b_bn = nn.BatchNorm3d(inner)
        self.gate = nn.Conv3d(inner, inner, 1)
        self.c = nn.Conv3d(inner, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.b_bn(self.b(F.relu(self.a_bn(self.a(x)))))
        y = y * self.gate(y.mean((3, 4), keepdim=True)).sigmoid()
        return x + self.c(self.act(y))


def widths(net: nn.Module) -> tuple[int, set[int], StepGraph]:
    """How many convolutions were widened, the channels of the depthwise ones after that, and the step graph."""
    clip = trace_network(net, torch.zeros(1, *CLIP, dtype=torch.float64), 2)
    fold_norms(clip)
    widened = widen_depthwise(clip)
    found = {groups_of(node) for node in clip.graph.nodes if groups_of(node) > 1}
    return widened, found, convert_graph(clip)


def assert_same(net: nn.Module, step: StepGraph) -> None:
    program = StepProgram(net, step)
    long = recording(2, 3, 40, 8, 8)
    with torch.no_grad():
        assert relative(program.forward_steps(long, pad_end=True), net(long)) < 1e-12


@pytest.mark.parametrize(("inner", "wide"), [(12, 16), (13, 16), (24, 32), (54, 64), (108, 112)])
def test_depthwise_channels_grow_to_whole_blocks(inner: int, wide: int) -> None:
    net = randomise_norms(Bottleneck(inner)).double().eval()
    widened, found, step = widths(net)
    assert (widened, found) == (1, {wide})
    assert_same(net, step)
    assert {h.shape[0] for h in step.histories} == {3, wide}


@pytest.mark.parametrize("inner", [5, 11, 17, 32])
def test_whole_blocks_and_those_that_would_grow_too_much_are_left(inner: int) -> None:
    net = randomise_norms(Bottleneck(inner)).double().eval()
    widened, found, step = widths(net)
    assert (widened, found) == (0, {inner})
    assert_same(net, step)


def test_a_convolution_over_time_alone_is_left() -> None:
    """A step multiplies and adds its elements: wider ones would be more work, and no faster."""
    stem = nn.Conv3d(14, 14, (3, 1, 1), padding=(1, 0, 0), groups=14)
    net = nn.Sequential(nn.Conv3d(3, 14, (1, 3, 3)), stem, nn.ReLU(), nn.Conv3d(14, 4, 1)).double().eval()
    widened, found, step = widths(net)
    assert (widened, found) == (0, {14})
    assert_same(net, step)
    beside = nn.Conv3d(14, 14, 3, padding=1, groups=14)  # but it grows with one beside it that gains
    net = nn.Sequential(nn.Conv3d(3, 14, (1, 3, 3)), stem, beside, nn.Conv3d(14, 4, 1)).double().eval()
    widened, found, step = widths(net)
    assert (widened, found) == (2, {16})
    assert_same(net, step)


def test_an_operator_that_gives_infinity_for_zeros_keeps_them_out() -> None:
    """What a zero channel becomes, times a zero weight, is no number; a logarithm would do, but drowns small errors."""
    net = randomise_norms(Bottleneck(12, lambda y: torch.where(y == 0, torch.inf, y))).double().eval()
    widened, _, step = widths(net)
    assert widened == 0
    assert_same(net, step)


def test_what_takes_neighbours_in_time_alone_is_left() -> None:
    """A step multiplies and adds whole elements there; no convolution remains that could be fast."""
    net = randomise_norms(Bottleneck(12)).double().eval()
    net.b = nn.Conv3d(12, 12, (3, 1, 1), padding=(1, 0, 0), groups=12, bias=False, dtype=torch.float64)
    widened, found, step = widths(net)
    assert (widened, found) == (0, {12})
    assert_same(net, step)


class Pair(nn.Module):
    """Two depthwise convolutions that share their kernel, added; pooled; read by two dense convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Conv3d(3, 14, (1, 3, 3))
        self.depthwise = nn.Conv3d(14, 14, 3, padding=1, groups=14)
        self.left = nn.Conv3d(14, 4, (2, 1, 1))
        self.right = nn.Conv3d(14, 4, (1, 2, 2), stride=(1, 2, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.entry(x)
        y = self.depthwise(y) + self.depthwise(F.hardswish(y))
        y = F.max_pool3d(y, (1, 2, 2))
        return self.left(y), self.right(y)


def test_shared_kernels_and_several_readers() -> None:
    net = Pair().double().eval()
    widened, found, step = widths(net)
    assert (widened, found) == (2, {16})
    long = recording(2, 3, 40, 8, 8)
    with torch.no_grad():
        for given, expected in zip(StepProgram(net, step).forward_steps(long, pad_end=True), net(long), strict=True):
            assert relative(given, expected) < 1e-12


class Leak(nn.Module):
    """A depthwise convolution whose channels get out: into the answer, another view, or a concatenation."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.entry = nn.Conv3d(3, 14, 1)
        self.depthwise = nn.Conv3d(14, 14, 3, padding=(0, 1, 1), groups=14)
        self.exit = nn.Conv3d(17 if kind == "concatenated" else 14, 3, 1)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = self.depthwise(self.entry(x))
        if self.kind == "answered":
            return self.exit(y), y
        if self.kind == "shuffled":
            return self.exit(y.unflatten(1, (2, 7)).transpose(1, 2).flatten(1, 2))
        if self.kind == "concatenated":
            return self.exit(torch.cat([y, x[:, :, 2:]], 1))
        if self.kind == "normalised":
            return self.exit(y.softmax(1))
        return self.exit(y - y.mean(1, keepdim=True))


@pytest.mark.parametrize("kind", ["answered", "shuffled", "concatenated", "normalised", "centred"])
def test_channels_that_get_out_are_left(kind: str) -> None:
    net = Leak(kind).double().eval()
    widened, found, step = widths(net)
    assert (widened, found) == (0, {14})
    long = recording(2, 3, 40, 8, 8)
    with torch.no_grad():
        given, expected = StepProgram(net, step).forward_steps(long), net(long)
    for one, other in zip(*([v] if isinstance(v, Tensor) else v for v in (given, expected)), strict=True):
        assert relative(one, other) < 1e-12


class Multiplied(nn.Module):
    """Two channels out of each one in: grouped, but not depthwise."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Conv3d(3, 14, 1)
        self.grouped = nn.Conv3d(14, 28, (3, 1, 1), groups=14)
        self.exit = nn.Conv3d(28, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.exit(self.grouped(self.entry(x)))


def test_a_channel_multiplier_is_left() -> None:
    widened, found, _ = widths(Multiplied().double().eval())
    assert (widened, found) == (0, {14})


class CountsPadding(nn.Module):
    """A mean that counts the frame's padding, of a channel that is one everywhere: other numbers at the border."""

    def __init__(self) -> None:
        super().__init__()
        self.entry, self.exit = nn.Conv3d(3, 12, 1), nn.Conv3d(12, 3, 1)
        self.depthwise = nn.Conv3d(12, 12, 3, padding=1, groups=12)

    def forward(self, x: Tensor) -> Tensor:
        y = F.avg_pool3d(self.depthwise(self.entry(x)).cos(), (1, 3, 3), 1, (0, 1, 1))
        return self.exit((y - 4 / 9).abs().reciprocal())


def test_a_border_that_would_be_infinite_keeps_zeros_out() -> None:
    assert widths(CountsPadding().double().eval())[0] == 0
