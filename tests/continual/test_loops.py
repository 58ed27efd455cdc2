"""Python loops over time, rolled back into one iteration a step: equal to the loop run over the whole recording."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from engine_parity import differences
from loop_nets import (
    CLIP,
    FRAME,
    NETS,
    ConvGRU,
    ConvLSTM,
    FirstApart,
    Framewise,
    GRUCell,
    Learned,
    OneBody,
    Strided,
    TwoLoops,
    Written,
)
from streaming import assert_answers, assert_streams, randomise_norms, recording, relative
from torch import Tensor, nn

import edgeco
from edgeco.continual.convert import convert_graph, trace_network
from edgeco.errors import UnsupportedOperator
from edgeco.export.onnx import propagate
from edgeco.export.package import step_macs
from edgeco.graph.cost import total_macs


def made(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return randomise_norms(build()).eval()


def clip_of(build: Callable[[], nn.Module]) -> tuple[int, ...]:
    return (2, 12, *FRAME) if build is Strided else CLIP


@pytest.mark.sampled(2)
@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_every_element_equals_the_loop_over_the_whole_recording(build: Callable[[], nn.Module]) -> None:
    program = assert_streams(made(build), clip_of(build))
    assert program.exactness == ("exact" if build is Framewise else "unpadded")


@pytest.mark.sampled(4)
@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_onnx_runtime_streams(build: Callable[[], nn.Module]) -> None:
    found = differences(made(build), clip_of(build), steps=110, rows=4 if build in (ConvGRU, ConvLSTM, Learned) else 1)
    assert max(found.values()) < 1e-5


@pytest.mark.sampled(3)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("build", [ConvGRU, ConvLSTM, FirstApart])
def test_rows_and_types(build: type[nn.Module], rows: int, dtype: torch.dtype) -> None:
    net = made(build).to(dtype)
    program = edgeco.convert(net, torch.zeros(1, *CLIP, dtype=dtype))
    long = recording(rows, 2, 40, *FRAME, dtype=dtype)
    with torch.no_grad():
        assert relative(program.forward_steps(long, pad_end=True), net(long)) < (
            1e-5 if dtype == torch.float32 else 1e-12
        )


class Last(nn.Module):
    """Only the last state is used; the first frame makes the state where none is given, as cells often have it."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.classify = GRUCell(2, 3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = None
        for t in range(x.shape[2]):
            frame = x[:, :, t]
            h = self.cell(frame, self.cell.start(frame) if h is None else h)
        return self.classify(h.mean((2, 3)))


def test_the_last_state_is_that_of_the_recording_so_far() -> None:
    net = made(Last).double()
    program = edgeco.convert(net, torch.zeros(1, *CLIP, dtype=torch.float64))
    assert (program.valid_from, program.exactness, program.receptive_field) == (5, "unpadded", 6)
    long = recording(3, 2, 40, *FRAME)
    for step, frame in enumerate(long.unbind(2)):
        given = program.forward_step(frame)
        assert (given is None) == (step < 5)
        if given is not None:
            with torch.no_grad():
                assert relative(given, net(long[:, :, : step + 1])) < 1e-12


def macs(build: Callable[[], nn.Module], clip: tuple[int, ...]) -> tuple[int, int]:
    """Multiply-accumulates of the clip network and of a step."""
    graph = trace_network(made(build), torch.zeros(1, *clip))
    step = convert_graph(graph)
    for phase in step.phases:
        propagate(phase.module, step)
    return total_macs(graph.graph, graph.batch), step_macs(step)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("build", [ConvGRU, Learned, TwoLoops, OneBody, Last, Written, Framewise], ids=str)
def test_a_step_costs_one_iteration(build: Callable[[], nn.Module]) -> None:
    whole, step = macs(build, CLIP)
    rest = 3 * 4 if build is Last else 0
    assert step - rest == (whole - rest) // CLIP[1]


