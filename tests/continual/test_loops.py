"""Python loops over time, rolled back into one iteration a step: equal to the loop run over the whole recording."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from engine_parity import differences
from streaming import assert_answers, assert_streams, randomise_norms, recording, relative
from torch import Tensor, nn

import edgeco
from edgeco.continual.convert import convert_graph, trace_network
from edgeco.errors import UnsupportedOperator
from edgeco.export.onnx import propagate
from edgeco.export.package import step_macs
from edgeco.graph.cost import total_macs

FRAME = (4, 5)


class GRUCell(nn.Module):
    """A convolutional gated recurrent unit, with a norm inside."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(channels + hidden, 2 * hidden, 3, padding=1)
        self.new = nn.Conv2d(channels + hidden, hidden, 3, padding=1)
        self.norm = nn.BatchNorm2d(hidden)

    def start(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], self.hidden, *x.shape[-2:])

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        reset, update = self.gates(torch.cat([x, h], 1)).sigmoid().chunk(2, 1)
        new = self.norm(self.new(torch.cat([x, reset * h], 1))).tanh()
        return (1 - update) * h + update * new


class LSTMCell(nn.Module):
    """A convolutional long short-term memory."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(channels + hidden, 4 * hidden, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o, g = torch.split(self.gates(torch.cat([x, h], dim=1)), self.hidden, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class ConvGRU(nn.Module):
    """One layer, every state."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = GRUCell(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, outs = self.cell.start(x), []
        for t in range(x.shape[2]):
            h = self.cell(x[:, :, t], h)
            outs.append(h)
        return torch.stack(outs, 2)


class ConvLSTM(nn.Module):
    """A padded convolution, then a layer that carries two tensors; frames by unbind, zeros from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.cell = nn.Conv3d(2, 3, 3, padding=1), LSTMCell(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        h, c = torch.zeros_like(y[:, :, 0]), torch.zeros_like(y[:, :, 0])
        outs = []
        for frame in y.unbind(2):
            h, c = self.cell(frame, h, c)
            outs += [h]
        return torch.stack(outs, dim=2)


class Learned(nn.Module):
    """Starts from a learned tensor, expanded over the batch, or from a constant other than zero."""

    def __init__(self, number: float | None = None) -> None:
        super().__init__()
        self.cell = GRUCell(2, 3)
        start = torch.randn(1, 3, *FRAME) if number is None else torch.full((1, 3, *FRAME), number)
        self.start = nn.Parameter(start)

    def forward(self, x: Tensor) -> Tensor:
        h, outs = self.start.expand(x.shape[0], -1, -1, -1), []
        for t in range(x.shape[2]):
            h = self.cell(x[:, :, t], h)
            outs.append(h)
        return torch.stack(outs, 2)


class TwoLoops(nn.Module):
    """The second layer's loop runs over the first one's list."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = GRUCell(2, 3), LSTMCell(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h, first = self.a.start(x), []
        for t in range(x.shape[2]):
            h = self.a(x[:, :, t], h)
            first.append(h)
        s, c, outs = x.new_zeros(x.shape[0], 2, *FRAME), x.new_zeros(x.shape[0], 2, *FRAME), []
        for y in first:
            s, c = self.b(y, s, c)
            outs.append(s)
        return torch.stack(outs, 2)


class OneBody(nn.Module):
    """Both layers in one loop's body."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = GRUCell(2, 3), GRUCell(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h, s, outs = self.a.start(x), self.b.start(x), []
        for t in range(x.shape[2]):
            h = self.a(x[:, :, t], h)
            s = self.b(h, s)
            outs.append(s)
        return torch.stack(outs, 2)


class Between(nn.Module):
    """A convolution over time between two loops; time first, frames as slices that keep their axis."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = GRUCell(2, 3), GRUCell(3, 2)
        self.conv = nn.Conv3d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y, h, outs = x.permute(2, 0, 1, 3, 4), self.a.start(x), []
        for t in range(x.shape[2]):
            h = self.a(y[t], h)
            outs.append(h)
        z, s, outs = self.conv(torch.stack(outs).permute(1, 2, 0, 3, 4)), self.b.start(x), []
        for t in range(x.shape[2]):
            s = self.b(z[:, :, t : t + 1].squeeze(2), s)
            outs.append(s.unsqueeze(2))
        return torch.cat(outs, 2)


