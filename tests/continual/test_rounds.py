"""Strided and upsampled again, then answered per clip: a clip may begin between two elements of the strided part."""

from __future__ import annotations

import pytest
import torch
from engine_parity import differences
from streaming import clip_answers, recording, relative, windows
from torch import Tensor, nn
from torch.nn import functional as F

import edgeco

LENGTH = 8


class Repeated(nn.Module):
    """Pooled, repeated, and the mean of it."""

    grid = 2

    def features(self, x: Tensor) -> Tensor:
        return F.avg_pool1d(x, 2).repeat_interleave(2, 2)

    def head(self, x: Tensor) -> Tensor:
        return x.mean(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class Gate(Repeated):
    """A gate that is held for four frames."""

    grid = 4

    def features(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(F.interpolate(F.max_pool1d(x, 4), scale_factor=4))

    def head(self, x: Tensor) -> Tensor:
        return x.amax(2)


class Net(Repeated):
    """A temporal U-Net with a head of fixed length."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv1d(2, 4, 2, 2), nn.ConvTranspose1d(4, 2, 2, 2)
        self.classes = nn.Linear(2 * LENGTH, 3)

    def features(self, x: Tensor) -> Tensor:
        return torch.tanh(self.up(self.down(x))) + x

    def head(self, x: Tensor) -> Tensor:
        return self.classes(x.flatten(1))


class Chosen(Repeated):
    """The newest element alone."""

    def head(self, x: Tensor) -> Tensor:
        return x[:, :, -1]


NETS = [Repeated, Gate, Net, Chosen]


def streamed(net: nn.Module, exact: bool | str, long: Tensor) -> tuple[edgeco.StepProgram, Tensor]:
    program = edgeco.convert(net, torch.zeros(1, 2, LENGTH).double(), exact=exact)
    return program, program.forward_steps(long)


@pytest.mark.parametrize("build", NETS)
def test_by_default_the_head_sees_windows_of_the_whole_recording(build: type[Repeated]) -> None:
    net = build().double().eval()
    long = recording(2, 2, 6 * LENGTH)
    program, given = streamed(net, False, long)
    assert program.exactness == "unpadded"
    with torch.no_grad():
        expected = torch.stack([net.head(window) for window in windows(net.features(long), LENGTH)], 1)
    assert relative(given, expected[:, : given.shape[1]]) < 1e-12 and given.shape[1] > 4 * LENGTH
    assert any("begin between" in note.form for note in program.report)


@pytest.mark.parametrize("exact", [True, "clip"])
@pytest.mark.parametrize("build", NETS)
def test_exact_answers_are_those_to_clips_that_begin_with_a_round(build: type[Repeated], exact: bool | str) -> None:
    net = build().double().eval()
    long = recording(4, 2, 6 * LENGTH)
    program, given = streamed(net, exact, long)
    assert (program.exactness, program.receptive_field) == ("exact", LENGTH)
    assert relative(given, clip_answers(net, long, LENGTH)[:, :: net.grid]) < 1e-12


def test_elements_need_no_window() -> None:
    class Elements(Repeated):
        def head(self, x: Tensor) -> Tensor:
            return torch.relu(x)

    net = Elements().double().eval()
    long = recording(2, 2, 6 * LENGTH)
    program = edgeco.convert(net, torch.zeros(1, 2, LENGTH).double(), exact=True)
    assert program.exactness == "exact" and relative(program.forward_steps(long, pad_end=True), net(long)) < 1e-12


@pytest.mark.parametrize("exact", [False, "interior"])
def test_onnx_runtime_streams(exact: bool | str) -> None:
    assert max(differences(Net(), (2, LENGTH), steps=100, rows=3, exact=exact).values()) < 1e-4
