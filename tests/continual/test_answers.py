"""Networks with one answer per clip: heads, tables, windows, summaries; and those that must be refused."""

from __future__ import annotations

import copy

import pytest
import torch
from streaming import assert_windows, recording, relative, windows
from torch import Tensor, nn
from torch.nn import functional as F

import edgeco
from edgeco.errors import ConversionError


class FlattenHead(nn.Module):
    """A head over the flattened window fixes the clip's length."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3)
        self.head = nn.Linear(4 * 6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).flatten(1))


class Positions(nn.Module):
    """A learned table indexed by the position in the clip."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 4, 7))
        self.conv = nn.Conv1d(3, 4, 2)
        self.after = nn.Conv1d(4, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.after(torch.relu(self.conv(x) + self.table)).mean(2))


class TimeSoftmax(nn.Module):
    """Attention pooling: weights over time by a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Conv1d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.score(x).softmax(2)).sum(2)


class LastAndFirst(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, :, -1] - x[:, :, 0], x.amax(2), x[:, :, 2]], dim=1)


class Heads(nn.Module):
    """Mean, maximum, minimum and sum over time and space, of an unpadded network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 3, 3, padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        pooled = F.adaptive_avg_pool3d(x, 1).flatten(1)
        return torch.cat([pooled, x.amax((2, 3, 4)), x.amin((2, 3, 4)), x.sum((2, 3, 4)), x.std((2, 3, 4))], 1)


ANSWERING = {
    "flatten head": (FlattenHead(), (3, 8), 2),
    "positions": (Positions(), (3, 8), 2),
    "softmax over time": (TimeSoftmax(), (3, 6), 2),
    "first and last": (LastAndFirst(), (3, 6), 2),
    "pooling heads": (Heads(), (2, 6, 4, 5), 2),
    "average pool of the clip": (
        nn.Sequential(nn.Conv3d(2, 3, (2, 1, 1)), nn.AvgPool3d((5, 2, 2)), nn.Flatten()),
        (2, 6, 4, 4),
        2,
    ),
    "max pool of the clip": (nn.Sequential(nn.AdaptiveMaxPool3d((1, 2, 2)), nn.Flatten()), (2, 6, 4, 4), 2),
    "norm over time": (nn.Sequential(nn.GroupNorm(1, 4), nn.AdaptiveAvgPool1d(1), nn.Flatten()), (4, 7), 2),
    "linear over time": (nn.Sequential(nn.Linear(6, 2), nn.Flatten()), (3, 6), 2),
}


@pytest.mark.parametrize("name", ANSWERING)
def test_answers_equal_the_clip_network_on_each_window(name: str) -> None:
    net, clip, time_dim = ANSWERING[name]
    torch.manual_seed(4)
    program = assert_windows(copy.deepcopy(net), clip, time_dim=time_dim)
    assert program.exactness == "exact"


def test_fixed_length_head_pins_the_clip_and_says_why() -> None:
    program = edgeco.convert(FlattenHead(), torch.zeros(1, 3, 8))
    assert program.pinned is not None and "11 frames" in program.pinned
    assert any("live window" in note.form for note in program.report)


class ClipExcite(nn.Module):
    """Squeeze-and-excitation over the whole clip."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * torch.sigmoid(self.gate(x.mean(2, keepdim=True)))


def test_summary_of_the_clip_is_causal_and_sees_the_window_that_ends_at_each_element() -> None:
    torch.manual_seed(5)
    net, length = ClipExcite().double().eval(), 6
    program = edgeco.convert(net, torch.zeros(1, 3, length, dtype=torch.float64))
    assert program.exactness == "causal"
    assert any(note.exactness == "causal" for note in program.report)
    long = recording(2, 3, 40)
    made = program.forward_steps(long)
    with torch.no_grad():
        features = net.conv(long)
        means = windows(features, length).mean(3).permute(1, 2, 0)
        expected = features[:, :, length - 1 :] * torch.sigmoid(net.gate(means))
    assert program.valid_from == 1 + length - 1
    assert relative(made, expected[:, :, : made.shape[2]]) < 1e-12


class AttentionOverRows(nn.Module):
    """The classic mistake: attention that takes time for the first axis, which is the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, x, x)[0]


class RowsByRows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        pooled = x.flatten(1)
        return pooled @ pooled.t()


class CentredRows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return x - x.mean(0, keepdim=True)


@pytest.mark.parametrize("net", [AttentionOverRows(), RowsByRows(), CentredRows()], ids=lambda n: type(n).__name__)
def test_networks_that_mix_rows_are_refused_also_behind_a_window(net: nn.Module) -> None:
    with pytest.raises(ConversionError, match="mixes the rows of"):
        edgeco.convert(net, torch.zeros(1, 6, 4), time_dim=1 if isinstance(net, AttentionOverRows) else 2)


def test_an_output_with_time_inside_an_axis_is_given_whole() -> None:
    torch.manual_seed(12)
    net = nn.Sequential(nn.Conv1d(3, 4, 3), nn.Flatten()).double().eval()
    assert_windows(net, (3, 8))