class Written(nn.Module):
    """Writes each state into a prepared tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = GRUCell(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.cell.start(x)
        out = x.new_zeros(x.shape[0], 3, *x.shape[2:])
        for t in range(x.shape[2]):
            h = self.cell(x[:, :, t], h)
            out[:, :, t] = h
        return out


class Grown(nn.Module):
    """Lets a tensor grow by each state."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = GRUCell(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = out = self.cell(x[:, :, 0], self.cell.start(x))
        out = out.unsqueeze(2)
        for t in range(1, x.shape[2]):
            h = self.cell(x[:, :, t], h)
            out = torch.cat([out, h.unsqueeze(2)], 2)
        return out


class FirstApart(nn.Module):
    """The first frame goes through another layer."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.first = GRUCell(2, 3), nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x[:, :, 0]) + 1
        outs = [h]
        for t in range(1, x.shape[2]):
            h = self.cell(x[:, :, t], h)
            outs.append(h)
        return torch.stack(outs, 2)


class Average(nn.Module):
    """An exponential moving average that starts from the first frame."""

    def forward(self, x: Tensor) -> Tensor:
        h = x[:, :, 0]
        outs = [h]
        for t in range(1, x.shape[2]):
            h = 0.75 * h + 0.25 * x[:, :, t]
            outs.append(h)
        return torch.stack(outs, 2)


class Filter(nn.Module):
    """A recursive filter of second order."""

    def forward(self, x: Tensor) -> Tensor:
        before = last = torch.zeros_like(x[:, :, 0])
        outs = []
        for t in range(x.shape[2]):
            before, last = last, 0.2 * x[:, :, t] + 1.1 * last - 0.4 * before
            outs.append(last)
        return torch.stack(outs, 2)


class Difference(nn.Module):
    """Carries the previous frame itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        last, outs = torch.zeros_like(x[:, :, 0]), []
        for t in range(x.shape[2]):
            outs.append(self.conv(x[:, :, t] - last).relu())
            last = x[:, :, t]
        return torch.stack(outs, 2)


class Framewise(nn.Module):
    """Carries nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.conv(x[:, :, t]).relu() for t in range(x.shape[2])], 2)


class Strided(nn.Module):
    """A loop over every second frame's features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.cell = nn.Conv3d(2, 3, 3, (2, 1, 1), padding=1), GRUCell(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        h, outs = self.cell.start(x), []
        for t in range(y.shape[2]):
            h = self.cell(y[:, :, t], h)
            outs.append(h)
        return torch.stack(outs, 2)


class Numbers(nn.Module):
    """nn.GRUCell and nn.LSTMCell over features."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.GRUCell(2, 4), nn.LSTMCell(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, h = x.mean((3, 4)), torch.zeros(x.shape[0], 4, dtype=x.dtype)
        s = torch.zeros(x.shape[0], 3, dtype=x.dtype)
        c, outs = torch.zeros_like(s), []
        for t in range(y.shape[2]):
            h = self.a(y[:, :, t], h)
            s, c = self.b(h, (s, c))
            outs.append(s)
        return torch.stack(outs, -1)


NETS: dict[str, Callable[[], nn.Module]] = {
    "ConvGRU": ConvGRU,
    "ConvLSTM": ConvLSTM,
    "learned start": Learned,
    "start of ones": lambda: Learned(1.0),
    "two loops": TwoLoops,
    "one body": OneBody,
    "between": Between,
    "written": Written,
    "grown": Grown,
    "first apart": FirstApart,
    "average": Average,
    "filter": Filter,
    "difference": Difference,
    "framewise": Framewise,
    "strided": Strided,
    "numbers": Numbers,
}
CLIP = (2, 6, *FRAME)


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
    assert len(notes) == 1 and why in notes[0].form and "test_loops.py" in notes[0].where
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
    with pytest.raises(UnsupportedOperator, match=r"loop at .*test_loops.py.*from the end.*exact=True"):
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
