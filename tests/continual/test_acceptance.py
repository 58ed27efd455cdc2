"""Blocks and small networks of the field in plain PyTorch, held element by element against the whole recording."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from engine_parity import differences
from streaming import assert_answers, assert_streams, assert_streams_of_any_kind, randomise_norms, recording
from torch import Tensor, nn
from torch.nn import functional as F

import edgeco


class Inverted(nn.Module):
    """MobileNetV2's block with a depthwise convolution over time and place."""

    def __init__(self, channels: int = 4, stride: tuple[int, int, int] = (1, 1, 1)) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(channels, 12, 1, bias=False),
            nn.BatchNorm3d(12),
            nn.ReLU6(),
            nn.Conv3d(12, 12, 3, stride, 1, groups=12, bias=False),
            nn.BatchNorm3d(12),
            nn.ReLU6(),
            nn.Conv3d(12, channels, 1, bias=False),
            nn.BatchNorm3d(channels),
        )
        self.residual = stride == (1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def convolution(channels: int, out: int, kernel: int) -> nn.Sequential:
    """A padded convolution with its norm and activation."""
    return nn.Sequential(nn.Conv3d(channels, out, kernel, padding=kernel // 2), nn.BatchNorm3d(out), nn.ReLU())


class Inception(nn.Module):
    """Four branches of different reach, joined by channel; Python conditions leave branches out."""

    def __init__(self, pooled: bool = True, wide: bool = True) -> None:
        super().__init__()
        self.one = convolution(4, 2, 1)
        self.three = nn.Sequential(convolution(4, 3, 1), convolution(3, 2, 3))
        self.five = nn.Sequential(convolution(4, 3, 1), convolution(3, 2, 5)) if wide else None
        self.pool = nn.Sequential(nn.MaxPool3d(3, 1, 1), convolution(4, 2, 1)) if pooled else None

    def forward(self, x: Tensor) -> Tensor:
        made = [self.one(x), self.three(x)]
        if self.five is not None:
            made.append(self.five(x))
        if self.pool is not None:
            made.append(self.pool(x))
        return torch.cat(made, 1)


class Residuals(nn.Module):
    """Shortcuts that are centred, that lag and that lead."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv3d(4, 4, (3, 1, 1), padding=(p, 0, 0)) for p in (1, 0, 0))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.a(x)
        x = x[:, :, 2:] + self.b(x)
        return x[:, :, :-2] + self.c(x)


class StridedBranches(nn.Module):
    """Branches of different reach that stride alike, one of them by pooling, in another order than they are made."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Conv3d(4, 4, (1, 1, 1), (2, 1, 1))
        self.far = nn.Conv3d(4, 4, (5, 1, 1), (2, 1, 1), (2, 0, 0))
        self.pool = nn.AvgPool3d((2, 1, 1), (2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        far, near, pooled = self.far(x), self.near(x), self.pool(x)
        return torch.cat([pooled * near, far, near], 1)


class Bottleneck(nn.Module):
    """X3D's block with its gate on each frame alone."""

    def __init__(self, stride: int = 2) -> None:
        super().__init__()
        self.open = nn.Sequential(nn.Conv3d(4, 5, 1, bias=False), nn.BatchNorm3d(5), nn.ReLU())
        self.depthwise = nn.Conv3d(5, 5, 3, (1, stride, stride), 1, groups=5, bias=False)
        self.norm = nn.BatchNorm3d(5)
        self.less, self.more = nn.Conv3d(5, 3, 1), nn.Conv3d(3, 5, 1)
        self.close = nn.Sequential(nn.Conv3d(5, 4, 1, bias=False), nn.BatchNorm3d(4))
        self.shortcut = nn.Sequential(nn.Conv3d(4, 4, 1, (1, stride, stride), bias=False), nn.BatchNorm3d(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(self.open(x)))
        gate = self.more(F.relu(self.less(y.mean((3, 4), keepdim=True)))).sigmoid()
        return F.relu(self.close(F.silu(y * gate)) + self.shortcut(x))


class Chain(nn.Module):
    """A recurrent layer between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Conv1d(4, 4, 3, padding=1), nn.Conv1d(5, 3, 3, padding=1)
        self.layer = nn.GRU(4, 5, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x.mean((3, 4))).relu()
        return self.after(self.layer(y.transpose(1, 2))[0].transpose(1, 2))


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "MobileNetV2-3D": Inverted,
    "MobileNetV2-3D, strided": lambda: Inverted(stride=(2, 2, 2)),
    "Inception-3D": Inception,
    "Inception-3D without pool": lambda: Inception(pooled=False),
    "Inception-3D, narrow": lambda: Inception(wide=False),
    "residuals": Residuals,
    "strided branches": StridedBranches,
    "X3D block": Bottleneck,
    "recurrent chain": Chain,
}


def made(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return randomise_norms(build()).eval()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("build", BLOCKS.values(), ids=BLOCKS)
def test_blocks(build: Callable[[], nn.Module]) -> None:
    assert_streams_of_any_kind(made(build), (4, 12, 5, 6))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("build", BLOCKS.values(), ids=BLOCKS)
def test_blocks_in_onnx_runtime(build: Callable[[], nn.Module], rows: int) -> None:
    assert max(differences(made(build), (4, 12, 5, 6), steps=100, rows=rows).values()) < 1e-5


JOINTS = 5


class Spatial(nn.Module):
    """A graph convolution over fixed, learned and, where `attends`, frame by frame attended neighbours."""

    def __init__(self, channels: int, out: int, attends: bool = False) -> None:
        super().__init__()
        self.register_buffer("graph", torch.rand(3, JOINTS, JOINTS))
        self.learned = nn.Parameter(torch.randn(3, JOINTS, JOINTS) * 0.1)
        self.product = nn.Conv2d(channels, out * 3, 1)
        self.theta = nn.Conv2d(channels, 2 * 3, 1) if attends else None
        self.phi = nn.Conv2d(channels, 2 * 3, 1) if attends else None
        self.norm = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        rows, _, time, joints = x.shape
        y = self.product(x).view(rows, 3, -1, time, joints)
        graph = self.graph + self.learned
        if self.theta is None or self.phi is None:
            return self.norm(torch.einsum("nkctv,kvw->nctw", y, graph)).relu()
        theta, phi = (
            layer(x).view(rows, 3, 2, time, joints).permute(0, 1, 3, 4, 2) for layer in (self.theta, self.phi)
        )
        attended = torch.softmax(theta @ phi.transpose(3, 4) / 2**0.5, -1)
        whole = attended + graph[:, None]
        return self.norm((y.permute(0, 1, 3, 2, 4) @ whole).sum(1).transpose(1, 2)).relu()


class Block(nn.Module):
    """ST-GCN's block: graph convolution, then 9 frames of each joint, beside a shortcut of either kind or none."""

    def __init__(
        self, channels: int, out: int, stride: int = 1, residual: bool = True, padding: int = 4, attends: bool = False
    ) -> None:
        super().__init__()
        self.spatial = Spatial(channels, out, attends)
        self.temporal = nn.Sequential(
            nn.Conv2d(out, out, (9, 1), (stride, 1), (padding, 0)), nn.BatchNorm2d(out), nn.Dropout(0.5)
        )
        self.cut, self.residual = 4 - padding, residual
        self.shortcut: nn.Module = nn.Identity()
        if channels != out or stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, (stride, 1)), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.temporal(self.spatial(x))
        if not self.residual:
            return y.relu()
        return (y + self.shortcut(x[:, :, self.cut : x.shape[2] - self.cut] if self.cut else x)).relu()


SKELETONS: dict[str, Callable[[], nn.Module]] = {
    "without residual": lambda: Block(3, 4, residual=False),
    "equal channels": lambda: Block(3, 3),
    "changed channels": lambda: Block(3, 4),
    "strided": lambda: Block(3, 4, stride=2),
    "unpadded": lambda: Block(3, 4, padding=0),
    "attended": lambda: Block(3, 4, attends=True),
    "temporal alone": lambda: nn.Conv2d(3, 4, (9, 1), padding=(4, 0)),
    "network": lambda: nn.Sequential(Block(3, 4, residual=False), Block(4, 4), Block(4, 6, stride=2), Block(6, 6)),
    "network*": lambda: nn.Sequential(
        Block(3, 4, padding=0, residual=False), Block(4, 4, padding=0), Block(4, 6, padding=0)
    ),
    "attended network": lambda: nn.Sequential(Block(3, 4, attends=True), Block(4, 4, stride=2, attends=True)),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("build", SKELETONS.values(), ids=SKELETONS)
def test_skeleton_networks(build: Callable[[], nn.Module]) -> None:
    assert_streams_of_any_kind(made(build), (3, 28, JOINTS))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("name", ["changed channels", "strided", "attended", "network*"])
def test_skeleton_networks_in_onnx_runtime(name: str, rows: int) -> None:
    assert max(differences(made(SKELETONS[name]), (3, 28, JOINTS), steps=110, rows=rows).values()) < 1e-5


class Persons(nn.Module):
    """The whole of ST-GCN*: a norm over joints, persons in the batch, blocks without padding, and a pooled head."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2 * JOINTS * 3)
        self.blocks = nn.Sequential(Block(3, 4, padding=0, residual=False), Block(4, 5, padding=0))
        self.classify = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        rows, channels, time, joints, persons = x.shape
        y = x.permute(0, 4, 3, 1, 2).reshape(rows, persons * joints * channels, time)
        y = self.norm(y).view(rows, persons, joints, channels, time).permute(0, 1, 3, 4, 2)
        y = self.blocks(y.reshape(rows * persons, channels, time, joints))
        return self.classify(y.mean((2, 3)).view(rows, persons, -1).mean(1))


@pytest.mark.parametrize("rows", [1, 4])
def test_a_whole_skeleton_network_answers_as_the_clip_network(rows: int) -> None:
    net = made(Persons).double()
    program = edgeco.convert(net, torch.zeros(1, 3, 20, JOINTS, 2, dtype=torch.float64))
    assert (program.exactness, program.receptive_field, program.valid_from) == ("exact", 20, 19)
    assert_answers(program, net, recording(rows, 3, 105, JOINTS, 2), 20)


class Excited(nn.Module):
    """Squeeze and excitation over the whole clip."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.less, self.more = nn.Conv3d(4, 4, 3, padding=(0, 1, 1)), nn.Conv3d(4, 2, 1), nn.Conv3d(2, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        gate = self.more(self.less(F.adaptive_avg_pool3d(y, 1)).relu()).sigmoid()
        return (y * gate).mean((2, 3, 4))


def test_a_gate_over_the_clip_is_silent_and_then_equals_it() -> None:
    net = made(Excited).double()
    program = edgeco.convert(net, torch.zeros(1, 4, 6, 5, 6, dtype=torch.float64), exact=True)
    assert (program.valid_from, program.exactness) == (5, "exact")
    assert_answers(program, net, recording(4, 4, 36, 5, 6), 6)


class TwoRates(nn.Module):
    """SlowFast: every fourth frame through a wide pathway, all through a narrow one, joined sideways and at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.slow, self.fast = nn.Conv3d(4, 6, (1, 3, 3), padding=(0, 1, 1)), nn.Conv3d(4, 2, 3, padding=1)
        self.across = nn.Conv3d(2, 4, (5, 1, 1), (4, 1, 1), (2, 0, 0))
        self.slower, self.faster = nn.Conv3d(10, 6, 3, padding=1), nn.Conv3d(2, 2, 3, padding=1)
        self.classify = nn.Linear(8, 3)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        slow, fast = self.slow(x[:, :, ::4]).relu(), self.fast(x).relu()
        slow = self.slower(torch.cat([slow, self.across(fast)], 1)).relu()
        return slow, self.faster(fast).relu()

    def forward(self, x: Tensor) -> Tensor:
        slow, fast = self.features(x)
        return self.classify(torch.cat([slow.mean((2, 3, 4)), fast.mean((2, 3, 4))], 1))


class Slow(TwoRates):
    """The slow pathway before pooling."""

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[0]


def test_two_rates_joined_sideways() -> None:
    program = assert_streams(made(Slow), (4, 16, 5, 6))
    assert program.stride == 4


def test_two_rates_answer_for_the_means_of_both_pathways() -> None:
    net = made(TwoRates).double()
    program = edgeco.convert(net, torch.zeros(1, 4, 16, 5, 6, dtype=torch.float64), exact="clip")
    assert (program.stride, program.exactness) == (1, "exact") or program.stride == 4
    assert_answers(program, net, recording(2, 4, 80, 5, 6), 16)
