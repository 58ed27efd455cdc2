"""X3D as published, streamed: figures of the papers, features element by element, answers window by window."""

from __future__ import annotations

import pytest
import torch
from streaming import randomise_norms, recording, relative
from torch import Tensor, nn

import edgeco
from edgeco.models.x3d import SIZES, X3D, round_width, x3d_l, x3d_m, x3d_s, x3d_xs

PIXELS = 64
"""Time does not depend on the frame's size."""


class Probe(nn.Module):
    """An X3D that also returns its pre-pooling features."""

    def __init__(self, net: X3D) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.net.features(x)
        return features, self.net.head(features)


def converted(size: str, dtype: torch.dtype) -> tuple[X3D, edgeco.StepProgram]:
    torch.manual_seed(0)
    net = X3D(SIZES[size], classes=11, pixels=PIXELS)
    randomise_norms(net)
    net = net.to(dtype).eval()
    clip = torch.zeros(1, 3, SIZES[size].frames, PIXELS, PIXELS, dtype=dtype)
    return net, edgeco.convert(Probe(net), clip)


def hold(net: X3D, program: edgeco.StepProgram, batch: int, frames: int, tolerance: float, dtype: torch.dtype) -> None:
    """Features equal the clip network's over the whole recording; answers are the head over windows of them."""
    long = recording(batch, 3, frames, PIXELS, PIXELS, dtype=dtype)
    program.clean_state()
    features, answers = program.forward_steps(long)
    with torch.no_grad():
        expected = net.features(long)
    assert relative(features, expected[:, :, : features.shape[2]]) <= tolerance
    length = program.clip_length
    with torch.no_grad():
        heads = [net.head(expected[:, :, i : i + length]) for i in range(answers.shape[1])]
    assert relative(answers, torch.stack(heads, 1)) <= tolerance


@pytest.mark.parametrize(
    ("factory", "count"), [(x3d_xs, 3_794_322), (x3d_s, 3_794_322), (x3d_m, 3_794_322), (x3d_l, 6_153_432)]
)
def test_parameters_as_published(factory: object, count: int) -> None:
    assert sum(p.numel() for p in factory().parameters()) == count  # type: ignore[operator]


def test_round_width_never_loses_more_than_a_tenth() -> None:
    assert [round_width(54, 0.0625), round_width(108, 0.0625), round_width(216, 0.0625), round_width(432, 0.0625)] == [
        8,
        8,
        16,
        32,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4])
def test_s_streams_to_rounding_in_double_precision(batch: int) -> None:
    net, program = converted("s", torch.float64)
    hold(net, program, batch, 5 * 69, 1e-12, torch.float64)


@pytest.mark.slow
def test_s_streams_in_single_precision_over_five_receptive_fields() -> None:
    net, program = converted("s", torch.float32)
    assert (program.receptive_field, program.delay, program.valid_from) == (69, 40, 40)
    hold(net, program, 1, 5 * 69, 1e-5, torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(("size", "field", "delay"), [("s", 69, 40), ("m", 72, 43), ("l", 130, 72)])
def test_every_size_in_single_precision(size: str, field: int, delay: int, batch: int) -> None:
    net, program = converted(size, torch.float32)
    assert (program.receptive_field, program.delay) == (field, delay)
    hold(net, program, batch, 5 * field, 1e-5, torch.float32)


@pytest.mark.slow
def test_s_at_its_full_size() -> None:
    torch.manual_seed(0)
    net = randomise_norms(x3d_s(classes=11)).eval()
    program = edgeco.convert(net, torch.zeros(1, 3, 13, 160, 160))
    long = recording(1, 3, 13, 160, 160, dtype=torch.float32)
    with torch.no_grad():
        expected = net(long)  # type: ignore[operator]
    assert relative(program.forward_steps(long, pad_end=True)[:, 0], expected) <= 1e-5


@pytest.mark.slow
def test_gates_over_the_clip_are_reported_as_causal() -> None:
    net = X3D(SIZES["xs"], classes=3, excite="clip", pixels=32)
    program = edgeco.convert(net, torch.zeros(1, 3, 4, 32, 32))
    assert program.exactness == "causal"
    assert sum(note.exactness == "causal" and "window that ends" in note.form for note in program.report) == 15
