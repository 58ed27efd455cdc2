"""The first cases that a library of streaming layers must pass: single layers, chunks, impulses, figures of stacks."""

from __future__ import annotations

import pytest
import torch
from engine_parity import differences
from streaming import assert_streams_of_any_kind, recording, relative, step_by_step
from torch import nn

import edgeco

LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "1-D, kernel 5": (nn.Conv1d(2, 1, 5), (2, 10)),
    "2-D, kernel 3 x 2": (nn.Conv2d(2, 3, (3, 2)), (2, 5, 4)),
    "3-D, kernel 3 x 3 x 3": (nn.Conv3d(1, 2, 3), (1, 4, 4, 4)),
    "kernel 1, stride 2": (nn.Conv1d(2, 3, 1, 2), (2, 10)),
    "long kernel over frames of joints": (nn.Conv2d(2, 3, (9, 1), padding=(4, 0)), (2, 20, 5)),
    "stem of channels": (nn.Conv3d(2, 2, (5, 1, 1), padding=(2, 0, 0), groups=2), (2, 6, 4, 4)),
}
FIGURES: dict[str, tuple[nn.Module, tuple[int, int, int, int]]] = {
    # past, future, delay, rate
    "dilated to 27": (nn.Sequential(*(nn.Conv1d(2, 2, 3, dilation=3**i) for i in range(4))), (0, 80, 80, 1)),
    "five of kernel 5": (nn.Sequential(*(nn.Conv1d(2, 2, 5, padding=2) for _ in range(5))), (10, 10, 10, 1)),
    "padding 1 + 1 + 2 + 2 * 3": (
        nn.Sequential(
            nn.Conv1d(2, 2, 3, padding=1),
            nn.Conv1d(2, 2, 3, padding=1),
            nn.Conv1d(2, 2, 5, padding=2, stride=2),
            nn.Conv1d(2, 2, 7, padding=3),
        ),
        (10, 10, 10, 2),
    ),
    "a stride within": (nn.Sequential(nn.Conv1d(2, 2, 3, 2, 1), nn.Conv1d(2, 2, 3)), (1, 5, 5, 2)),
}


def seeded(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A layer with the same weights every time, and its clip."""
    layer, clip = LAYERS[name]
    torch.manual_seed(0)
    layer.reset_parameters()  # type: ignore[operator]
    return layer, clip


@pytest.mark.parametrize("name", LAYERS)
def test_single_layers_step_as_they_run_on_clips(name: str) -> None:
    layer, clip = seeded(name)
    assert_streams_of_any_kind(layer, clip)


@pytest.mark.parametrize("name", LAYERS)
def test_single_layers_in_onnx_runtime(name: str) -> None:
    layer, clip = seeded(name)
    for rows in (1, 4):
        assert max(differences(layer.float().eval(), clip, steps=110, rows=rows).values()) < 1e-5


def test_forward_is_the_clip_network_bit_by_bit() -> None:
    for layer, clip in map(seeded, LAYERS):
        long = recording(4, *clip, dtype=torch.float32)
        program = edgeco.convert(layer.float().eval(), torch.zeros(1, *clip))
        with torch.no_grad():
            assert torch.equal(program.forward(long), layer(long))


def test_five_frames_by_a_padded_stride() -> None:
    """Nothing before the first whole window, then an element every other step; the end brings the last one."""
    layer = nn.Conv1d(1, 1, 3, stride=2, padding=1, bias=False)
    nn.init.ones_(layer.weight)
    program = edgeco.convert(layer, torch.zeros(1, 1, 5))
    frames = torch.arange(5.0).view(1, 1, 5)
    steps = [None if answer is None else answer.item() for answer in step_by_step(program, frames)]
    assert steps == [None, 1.0, None, 6.0, None]
    program.clean_state()
    assert program.forward_steps(frames, pad_end=True).flatten().tolist() == [1.0, 6.0, 7.0]


@pytest.mark.parametrize("sizes", [[1] * 40, [40], [1, 2, 3, 34], [13, 1, 26]])
def test_chunks_of_any_size_give_what_one_call_gives(sizes: list[int]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.MaxPool1d(3, 2, 1), nn.Conv1d(3, 2, 4)).double()
    program = edgeco.convert(net, torch.zeros(1, 2, 16, dtype=torch.float64))
    long = recording(4, 2, 40)
    whole = program.forward_steps(long)
    program.clean_state()
    parts = [program.forward_steps(part) for part in long.split(sizes, 2)]
    assert torch.equal(torch.cat([p for p in parts if p is not None], 2), whole)


def test_an_impulse_comes_out_as_the_kernels_say_and_fades() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(1, 2, 3, bias=False), nn.Conv1d(2, 1, 4, dilation=2, bias=False)).double()
    program = edgeco.convert(net, torch.zeros(1, 1, 16, dtype=torch.float64))
    impulse = torch.zeros(1, 1, 40, dtype=torch.float64)
    impulse[..., 15] = 1.0
    answers = program.forward_steps(impulse)
    with torch.no_grad():
        assert relative(answers, net(impulse)) < 1e-12
    heard = answers.flatten().nonzero().flatten() + program.valid_from
    assert (int(heard.min()), int(heard.max())) == (15, 15 + program.receptive_field - 1)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_stacks(name: str) -> None:
    net, (past, future, delay, rate) = FIGURES[name]
    program = edgeco.convert(net, torch.zeros(1, 2, 96))
    time = program.answers[0].timeline
    assert (time.past, time.future, program.delay, program.stride) == (past, future, delay, rate)
    assert (program.receptive_field, program.valid_from) == (past + future + 1, delay)
