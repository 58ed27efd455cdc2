"""Running sums, means, products and extremes equal the clip network's over the whole recording."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from engine_parity import differences
from streaming import assert_streams, recording, relative
from torch import Tensor, nn

import edgeco
from edgeco.errors import UnsupportedOperator


class Called(nn.Module):
    """A function between two convolutions."""

    def __init__(self, function: Callable[[Tensor], Tensor], stride: int = 1, front: int = 1) -> None:
        super().__init__()
        self.before, self.function = nn.Conv1d(2, 3, 3, stride=stride, padding=front), function
        self.after = nn.Conv1d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.function(torch.tanh(self.before(x))))


def count(x: Tensor) -> Tensor:
    return torch.arange(1, x.shape[2] + 1, dtype=x.dtype)


def spread(x: Tensor) -> Tensor:
    """The standard deviation so far."""
    mean = x.cumsum(2) / count(x)
    return ((x * x).cumsum(2) / count(x) - mean * mean).clamp_min(1e-3).sqrt()


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x.cumsum(2) * 0.1,
    "mean": lambda x: x.cumsum(2) / count(x),
    "mean by ones": lambda x: x.cumsum(2) / torch.ones_like(x).cumsum(2),
    "mean by whole numbers": lambda x: x.cumsum(-1) / (torch.arange(x.shape[2])[None, None] + 1),
    "mean and deviation": lambda x: (x - x.cumsum(2) / count(x)) / spread(x),
    "mean of what went before": lambda x: x[:, :, 1:] - (x.cumsum(2) / count(x))[:, :, :-1],
    "sum after padding": lambda x: nn.functional.pad(x, (2, 1), value=0.5).cumsum(2) * 0.1,
    "sum after a cut": lambda x: x[:, :, 2:].cumsum(2) / count(x[:, :, 2:]),
    "sum over numbers first": lambda x: x.transpose(1, 2).cumsum(1).transpose(1, 2) / count(x),
    "product": lambda x: (1.0 + 0.1 * x).cumprod(2),
    "maximum": lambda x: x.cummax(2).values,
    "minimum": lambda x: x.cummin(2)[0],
    "logarithm": lambda x: x.logcumsumexp(2),
    "sum of sums": lambda x: (x.cumsum(2) / count(x)).cumsum(2) * 0.1,
    "sums at half the rate": lambda x: (x[:, :, ::2].cumsum(2) / count(x[:, :, ::2])).repeat_interleave(2, 2),
    "over channels": lambda x: x.cumsum(1),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_element_over_the_whole_recording(name: str) -> None:
    torch.manual_seed(0)
    for stride, front in ((1, 1), (2, 0)):
        assert_streams(Called(FUNCTIONS[name], stride, front), (2, 16 + stride), tolerance=1e-11)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_engine_equals_the_torch_runner(name: str) -> None:
    torch.manual_seed(0)
    assert max(differences(Called(FUNCTIONS[name]).eval(), (2, 16), steps=110, rows=4).values()) < 1e-5


class OverFrames(nn.Module):
    """Frames less their mean so far, merged with the batch on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)
        return y - y.cumsum(2) / torch.arange(1, x.shape[2] + 1).view(1, 1, -1, 1, 1)


def test_frames_less_their_mean_so_far() -> None:
    program = assert_streams(OverFrames(), (2, 9, 4, 4))
    assert (program.delay, program.exactness) == (0, "unpadded")
    assert any("never fades" in note.form for note in program.report)
    assert max(differences(OverFrames().eval(), (2, 9, 4, 4), steps=110).values()) < 1e-5


def test_float32_and_a_batch_of_four() -> None:
    net = Called(FUNCTIONS["mean and deviation"]).eval()
    program = edgeco.convert(net, torch.zeros(1, 2, 16))
    long = recording(4, 2, 150, dtype=torch.float32)
    with torch.no_grad():
        assert relative(program.forward_steps(long, pad_end=True), net(long)) < 1e-5


REFUSED = {
    "a table that bends": (lambda x: x.cumsum(2) * count(x).sqrt(), "indexed by the position"),
    "indices": (lambda x: x.cummax(2).indices.to(x.dtype), "indices count within the clip"),
    "whole numbers": (lambda x: (x > 0).cumsum(2) * x, "whole numbers"),
    "backwards": (lambda x: x.flip(2).cumsum(2).flip(2), "runs along time"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_running_form_is_refused_with_its_line(name: str) -> None:
    function, words = REFUSED[name]
    with pytest.raises(UnsupportedOperator, match=words) as error:
        edgeco.convert(Called(function), torch.zeros(1, 2, 16))
    assert "test_cumulative.py" in str(error.value)


def test_on_the_last_clip_it_starts_anew_in_every_window() -> None:
    torch.manual_seed(0)
    net = Called(FUNCTIONS["mean"], front=0).double().eval()
    net.after = nn.Identity()
    program = edgeco.convert(net, torch.zeros(1, 2, 12, dtype=torch.float64), exact="clip")
    long = recording(2, 2, 60)
    for step, frame in enumerate(long.unbind(2)):
        answer = program.forward_step(frame)
        with torch.no_grad():
            assert step < 11 or relative(answer, net(long[:, :, step - 11 : step + 1])) < 1e-12
