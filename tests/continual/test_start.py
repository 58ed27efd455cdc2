"""Streams that begin as if their first frame had been there for ever."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from gated_nets import NETS
from streaming import randomise_norms, recording, relative
from torch import Tensor, nn

import edgeco
from edgeco.errors import SpecError


def converted(name: str, start: str = "replicate") -> tuple[nn.Module, edgeco.StepProgram, Tensor]:
    """A network, its program, and a recording of five receptive fields."""
    make, clip = NETS[name]
    torch.manual_seed(0)
    net = randomise_norms(make()).double().eval()
    program = edgeco.convert(net, torch.zeros(1, *clip, dtype=torch.float64), start=start)
    frames = 5 * program.receptive_field // len(program.schedule) * len(program.schedule)
    return net, program, recording(2, clip[0], frames, *clip[2:])


def repeated(long: Tensor, times: int) -> Tensor:
    """A recording behind so many of its first frame."""
    return torch.cat([long[:, :, :1].expand(*long.shape[:2], times, *long.shape[3:]), long], 2)


@pytest.mark.parametrize("name", NETS)
def test_it_equals_a_stream_that_was_shown_the_first_frame_for_longer(name: str) -> None:
    _, program, long = converted(name)
    _, plain, _ = converted(name, "zeros")
    given = program.forward_steps(long)
    axis = program.answers[0].stack_dim
    rounds = len(program.schedule)
    assert program.lead % rounds == 0
    assert given.shape[axis] == -(-(long.shape[2] - program.valid_from) // program.stride)
    for times in (program.lead, 3 * program.lead):
        plain.clean_state()
        expected = plain.forward_steps(repeated(long, times))
        kept = given.shape[axis]
        assert relative(given, expected.narrow(axis, expected.shape[axis] - kept, kept)) <= 1e-12


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("name", NETS)
def test_it_equals_the_clip_network_behind_many_first_frames(name: str, rows: int) -> None:
    net, program, long = converted(name)
    long = torch.cat([long, -long])[:rows]
    axis, lead = program.answers[0].stack_dim, program.lead
    with torch.no_grad():
        expected = net(repeated(long, lead))
    given = program.forward_steps(long)
    first = (lead + program.valid_from - program.answers[0].timeline.delay) // program.stride
    both = min(given.shape[axis], expected.shape[axis] - first) - program.receptive_field // program.stride
    assert both > 0
    assert relative(given.narrow(axis, 0, both), expected.narrow(axis, first, both)) <= 1e-12


def test_the_first_answer_is_valid() -> None:
    _, program, long = converted("pools")
    assert program.valid_from == 0
    answers = [program.forward_step(frame) for frame in long.unbind(2)]
    assert all(answer is not None for answer in answers)
    peek = program.forward_step(long[:, :, 0], update_state=False)
    assert peek is not None
    program.clean_state()
    again = program.forward_step(long[:, :, 0])
    assert torch.equal(again, answers[0])
    with torch.no_grad():
        made, state = program.step([long[:, :, 0]], program.begin([long[:, :, 0]]))
    assert torch.equal(made[0], answers[0])
    assert state.steps == program.lead + 1


def test_still_frames_give_one_answer_for_ever() -> None:
    _, program, long = converted("residual")
    still = long[:, :, :1].expand(-1, -1, 30, -1)
    answers = program.forward_steps(still)
    assert relative(answers, answers[:, :, :1].expand_as(answers)) <= 1e-12


def test_a_step_answers_in_its_own_phase() -> None:
    _, program, long = converted("rate 4")
    given = [program.forward_step(frame) is not None for frame in long.unbind(2)]
    assert given == [step % 4 == program.valid_from for step in range(len(given))]


def test_a_recurrent_state_has_seen_the_first_frame_as_often_as_the_program_says() -> None:
    class Memory(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRU(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.cell(x.transpose(1, 2))[0][:, -1]

    net = Memory().double().eval()
    clip = torch.zeros(1, 3, 8, dtype=torch.float64)
    program, plain = edgeco.convert(net, clip, start="replicate"), edgeco.convert(net, clip)
    long = recording(2, 3, 40)
    given = program.forward_steps(long)
    assert given.shape[1] == 40
    assert relative(given, plain.forward_steps(repeated(long, program.lead))[:, -40:]) <= 1e-12


def test_it_copies_and_pickles() -> None:
    _, program, long = converted("convolutions")
    expected = program.forward_steps(long)
    for other in (copy.deepcopy(program), pickle.loads(pickle.dumps(program))):
        other.clean_state()
        assert torch.equal(other.forward_steps(long), expected)


def test_no_frames_give_no_answers() -> None:
    _, program, long = converted("convolutions")
    assert program.forward_steps(long[:, :, :0]) is None
    assert program.forward_step(long[:, :, 0]) is not None


def test_another_start_is_refused() -> None:
    with pytest.raises(SpecError, match='start is \'ones\'; give "zeros" or "replicate"'):
        edgeco.convert(nn.Conv1d(2, 2, 3), torch.zeros(1, 2, 8), start="ones")