class Summed(nn.Module):
    """The mean of a head's answers after every frame, summed up by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.classify = GRUCell(2, 3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        h, total = self.cell.start(x), 0
        for t in range(x.shape[2]):
            h = self.cell(x[:, :, t], h)
            total = total + self.classify(h.mean((2, 3)))
        return total / x.shape[2]


def test_sums_do_not_grow_without_end() -> None:
    net = made(Summed).double()
    program = edgeco.convert(net, torch.zeros(1, *CLIP, dtype=torch.float64))
    long = recording(2, 2, 40, *FRAME)
    given = program.forward_steps(long)
    with torch.no_grad():
        states = ConvGRU.forward(net, long)  # type: ignore[arg-type]
        heads = net.classify(states.mean((3, 4)).transpose(1, 2))  # type: ignore[operator]
    assert relative(given, heads.unfold(1, 6, 1).mean(-1)) < 1e-12
    whole, step = macs(Summed, CLIP)
    assert step == whole // CLIP[1]


class Table(nn.Module):
    """Iterations differ by a constant of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.table = GRUCell(2, 3), nn.Parameter(torch.randn(6, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.cell.start(x)
        for t in range(x.shape[2]):
            h = self.cell(x[:, :, t], h + self.table[t])
        return h.mean((2, 3))


class Context(nn.Module):
    """Every iteration reads a summary of the whole clip."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.mix = GRUCell(2, 3), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        h, whole = self.cell.start(x), self.mix(x.mean((2, 3, 4)))[:, :, None, None]
        for t in range(x.shape[2]):
            h = self.cell(x[:, :, t] + whole, h)
        return h.mean((2, 3))


@pytest.mark.parametrize(("build", "why"), [(Table, "iterations differ"), (Context, "changes with time")])
def test_what_cannot_be_rolled_runs_over_the_window(build: type[nn.Module], why: str) -> None:
    net = made(build).double()
    program = edgeco.convert(net, torch.zeros(1, *CLIP, dtype=torch.float64), exact=True)
    notes = [note for note in program.report if note.op == "loop"]
    assert len(notes) == 1 and why in notes[0].form and "loop_nets.py" in notes[0].where
    assert program.exactness == "exact"
    assert_answers(program, net, recording(4, 2, 36, *FRAME), 6)


def test_exact_clips_run_over_the_window() -> None:
    net = made(Last).double()
    program = edgeco.convert(net, torch.zeros(1, *CLIP, dtype=torch.float64), exact="clip")
    assert program.exactness == "exact"
    assert_answers(program, net, recording(4, 2, 36, *FRAME), 6)


class Both(nn.Module):
    """A loop in each direction."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = GRUCell(2, 3), GRUCell(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = s = self.a.start(x)
        for t in range(x.shape[2]):
            h = self.a(x[:, :, t], h)
        for t in reversed(range(x.shape[2])):
            s = self.b(x[:, :, t], s)
        return (h + s).mean((2, 3))


def test_a_loop_from_the_end_is_refused() -> None:
    with pytest.raises(UnsupportedOperator, match=r"loop at .*loop_nets.py.*from the end.*exact=True"):
        edgeco.convert(made(Both), torch.zeros(1, *CLIP))


def test_a_loop_from_the_end_over_a_live_window() -> None:
    net = made(Both).double()
    program = edgeco.convert(net, torch.zeros(1, *CLIP, dtype=torch.float64), exact="clip")
    assert_answers(program, net, recording(4, 2, 36, *FRAME), 6)


class Channels(nn.Module):
    """A loop over channels, forwards and backwards, is none over time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 5, 3, padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        h, outs = torch.zeros_like(y[:, 0]), []
        for c in range(5):
            h = (0.5 * h + y[:, c]).tanh()
            outs.append(h)
        for c in reversed(range(5)):
            h = (0.5 * h + y[:, c]).tanh()
        return torch.stack([*outs, h], 1)


def test_a_loop_over_another_axis_stays() -> None:
    program = assert_streams(made(Channels), CLIP)
    assert program.exactness == "exact" and not any(note.op == "loop" for note in program.report)
