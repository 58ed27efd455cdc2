"""Cases in which another library for step-wise inference was found wrong, numbered as in its list of defects."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from streaming import assert_streams, clip_answers, randomise_norms, recording, relative
from torch import Tensor, nn
from torch.nn import functional as F

import edgeco
from edgeco.errors import ConversionError, EdgecoError, FrameError
from edgeco.models import x3d

TOKENS = 10


class Encoder(nn.Module):
    """Transformer layers over time, read at the newest token or averaged over all."""

    def __init__(
        self, layers: int, *, newest: bool = True, first: bool = False, scale: float = 1.0, act: str = "relu"
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, activation=act, batch_first=True, norm_first=first)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.newest = newest
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
            for made in self.encoder.layers:
                made.self_attn.in_proj_weight[:8] *= scale**0.5

    def forward(self, x: Tensor) -> Tensor:
        y = self.encoder(x.transpose(1, 2))
        return y[:, -1] if self.newest else y.mean(1)


def assert_windows_of(
    net: nn.Module, clip: tuple[int, ...], *, dtype: torch.dtype, tolerance: float, exact: bool = False
) -> None:
    """Answers of at least five windows, batch 4, against the clip network on each."""
    net = net.to(dtype).eval()
    program = edgeco.convert(net, torch.zeros(1, *clip, dtype=dtype), exact=exact)
    length = clip[1]
    long = recording(4, clip[0], 6 * length, *clip[2:], dtype=torch.float32).to(dtype)
    with torch.no_grad():
        for step, frame in enumerate(long.unbind(2)):
            given = program.forward_step(frame)
            assert (given is None) == (step < length - 1)
            if given is not None:
                expected = net(long[:, :, step + 1 - length : step + 1])
                assert relative(given.float(), expected.float()) <= tolerance, f"step {step}"


@pytest.mark.parametrize("newest", [True, False], ids=["newest", "mean"])
@pytest.mark.parametrize("first", [True, False], ids=["pre-norm", "post-norm"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_b1_b2_encoders_of_any_depth_at_every_step(layers: int, first: bool, newest: bool) -> None:
    """A ring index modulo the wrong number; layers in the middle never written."""
    net = Encoder(layers, newest=newest, first=first)
    assert_windows_of(net, (4, TOKENS), dtype=torch.float64, tolerance=1e-11, exact=layers > 1 or not newest)


def largest_logit(net: Encoder) -> float:
    tokens = recording(1, 4, TOKENS, dtype=torch.float32).transpose(1, 2)
    query, key, _ = F.linear(tokens, net.encoder.layers[0].self_attn.in_proj_weight).chunk(3, -1)
    return float((query @ key.transpose(1, 2)).abs().max())


@pytest.mark.parametrize("scale", [1.0, 300.0, 3000.0])
def test_b3_attention_with_large_logits(scale: float) -> None:
    """Exponentials without a maximum overflow from logits of 88 on."""
    net = Encoder(2, scale=scale)
    assert scale < 3000 or largest_logit(net) > 300
    assert_windows_of(net, (4, TOKENS), dtype=torch.float32, tolerance=1e-4, exact=True)


@pytest.mark.parametrize("scale", [1.0, 300.0, 3000.0])
def test_b3_attention_in_half_precision(scale: float) -> None:
    """No further from the truth than the clip network itself is in that precision."""
    net = Encoder(2, scale=scale).bfloat16().eval()
    exact = copy.deepcopy(net).double()
    program = edgeco.convert(net, torch.zeros(1, 4, TOKENS, dtype=torch.bfloat16), exact=True)
    long = recording(4, 4, 6 * TOKENS, dtype=torch.float32).bfloat16()
    given = program.forward_steps(long).double()
    with torch.no_grad():
        windows = [long[:, :, i : i + TOKENS] for i in range(given.shape[1])]
        truth = torch.stack([exact(w.double()) for w in windows], 1)
        clip = torch.stack([net(w).double() for w in windows], 1)
    assert given.isfinite().all()
    assert (given - truth).abs().mean() <= 1.5 * (clip - truth).abs().mean()


class Strides(nn.Module):
    """A strided block whose shortcut has kernel 1 and stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.shortcut = nn.Conv2d(2, 3, (9, 1), (2, 1), (4, 0)), nn.Conv2d(2, 3, 1, (2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.main(x) + self.shortcut(x))


def test_b4_kernel_1_with_stride_2_step_by_step() -> None:
    program = assert_streams(Strides(), (2, 20, 3))
    program.clean_state()
    shown = [program.forward_step(frame) is not None for frame in recording(1, 2, 20, 3).unbind(2)]
    assert shown == [t >= 4 and t % 2 == 0 for t in range(20)]


class Merged(nn.Module):
    """Strided branches of unequal delay, one of them delayed by an odd number of frames."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv1d(2, 3, 3, stride=2, padding=1), nn.Conv1d(3, 3, 5, padding=2))
        self.b = nn.Conv1d(2, 3, 6, stride=2, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x)


def test_b5_strided_branches_meet_by_element() -> None:
    assert_streams(Merged(), (2, 20))


@pytest.mark.parametrize(
    "layer",
    [nn.GroupNorm(2, 4), nn.InstanceNorm1d(4, affine=True), nn.Softmax(2), nn.GLU(2)],
    ids=lambda layer: type(layer).__name__,
)
def test_b6_statistics_over_time_are_never_silent(layer: nn.Module) -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.layer = nn.Conv1d(2, 4, 1), layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.conv(x))[:, :, -1]

    torch.manual_seed(0)
    net = Normed().double().eval()
    try:
        program = edgeco.convert(net, torch.zeros(1, 2, 8, dtype=torch.float64))
    except ConversionError as error:
        assert "test_known_defects.py" in str(error)
        return
    long = recording(2, 2, 48)
    given = program.forward_steps(long)
    expected = clip_answers(net, long, 8)
    if program.exactness == "causal":  # and then exact where it is asked to be
        program = edgeco.convert(net, torch.zeros(1, 2, 8, dtype=torch.float64), exact=True)
        given = program.forward_steps(long)
    assert relative(given, expected) < 1e-12
    assert any(note.exactness == "causal" or "live window" in note.form for note in program.report)


@pytest.mark.parametrize("pool", [F.max_pool1d, F.max_pool2d, F.max_pool3d])
def test_b7_padded_max_pooling_of_negative_values(pool: object) -> None:
    class Pooled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return pool(-x.abs() - 1, 3, 1, 1)  # type: ignore[operator, no-any-return]

    rank = {F.max_pool1d: 1, F.max_pool2d: 2, F.max_pool3d: 3}[pool]
    assert_streams(Pooled(), (2, 9, *[4] * (rank - 1)))


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool1d(2, 1, dilation=3),
        nn.MaxPool1d(3, 1, 1, dilation=2),
        nn.MaxPool1d(3, 2, ceil_mode=True),
        nn.AvgPool1d(3, 2, ceil_mode=True),
        nn.AvgPool1d(3, 1, 1, count_include_pad=False),
        nn.AvgPool1d(5, 3, 2, count_include_pad=False),
    ],
    ids=str,
)
def test_b8_options_of_pooling(layer: nn.Module) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x - 2.0)  # type: ignore[no-any-return]

    for more in range(3):
        assert_streams(Pooled(), (2, 12), more=more)


def small() -> nn.Module:
    """A padded residual-free stack with norms that are no identity."""
    torch.manual_seed(0)
    layers = (nn.Conv1d(2, 3, 3, padding=1), nn.BatchNorm1d(3), nn.ReLU(), nn.Conv1d(3, 2, 3, stride=2))
    return randomise_norms(nn.Sequential(*layers)).double().eval()


def test_b9_copies_pickles_and_saved_programs() -> None:
    program = edgeco.convert(small(), torch.zeros(1, 2, 12, dtype=torch.float64))
    long = recording(2, 2, 40)
    whole = program.forward_steps(long)
    saved = io.BytesIO()
    torch.save(program, saved)
    saved.seek(0)
    for other in (
        copy.deepcopy(program),
        pickle.loads(pickle.dumps(program)),
        torch.load(saved, weights_only=False),
    ):
        other.clean_state()
        assert torch.equal(other.forward_steps(long), whole)


def test_b10_one_state_of_the_whole_network() -> None:
    program = edgeco.convert(small(), torch.zeros(1, 2, 12, dtype=torch.float64))
    long = recording(1, 2, 40)
    program.forward_steps(long[:, :, :17])
    kept = program.state
    rest = program.forward_steps(long[:, :, 17:])
    program.clean_state()
    assert program.state is None
    program.state = kept
    assert torch.equal(program.forward_steps(long[:, :, 17:]), rest)
    assert not any("state" in name for name in program.state_dict()), "state belongs to a stream, not to the weights"


def test_b11_another_batch_size_is_refused() -> None:
    program = edgeco.convert(small(), torch.zeros(1, 2, 12, dtype=torch.float64))
    for before, after in ((4, 1), (1, 4)):
        program.clean_state()
        program.forward_step(recording(before, 2))
        with pytest.raises(FrameError, match=f"has {before} rows and the frame {after}"):
            program.forward_step(recording(after, 2))


def test_b12_no_graph_grows() -> None:
    program = edgeco.convert(small(), torch.zeros(1, 2, 12, dtype=torch.float64))
    for frame in recording(1, 2, 20).requires_grad_().unbind(2):
        answer = program.forward_step(frame)
        assert answer is None or answer.grad_fn is None
    assert program.state is not None
    held = [e for elements in program.state.histories.values() for e in elements]
    assert held and all(element.grad_fn is None for element in held)


def test_b13_a_look_ahead_on_a_fresh_attention() -> None:
    program = edgeco.convert(Encoder(1), torch.zeros(1, 4, TOKENS))
    assert program.forward_step(torch.ones(1, 4), update_state=False) is None
    assert program.state is None


@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_b14_activations_by_name(name: str) -> None:
    assert_windows_of(Encoder(1, act=name), (4, TOKENS), dtype=torch.float64, tolerance=1e-11)


def test_b15_no_mode_outlives_an_error() -> None:
    net = small()
    program = edgeco.convert(net, torch.zeros(1, 2, 12, dtype=torch.float64))
    with pytest.raises(EdgecoError):
        program.forward_step(torch.zeros(1, 5, dtype=torch.float64))
    clip = recording(1, 2, 12)
    assert torch.equal(program(clip), net(clip))


def test_b16_a_step_leaves_the_state_given_to_it() -> None:
    program = edgeco.convert(small(), torch.zeros(1, 2, 12, dtype=torch.float64))
    long = recording(2, 2, 30)
    states = [program.initial_state(2)]
    with torch.no_grad():
        answers = []
        for frame in long.unbind(2):
            made, after = program.step([frame], states[-1])
            answers.append(made[0])
            states.append(after)
        for frame, state, expected in zip(long.unbind(2), states, answers, strict=False):
            again = program.step([frame], state)[0][0]
            assert (again is None and expected is None) or torch.equal(again, expected)


def test_b17_conversion_leaves_the_network_as_it_was() -> None:
    net = nn.Sequential(nn.Conv1d(2, 3, 3, padding="same"), nn.BatchNorm1d(3)).train()
    before = copy.deepcopy(net.state_dict())
    program = edgeco.convert(net, torch.zeros(1, 2, 9))
    program.forward_steps(torch.randn(1, 2, 30))
    assert net.training and all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not {id(p) for p in net.parameters()} & {id(p) for p in program.parameters()}
    assert_streams(nn.Sequential(nn.Conv1d(2, 3, 4, padding="same")), (2, 9))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_b18_the_state_follows_the_type_of_the_network(dtype: torch.dtype) -> None:
    net = small().to(dtype)
    program = edgeco.convert(net, torch.zeros(1, 2, 12, dtype=dtype))
    state = program.initial_state(3)
    assert {element.dtype for elements in state.histories.values() for element in elements} == {dtype}
    program.forward_steps(torch.randn(1, 2, 20).to(dtype))
    program.clean_state()
    assert program.forward_steps(torch.randn(1, 2, 20).to(dtype)).dtype is dtype


def test_b19_nothing_optional_is_imported(tmp_path: Path) -> None:
    for name in ("lightning", "pytorch_lightning", "horovod"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import edgeco; edgeco.convert"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_b20_delay_and_first_answer_are_two_figures() -> None:
    program = edgeco.convert(Encoder(1), torch.zeros(1, 4, TOKENS))
    assert (program.valid_from, program.receptive_field) == (TOKENS - 1, TOKENS)
    assert program.delay <= program.valid_from


def test_b21_padding_as_a_number_or_as_a_tuple() -> None:
    for padding in (1, (1, 1, 1)):
        assert_streams(nn.Sequential(nn.Conv3d(2, 2, 3, padding=padding)), (2, 6, 4, 4))


class ChannelsLast(nn.Module):
    """A head over an axis counted from the end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv3d(2, 3, 3), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).mean((-3, -2, -1), keepdim=True)
        return self.head(y.movedim(-4, -1)).movedim(-1, -4).flatten(-4)


def test_b22_axes_counted_from_the_end_at_the_first_valid_step() -> None:
    assert_windows_of(ChannelsLast(), (2, 6, 5, 5), dtype=torch.float64, tolerance=1e-12)


@pytest.mark.parametrize("size", ["x3d_xs", pytest.param("x3d_s", marks=pytest.mark.slow)])
def test_b22_first_valid_step_of_networks_that_come_along(size: str) -> None:
    net = randomise_norms(getattr(x3d, size)(pixels=32, classes=7)).eval()
    frames = getattr(x3d, size).clip[1]
    program = edgeco.convert(net, torch.zeros(1, 3, frames, 32, 32))
    longer = recording(1, 3, program.valid_from + 1 + program.receptive_field, 32, 32, dtype=torch.float32)
    with torch.no_grad():
        given = program.forward_steps(longer[:, :, : program.valid_from + 1])
        expected = net.head(net.features(longer)[:, :, :frames])  # its right border lies beyond these frames
    assert given.shape[1] == 1
    assert relative(given[:, 0], expected) < 1e-5
