"""The modes that go over to live windows: answers equal the clip network where streaming alone would differ."""

from __future__ import annotations

import pytest
import torch
from engine_parity import differences
from streaming import assert_answers, randomise_norms, recording, relative
from torch import Tensor, nn
from torch.nn import functional as F

import edgeco
from edgeco.errors import SpecError


class Excited(nn.Module):
    """Padded in time, gated by the mean of the whole clip, pooled."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4)
        self.gate, self.after = nn.Conv3d(4, 4, 1), nn.Conv3d(4, 3, (2, 1, 1))

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))

    def head(self, y: Tensor) -> Tensor:
        y = y * self.gate(y.mean((2, 3, 4), keepdim=True)).sigmoid()
        return self.after(y).mean((2, 3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class Padded(nn.Module):
    """Every way to pad in time: convolutions, pools, explicit padding, a recurrent layer's start."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.conv, self.layer = nn.Conv1d(2, 3, 3), nn.GRU(3, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(F.pad(x, (2, 1), value=0.5) if self.kind == "pad" else x)
        if self.kind == "conv":
            y = F.conv1d(y, self.conv.weight[:, :1].expand(-1, 3, -1), padding=1)
        if self.kind == "max":
            y = F.max_pool1d(y, 3, 1, 1)
        if self.kind == "mean":
            y = F.avg_pool1d(y, 3, 2, 1, count_include_pad=False)
        if self.kind == "conv, recurrent":
            y = F.conv1d(y, self.conv.weight[:, :1].expand(-1, 3, -1), padding=1)
        if self.kind.endswith("recurrent"):
            y = self.layer(y.transpose(1, 2))[0].transpose(1, 2)
        return y.flip(1).mean(2)


@pytest.mark.parametrize("kind", ["conv", "max", "mean", "pad", "recurrent", "conv, recurrent"])
def test_clip_equals_the_clip_network_on_the_last_frames(kind: str) -> None:
    net = Padded(kind).double().eval()
    plain = edgeco.convert(net, torch.zeros(1, 2, 9, dtype=torch.float64))
    program = edgeco.convert(net, torch.zeros(1, 2, 9, dtype=torch.float64), exact="clip")
    assert (plain.exactness, program.exactness) == ("unpadded", "exact")
    assert (program.receptive_field, program.valid_from, program.stride) == (9, 8, 1)
    assert any("live window" in note.form for note in program.report)
    assert_answers(program, net, recording(4, 2, 60), 9)


@pytest.mark.parametrize("mode", [True, "interior"])
def test_interior_pads_with_real_frames_and_gates_each_clip_by_its_own_mean(mode: bool | str) -> None:
    net = randomise_norms(Excited()).double().eval()
    assert isinstance(net, Excited)
    clip = torch.zeros(1, 2, 7, 4, 4, dtype=torch.float64)
    assert edgeco.convert(net, clip).exactness == "causal"
    program = edgeco.convert(net, clip, exact=mode)
    assert program.exactness == "unpadded"
    long = recording(4, 2, 60, 4, 4)
    given = program.forward_steps(long)
    with torch.no_grad():
        features = net.features(long)
        for i in range(given.shape[1]):
            assert relative(given[:, i], net.head(features[:, :, i : i + 7])) < 1e-12


def test_clip_gates_and_pads_as_the_clip_network_does() -> None:
    net = randomise_norms(Excited()).double().eval()
    program = edgeco.convert(net, torch.zeros(1, 2, 7, 4, 4, dtype=torch.float64), exact="clip")
    assert_answers(program, net, recording(4, 2, 60, 4, 4), 7)


class Joined(nn.Module):
    """A summary of the clip concatenated to its elements, and expanded over them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last = nn.Conv1d(2, 3, 3), nn.Conv1d(6, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.last(torch.cat([y, y.amax(2, keepdim=True).expand(-1, -1, y.shape[2])], 1)).mean(2)


def test_summaries_that_are_expanded_and_joined() -> None:
    net = Joined().double().eval()
    program = edgeco.convert(net, torch.zeros(1, 2, 9, dtype=torch.float64), exact=True)
    assert program.exactness == "exact"
    assert_answers(program, net, recording(2, 2, 60), 9)


def test_where_nothing_differs_nothing_is_recomputed() -> None:
    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1))
    for mode in (False, True, "clip"):
        program = edgeco.convert(net, torch.zeros(1, 2, 9), exact=mode)
        assert program.exactness == "exact" and not any("live" in note.form for note in program.report)


def test_there_is_no_other_mode() -> None:
    with pytest.raises(SpecError, match='exact is \'nearly\'; give True, "interior" or "clip"'):
        edgeco.convert(nn.Conv1d(2, 3, 3), torch.zeros(1, 2, 9), exact="nearly")


@pytest.mark.parametrize("mode", ["interior", "clip"])
def test_engine_equals_the_torch_runner(mode: str) -> None:
    worst = differences(randomise_norms(Excited()).eval(), (2, 7, 4, 4), steps=110, rows=2, exact=mode)
    assert max(worst.values()) < 1e-4


def test_engine_runs_a_recurrent_layer_over_a_window() -> None:
    for kind in ("recurrent", "conv, recurrent"):
        worst = differences(Padded(kind).eval(), (2, 9), steps=110, rows=3, exact="clip")
        assert max(worst.values()) < 1e-4
