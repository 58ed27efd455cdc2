"""Networks as users write them: functional calls, slices, branches, heads, tables, merges of time with other axes."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from streaming import assert_streams, assert_windows, randomise_norms, recording, relative, step_by_step, windows
from torch import Tensor, nn
from torch.nn import functional as F

import edgeco
from edgeco.errors import ConversionError, FrameError, SpecError


class Functional(nn.Module):
    """Functional calls, slices along time, two branches of unequal kernel, a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Parameter(torch.randn(4, 3, 5, 3, 3) * 0.2)
        self.narrow = nn.Conv3d(3, 4, (3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        wide = F.relu(F.conv3d(x, self.wide, padding=(0, 1, 1)))
        narrow = torch.tanh(self.narrow(x))[:, :, 1:-1]
        return torch.cat([wide, narrow, x[:, :, 2:-2]], dim=1)


class TimeSum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        lagging, centred, leading = x[:, :, :-4], x[:, :, 2:-2], x[:, :, 4:]
        return lagging + 2 * centred - leading


class SharedWeights(nn.Module):
    """One convolution used twice, at different delays."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(F.silu(self.layer(x))) + x


class PaddedPair(nn.Module):
    """A padded convolution and a padded max-pool read one value: zeros for one, minus infinity for the other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = -x.abs() - 1
        return self.conv(x) + F.max_pool3d(x, 3, stride=1, padding=1)


class ShiftedChannels(nn.Module):
    """A temporal shift of some channels, written into a tensor of zeros."""

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        out[:, :2, 1:] = x[:, :2, :-1]
        out[:, 2:4, :-1] = x[:, 2:4, 1:]
        out[:, 4:] = x[:, 4:]
        return out * 2 + 1


class Frames2d(nn.Module):
    """A 2-D backbone over time merged with the batch, its features mixed over time."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.mix = nn.Conv1d(4, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, t, h, w = x.shape
        frames = x.permute(0, 2, 1, 3, 4).reshape(b * t, c, h, w)
        features = self.backbone(frames).view(b, t, -1)
        return self.mix(features.transpose(1, 2))


class Graph(nn.Module):
    """A skeleton block: joints mixed by a matrix, time by a tall kernel; persons merged into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.adjacency = nn.Parameter(torch.rand(5, 5))
        self.widen = nn.Conv2d(3, 6, 1)
        self.time = nn.Conv2d(6, 6, (9, 1), padding=(4, 0))
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        b, c, t, v, m = x.shape
        x = x.permute(0, 4, 1, 2, 3).reshape(b * m, c, t, v)
        x = torch.einsum("nctv,vw->nctw", self.widen(x), self.adjacency)
        x = F.relu(self.norm(self.time(x)) + x)
        return x.view(b, m, 6, t, v).mean(dim=(1, 4))


class Matrices(nn.Module):
    """Products with time in the rows, in the columns and in the leading axes."""

    def __init__(self) -> None:
        super().__init__()
        self.right, self.left = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(7, 4))
        self.late = nn.Conv1d(6, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = (x.transpose(1, 2) @ self.right).transpose(1, 2)
        columns = self.left @ x
        return self.late(rows) * (columns.softmax(1)[:, :6, 1:-1])


class ConstantPad(nn.Module):
    """Padding by a number, and by concatenation, seen through a ReLU and a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 4)

    def forward(self, x: Tensor) -> Tensor:
        one = self.conv(F.relu(F.pad(x, (2, 1), value=0.5)) - 1.0)
        zeros = torch.zeros(x.shape[0], x.shape[1], 3)
        two = self.conv(torch.cat([zeros, x], dim=2))
        return one + two


class FrameNorms(nn.Module):
    """Statistics of each frame by itself stream exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LayerNorm(4)
        self.group = nn.GroupNorm(2, 4)
        self.conv = nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, t = x.shape
        x = self.layer(x.transpose(1, 2))
        x = self.group(x.reshape(b * t, c, 1)).reshape(b, t, c).transpose(1, 2)
        return self.conv(F.glu(torch.cat([x, x * 2], 1), 1))


class BatchInside(nn.Module):
    """The batch is not the first axis where the past is read."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(1, 0, 2)
        return (x[:, :, 1:] - 2 * x[:, :, :-1]).permute(1, 0, 2)


class DeepManyAxes(nn.Module):
    """A long delay of a value with more axes than a state may have."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(1, 0, 2)[None, None, None]
        x = F.pad(x, (20, 0))[..., :-20] * 1.5 + x
        return x[0, 0, 0].permute(1, 0, 2)


class Assigned(nn.Module):
    """Assignments to one position and to a slice, of a constant and of something computed."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        y[:, 0] = 0.5
        y[:, 1] += y[:, 2]
        y[:, :, 0:0] = 1
        return y[:, :, 1:] - y[:, :, :-1]


KEEPING = {
    "assigned": (Assigned(), (3, 8), 2),
    "batch inside": (BatchInside(), (3, 8), 2),
    "deep and of many axes": (DeepManyAxes(), (3, 30), 2),
    "functional": (Functional(), (3, 9, 4, 5), 2),
    "slices": (TimeSum(), (3, 9), 2),
    "shared weights": (SharedWeights(), (3, 8), 2),
    "padded pair": (PaddedPair(), (2, 6, 4, 3), 2),
    "shift": (ShiftedChannels(), (6, 7, 2, 2), 2),
    "frames in the batch": (Frames2d(), (3, 6, 9, 7), 2),
    "skeleton": (Graph(), (3, 12, 5, 2), 2),
    "matrices": (Matrices(), (4, 8), 2),
    "constant padding": (ConstantPad(), (2, 8), 2),
    "frame norms": (FrameNorms(), (4, 8), 2),
    "even kernel": (nn.Conv2d(3, 4, (4, 3), padding=(2, 1)), (3, 9, 5), 2),
    "same padding": (nn.Conv1d(3, 4, 4, padding="same"), (3, 9), 2),
    "padding beyond the kernel": (nn.Conv1d(2, 2, 3, padding=5), (2, 9), 2),
    "grouped 1-D": (nn.Conv1d(6, 6, 5, groups=3, padding=2), (6, 9), 2),
    "long average": (nn.AvgPool1d(7, stride=1, padding=3), (3, 12), 2),
    "long maximum": (nn.MaxPool1d(7, stride=1, padding=3), (3, 12), 2),
    "time last of four": (nn.Conv2d(3, 4, (3, 5), padding=(1, 2)), (3, 6, 11), 3),
}


@pytest.mark.parametrize("name", KEEPING)
def test_stream_equals_clip_network_on_the_whole_recording(name: str) -> None:
    net, clip, time_dim = KEEPING[name]
    torch.manual_seed(3)
    assert_streams(randomise_norms(copy.deepcopy(net)), clip, time_dim=time_dim)


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
