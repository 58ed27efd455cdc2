"""The step program: several inputs and outputs, verbs, state, copies, errors."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from small_nets import Functional, PaddedPair, SharedWeights
from streaming import recording, relative, step_by_step, windows
from torch import Tensor, nn

import edgeco
from edgeco.errors import FrameError, SpecError


class SeveralOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.early, self.late = nn.Conv1d(3, 2, 3), nn.Conv1d(2, 2, 5, padding=2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        early = self.early(x)
        return {"early": early, "late": self.late(early), "class": early.mean(2)}


def test_several_outputs_each_with_its_own_delay() -> None:
    torch.manual_seed(6)
    net = SeveralOutputs().double().eval()
    program = edgeco.convert(net, torch.zeros(1, 3, 8, dtype=torch.float64))
    assert [(a.name, a.timeline.delay, a.timeline.starts_at) for a in program.answers] == [
        ("early", 2, 2),
        ("late", 4, 4),
        ("class", 7, 7),
    ]
    long = recording(2, 3, 40)
    answers = [program.forward_step(f) for f in long.unbind(2)]
    assert answers[1] is None
    assert answers[2]["late"] is None and answers[2]["class"] is None
    with torch.no_grad():
        whole = net(long)
    assert relative(torch.stack([a["early"] for a in answers[2:]], 2), whole["early"]) < 1e-12
    assert relative(torch.stack([a["late"] for a in answers[4:]], 2), whole["late"][:, :, :36]) < 1e-12
    assert relative(torch.stack([a["class"] for a in answers[7:]], 0), windows(whole["early"], 6).mean(3)) < 1e-12


class TwoInputs(nn.Module):
    """Two streams with different axes for time, and one input without time."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(3, 4, 3), nn.Conv2d(2, 4, (5, 1), padding=(1, 0))

    def forward(self, video: Tensor, sensor: Tensor, who: Tensor) -> Tensor:
        mixed = self.a(video) + self.b(sensor).mean(3)
        return mixed * who[:, :, None]


def test_several_inputs_and_one_without_time() -> None:
    torch.manual_seed(7)
    net = TwoInputs().double().eval()
    zeros = lambda *shape: torch.zeros(*shape, dtype=torch.float64)  # noqa: E731
    program = edgeco.convert(net, (zeros(1, 3, 8), zeros(1, 2, 8, 4), zeros(1, 4)), time_dim=(2, 2, None))
    video, sensor, who = recording(2, 3, 30), recording(2, 2, 30, 4, seed=2), recording(2, 4, seed=3)
    made = program.forward_steps(video, sensor, who, pad_end=True)
    with torch.no_grad():
        expected = net(video, sensor, who)
    assert relative(made, expected) < 1e-12
    named = edgeco.convert(
        net,
        {"video": zeros(1, 3, 8), "sensor": zeros(1, 2, 8, 4), "who": zeros(1, 4)},
        time_dim={"video": 2, "sensor": 2},
    )
    assert relative(named.forward_steps(video=video, sensor=sensor, who=who, pad_end=True), expected) < 1e-12


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_batch_and_type(batch: int, dtype: torch.dtype) -> None:
    torch.manual_seed(8)
    net = Functional().to(dtype).eval()
    program = edgeco.convert(net, torch.zeros(1, 3, 9, 4, 5, dtype=dtype))
    long = recording(batch, 3, 40, 4, 5, dtype=dtype)
    with torch.no_grad():
        expected = net(long)
    assert relative(program.forward_steps(long, pad_end=True), expected) < (1e-5 if dtype == torch.float32 else 1e-12)


def test_window_sets_the_final_pooling_apart_from_the_clip() -> None:
    torch.manual_seed(9)
    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten()).double().eval()
    program = edgeco.convert(net, torch.zeros(1, 2, 8, dtype=torch.float64), window=20)
    assert (program.receptive_field, program.delay, program.valid_from) == (22, 21, 21)
    long = recording(2, 2, 60)
    made = program.forward_steps(long)
    with torch.no_grad():
        expected = windows(net[0](long), 20).mean(3).permute(1, 0, 2)
    assert relative(made, expected) < 1e-12


