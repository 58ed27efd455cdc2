"""The start-up inside the graph: nothing replaced outside it, a stream from reset is still the clip network."""

from __future__ import annotations

import pytest
import torch
from gated_nets import NETS
from hypothesis import HealthCheck, given, settings
from random_nets import EXAMPLES, RandomNet, clip_of, random_nets
from streaming import randomise_norms, recording, relative
from torch import Tensor, nn

from edgeco.continual.convert import StepGraph, convert_graph, trace_network
from edgeco.continual.gate import gate
from edgeco.continual.program import StepProgram
from edgeco.errors import ConversionError


def derived(net: nn.Module, clip: tuple[int, ...]) -> StepGraph:
    return convert_graph(trace_network(net, torch.zeros(1, *clip, dtype=torch.float64)))


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("name", NETS)
def test_every_element_equals_the_clip_networks(name: str, rows: int) -> None:
    make, clip = NETS[name]
    torch.manual_seed(0)
    net = randomise_norms(make()).double().eval()
    plain = derived(net, clip)
    gated = gate(plain)
    assert any(history.starts_at for history in plain.histories)
    assert not any(history.starts_at for history in gated.histories)
    program = StepProgram(net, gated)
    rounds = 6 * max(program.receptive_field, clip[1]) // len(program.schedule)
    frames = clip[1] + rounds * len(program.schedule)
    long = recording(rows, clip[0], frames, *clip[2:])
    with torch.no_grad():
        expected = net(long)
    assert relative(program.forward_steps(long, pad_end=True), expected) <= 1e-12
    ungated = StepProgram(net, plain)
    assert relative(program.forward_steps(long), ungated.forward_steps(long)) <= 1e-12


def test_a_counter_is_a_carried_number_that_stands_still_in_time() -> None:
    make, clip = NETS["rates 1 and 2"]
    net = make().double().eval()
    plain, program = derived(net, clip), StepProgram(net, gate(derived(net, clip)))
    counters = [history for history in program.histories if history.storage == "carry"]
    assert [history.name for history in counters] == ["row_step", "row_step_2_0"]
    assert all(program.period % (2 * history.rate) == 0 for history in counters)
    state = program.initial_state(2)
    for _ in range(40):
        _, state = program.step([torch.zeros(2, *clip[:1], dtype=torch.float64)], state)
    for history in counters:
        limits = [-(-(h.starts_at - h.phase) // h.rate) for h in plain.histories if h.rate == history.rate]
        assert state.histories[history.name][0].tolist() == [[max(limits)]] * 2


def test_a_network_that_needs_no_gate_gets_none() -> None:
    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Conv1d(3, 2, 2)).double().eval()
    gated = gate(derived(net, (2, 8)))
    assert not any(history.storage == "carry" or history.starts_at for history in gated.histories)
    long = recording(2, 2, 40)
    with torch.no_grad():
        assert relative(StepProgram(net, gated).forward_steps(long), net(long)) <= 1e-12


class Divides(nn.Module):
    """Divides by the frame before: by zero, where there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x[:, :, 1:] / x[:, :, :-1])


def test_what_an_empty_past_makes_may_be_nan() -> None:
    net = Divides().double().eval()
    program = StepProgram(net, gate(derived(net, (2, 8))))
    long = recording(2, 2, 40).abs() + 0.5
    with torch.no_grad():
        assert relative(program.forward_steps(long, pad_end=True), net(long)) <= 1e-12


@settings(
    max_examples=EXAMPLES // 4, deadline=None, derandomize=EXAMPLES < 100, suppress_health_check=list(HealthCheck)
)
@given(random_nets())
def test_random_networks(net: RandomNet) -> None:
    net = randomise_norms(net).double().eval()
    plain = derived(net, clip_of(net))
    if any(history.before == "first" for history in plain.histories):
        with pytest.raises(ConversionError, match="copies of its first element"):
            gate(plain)
        return
    programs = [StepProgram(net, step) for step in (gate(plain), plain)]
    shape = [2, *clip_of(net)]
    shape[2] += 3 * programs[0].receptive_field
    long = recording(*shape)
    gated, expected = (program.forward_steps(long) for program in programs)
    if expected is None:
        assert gated is None
    else:
        assert relative(gated, expected) <= 1e-11


class Attends(nn.Module):
    """A padded convolution before attention in which each token sees those up to it, or the newest sees all."""

    def __init__(self, newest: bool) -> None:
        super().__init__()
        self.newest = newest
        self.conv = nn.Conv1d(4, 8, 3, padding=1)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).transpose(1, 2)
        mask = torch.full((x.shape[1], x.shape[1]), float("-inf"), dtype=x.dtype).triu(1)
        return self.layer(x)[:, -1] if self.newest else self.layer(x, mask, is_causal=True).transpose(1, 2)


@pytest.mark.parametrize("newest", [False, True])
def test_attention_starts_as_without_the_gate(newest: bool) -> None:
    torch.manual_seed(0)
    net = Attends(newest).double().eval()
    plain = derived(net, (4, 6))
    long = recording(2, 4, 60)
    expected = StepProgram(net, plain).forward_steps(long)
    assert relative(StepProgram(net, gate(plain)).forward_steps(long), expected) <= 1e-12
