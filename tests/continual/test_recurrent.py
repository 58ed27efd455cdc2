"""Recurrent layers: every element of a stream equals the clip network's over the whole recording."""

from __future__ import annotations

import pytest
import torch
from streaming import assert_answers, assert_streams, recording, relative
from torch import Tensor, nn

import edgeco
from edgeco.errors import UnsupportedOperator


class Recurrent(nn.Module):
    """A convolution, then recurrent layers; (B, C, T) throughout."""

    def __init__(self, kind: type[nn.RNNBase], *, given: bool = False, stride: int = 1, **options: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(2, 3, 3, padding=1, stride=stride)
        self.layers = kind(3, 4, **{"batch_first": True, **options})  # type: ignore[arg-type]
        count = self.layers.num_layers
        self.hidden = nn.Parameter(torch.randn(count, 1, self.layers.proj_size or 4)) if given else None
        self.memory = nn.Parameter(torch.randn(count, 1, 4)) if given else None

    def run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(x)
        y = y.transpose(1, 2) if self.layers.batch_first else y.permute(2, 0, 1)
        start = None
        if self.hidden is not None and self.memory is not None:
            start = self.hidden.expand(-1, x.shape[0], -1).contiguous()
            if isinstance(self.layers, nn.LSTM):
                start = (start, self.memory.expand(-1, x.shape[0], -1).contiguous())
        made, last = self.layers(y, start)
        last = last[0] if isinstance(self.layers, nn.LSTM) else last
        return made.transpose(1, 2) if self.layers.batch_first else made.permute(1, 2, 0), last

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)[0]


class Final(Recurrent):
    """The last layer's state at the end, as classifiers read it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)[1][-1]


class RecurrentRelu(nn.RNN):
    """Elman's cell with relu."""

    def __init__(self, *sizes: int, **options: object) -> None:
        super().__init__(*sizes, nonlinearity="relu", **options)  # type: ignore[arg-type]


KINDS = [nn.RNN, RecurrentRelu, nn.GRU, nn.LSTM]
OPTIONS = {
    "one": {},
    "two layers": {"num_layers": 2},
    "time first": {"num_layers": 2, "batch_first": False},
    "initial state": {"num_layers": 2, "given": True},
    "no bias": {"bias": False},
    "strided": {"stride": 2, "num_layers": 2},
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_element(kind: type[nn.RNNBase], options: dict[str, object]) -> None:
    program = assert_streams(Recurrent(kind, **options), (2, 12))  # type: ignore[arg-type]
    assert program.exactness == "unpadded"


@pytest.mark.parametrize("options", [{}, {"num_layers": 3, "given": True}, {"bias": False}], ids=str)
def test_projections(options: dict[str, object]) -> None:
    assert_streams(Recurrent(nn.LSTM, proj_size=2, **options), (2, 12))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_at_the_end_is_that_of_the_recording_so_far(kind: type[nn.RNNBase]) -> None:
    net = Final(kind, num_layers=2, given=True).double().eval()
    net.conv.padding = (0,)
    program = edgeco.convert(net, torch.zeros(1, 2, 9, dtype=torch.float64))
    long = recording(3, 2, 60)
    assert program.valid_from == 8
    for step, frame in enumerate(long.unbind(2)):
        given = program.forward_step(frame)
        assert (given is None) == (step < 8)
        if given is not None:
            with torch.no_grad():
                assert relative(given, net(long[:, :, : step + 1])) < 1e-12


def test_chunks_equal_steps_and_streams_are_apart() -> None:
    net = Recurrent(nn.GRU, num_layers=2).double().eval()
    program = edgeco.convert(net, torch.zeros(1, 2, 9, dtype=torch.float64))
    long = recording(2, 2, 50)
    whole = program.forward_steps(long)
    program.clean_state()
    chunks = [program.forward_steps(part) for part in long.split([1, 7, 20, 22], 2)]
    assert relative(torch.cat([c for c in chunks if c is not None], 2), whole) < 1e-15
    state = program.initial_state(2)
    with torch.no_grad():
        first = program.step([long[:, :, 0]], state)
        again = program.step([long[:, :, 0]], state)
    assert torch.equal(first[0][0], again[0][0]), "a step leaves the state given to it as it was"


@pytest.mark.parametrize("mode", [False, True, "clip"])
def test_behind_a_norm_over_time_the_layer_runs_over_the_window(mode: bool | str) -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.norm = nn.Conv1d(2, 4, 3), nn.GroupNorm(2, 4)
            self.layers = nn.LSTM(4, 3, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(self.norm(self.conv(x)).transpose(1, 2))[0].mean(1)

    net = Normed().double().eval()
    program = edgeco.convert(net, torch.zeros(1, 2, 8, dtype=torch.float64), exact=mode)
    assert program.exactness == "exact"
    assert_answers(program, net, recording(4, 2, 48), 8)


def test_both_directions_are_refused() -> None:
    with pytest.raises(UnsupportedOperator, match=r"lstm.*bidirectional.*exact=True"):
        edgeco.convert(Recurrent(nn.LSTM, bidirectional=True), torch.zeros(1, 2, 9))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_both_directions_over_a_live_window(kind: type[nn.RNNBase]) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = kind(2, 3, 2, batch_first=True, bidirectional=True)

        def forward(self, x: Tensor) -> Tensor:
            made, last = self.layers(x.transpose(1, 2))
            last = last[0] if isinstance(last, tuple) else last
            return torch.cat([made.mean(1), last.transpose(0, 1).flatten(1)], 1)

    net = Both().double().eval()
    program = edgeco.convert(net, torch.zeros(1, 2, 6, dtype=torch.float64), exact=True)
    assert_answers(program, net, recording(4, 2, 40), 6)