def test_deep_copies_and_pickles_go_on_from_the_same_state() -> None:
    torch.manual_seed(10)
    program = edgeco.convert(PaddedPair().double(), torch.zeros(1, 2, 6, 4, 3, dtype=torch.float64))
    long = recording(1, 2, 30, 4, 3)
    program.forward_steps(long[:, :, :11])
    copies = [copy.deepcopy(program), pickle.loads(pickle.dumps(program))]
    expected = program.forward_steps(long[:, :, 11:])
    for other in copies:
        assert torch.equal(other.forward_steps(long[:, :, 11:]), expected)
    ended = copies[1].forward_steps(long, pad_end=True)
    assert ended is not None


def test_step_is_pure_and_chunks_do_not_matter() -> None:
    torch.manual_seed(11)
    program = edgeco.convert(SharedWeights().double(), torch.zeros(1, 3, 8, dtype=torch.float64))
    long = recording(2, 3, 30)
    before = program.initial_state(2)
    kept = {name: [e.clone() for e in elements] for name, elements in before.histories.items()}
    program.step([long[:, :, 0]], before)
    for name, elements in before.histories.items():
        assert all(torch.equal(a, b) for a, b in zip(elements, kept[name], strict=True))
    whole = program.forward_steps(long)
    program.clean_state()
    parts = [program.forward_steps(part) for part in long.split([1, 2, 7, 20], 2)]
    assert torch.equal(torch.cat([p for p in parts if p is not None], 2), whole)
    program.clean_state()
    single = [a for a in step_by_step(program, long) if a is not None]
    assert torch.equal(torch.stack(single, 2), whole)


def test_peeking_leaves_the_state_and_no_graph_grows() -> None:
    program = edgeco.convert(SharedWeights(), torch.zeros(1, 3, 8))
    frame = torch.ones(1, 3, requires_grad=True)
    program.forward_step(frame, update_state=False)
    assert program.state is None
    for _ in range(5):
        program.forward_step(frame)
    assert program.state is not None and program.state.steps == 5
    assert not any(e.requires_grad for elements in program.state.histories.values() for e in elements)


def test_the_source_network_is_left_alone() -> None:
    net = nn.Sequential(nn.Conv1d(2, 2, 3), nn.BatchNorm1d(2), nn.Dropout(0.5)).train()
    before = copy.deepcopy(net.state_dict())
    edgeco.convert(net, torch.zeros(4, 2, 8))
    assert net.training and net[1].training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (torch.zeros(1, 4), r"takes \(rows, 3\); a tensor of shape \(1, 4\) was given"),
        (torch.zeros(1, 3, 5), r"takes \(rows, 3\); a tensor of shape \(1, 3, 5\)"),
        (torch.zeros(3), r"takes \(rows, 3\)"),
    ],
)
def test_a_frame_of_another_shape_is_refused(frame: Tensor, said: str) -> None:
    program = edgeco.convert(SharedWeights(), torch.zeros(1, 3, 8))
    with pytest.raises(FrameError, match=said):
        program.forward_step(frame)


def test_another_batch_in_mid_stream_is_refused() -> None:
    program = edgeco.convert(SharedWeights(), torch.zeros(1, 3, 8))
    program.forward_step(torch.zeros(4, 3))
    with pytest.raises(FrameError, match="4 rows and the frame 1"):
        program.forward_step(torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("clip", "time_dim", "said"),
    [
        (torch.zeros(1, 3, 8), 3, "time_dim 3 does not fit"),
        (torch.zeros(1, 3, 8), 0, "time_dim 0 does not fit"),
        ((torch.zeros(1, 3, 8),), (2, 2), "2 entries for 1 inputs"),
        ({"x": torch.zeros(1, 3, 8)}, {"y": 2}, "time_dim names"),
        ((3,), 2, "not a tensor"),
    ],
)
def test_clip_and_time_axis_must_fit(clip: object, time_dim: object, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        edgeco.convert(SharedWeights(), clip, time_dim=time_dim)  # type: ignore[arg-type]
