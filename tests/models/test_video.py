"""Slow, I3D, SlowFast and R(2+1)D, streamed: figures, and every answer against the head over the clip's features."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from engine_parity import differences
from streaming import randomise_norms, recording, relative
from torch import nn

import edgeco
from edgeco.models import resnet3d, slowfast
from edgeco.models.r2plus1d import R2Plus1d, r2plus1d_18
from edgeco.models.resnet3d import I3D, SLOW, ResNet3d, i3d_r50, slow_r50
from edgeco.models.slowfast import FORMS, SlowFast, slowfast_4x16, slowfast_8x8

PIXELS = 32
"""Time does not depend on the frame's size."""
SMALL: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "slow": (lambda **k: ResNet3d(SLOW, 5, PIXELS, **k), 8),
    "i3d": (lambda **k: ResNet3d(I3D, 5, PIXELS, **k), 8),
    "r2plus1d": (lambda **k: R2Plus1d(5, middle=6, **k), 16),
    "slowfast-4x16": (lambda **k: SlowFast(FORMS["4x16"], 5, PIXELS, **k), 32),
    "slowfast-8x8": (lambda **k: SlowFast(FORMS["8x8"], 5, PIXELS, **k), 32),
}
"""Networks with few channels and one block in a stage, and the frames of their clips."""


def small(name: str, depths: tuple[int, ...] = (1, 1, 1, 1)) -> nn.Module:
    torch.manual_seed(0)
    return randomise_norms(SMALL[name][0](width=8, depths=depths)).eval()


def answers(net: nn.Module, long: torch.Tensor, frames: int, stride: int) -> list[torch.Tensor]:
    """The head over every window that a clip has, of the features of a whole recording."""
    features = net.features(long)  # type: ignore[operator]
    if isinstance(net, R2Plus1d):
        length = frames // 8
        windows = [features[:, :, i : i + length] for i in range(features.shape[2] - length + 1)]
        return [net.fc(net.avgpool(window).flatten(1)) for window in windows]
    paths = features if isinstance(features, tuple) else (features,)
    lengths = [pool.kernel_size[0] for pool in net.head.pools]  # type: ignore[union-attr]
    steps = [lengths[i] * stride // frames for i in range(len(paths))]  # elements of each pathway to an answer
    count = min((p.shape[2] - n) // s + 1 for p, n, s in zip(paths, lengths, steps, strict=True))
    return [
        net.head(*(p[:, :, i * s : i * s + n] for p, n, s in zip(paths, lengths, steps, strict=True)))  # type: ignore[operator]
        for i in range(count)
    ]


def hold(name: str, net: nn.Module, batch: int, tolerance: float, more: int) -> edgeco.StepProgram:
    """Answers of a stream equal the clip network's on the whole recording."""
    frames = SMALL[name][1]
    dtype = next(net.parameters()).dtype
    program = edgeco.convert(net, torch.zeros(1, 3, frames, PIXELS, PIXELS, dtype=dtype))
    length = -(-(program.valid_from + more) // program.stride) * program.stride
    long = recording(batch, 3, length, PIXELS, PIXELS, dtype=dtype)
    given = program.forward_steps(long)
    with torch.no_grad():
        expected = answers(net, long, frames, program.stride)
    assert 5 <= given.shape[1] <= len(expected)
    assert relative(given, torch.stack(expected[: given.shape[1]], 1)) <= tolerance
    assert program.exactness == "unpadded"
    return program


@pytest.mark.parametrize(
    "name", ["i3d", "slowfast-8x8", *(pytest.param(n, marks=pytest.mark.slow) for n in ("slow", "r2plus1d"))]
)
def test_a_small_network_streams(name: str) -> None:
    program = hold(name, small(name).double(), 3, 1e-12, 50)
    assert program.stride == {"slow": 1, "i3d": 2, "r2plus1d": 8, "slowfast-8x8": 4}[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_small_network_streams_in_single_precision(name: str) -> None:
    hold(name, small(name), 1, 1e-5, 120)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", SMALL)
def test_the_engine_agrees(name: str) -> None:
    frames = SMALL[name][1]
    assert max(differences(small(name), (3, frames, PIXELS, PIXELS), steps=170, rows=3).values()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_at_full_depth(name: str) -> None:
    depths = (2, 2, 2, 2) if name == "r2plus1d" else (3, 4, 6, 3)
    net = small(name, depths).double()
    program = hold(name, net, 1, 1e-11, 80)
    figures = (program.receptive_field, program.delay, program.stride)
    assert (
        figures
        == {
            "slow": (26, 16, 1),
            "i3d": (42, 24, 2),
            "r2plus1d": (117, 62, 8),
            "slowfast-4x16": (191, 107, 8),
            "slowfast-8x8": (125, 76, 4),
        }[name]
    )


@pytest.mark.parametrize("name", ["slowfast-4x16", pytest.param("slowfast-8x8", marks=pytest.mark.slow)])
def test_a_single_clip_of_both_pathways_has_its_answer(name: str) -> None:
    net = small(name).double()
    program = edgeco.convert(net, torch.zeros(1, 3, 32, PIXELS, PIXELS, dtype=torch.float64))
    clip = recording(2, 3, 32, PIXELS, PIXELS)
    with torch.no_grad():
        expected = net(clip)
    given = program.forward_steps(clip, pad_end=True)
    assert given.shape[1] == 1 and relative(given[:, 0], expected) <= 1e-12


@pytest.mark.slow
def test_slow_r50_at_its_full_size() -> None:
    torch.manual_seed(0)
    net = randomise_norms(slow_r50()).eval()
    program = edgeco.convert(net, torch.zeros(1, *slow_r50.clip))  # type: ignore[attr-defined]
    long = recording(1, *slow_r50.clip, dtype=torch.float32)  # type: ignore[attr-defined]
    with torch.no_grad():
        expected = net(long)
    assert relative(program.forward_steps(long, pad_end=True)[:, 0], expected) <= 1e-5


@pytest.mark.parametrize(
    ("factory", "count"),
    [
        (slow_r50, 32_454_096),
        (i3d_r50, 28_043_472),
        (r2plus1d_18, 31_505_325),
        (slowfast_4x16, 34_480_216),
        (slowfast_8x8, 34_566_488),  # the paper prints its GFLOPs in this place; 34.6 M is what others count
    ],
)
def test_parameters_as_published(factory: Callable[[], nn.Module], count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in factory().parameters()) == count


def test_names_of_parameters_are_those_of_the_checkpoints() -> None:
    with torch.device("meta"):
        slow, both, factored = slow_r50().state_dict(), slowfast_8x8().state_dict(), r2plus1d_18().state_dict()
    for name in ("s1.pathway0_stem.bn.weight", "s2.pathway0_res0.branch1_bn.bias", "s5.pathway0_res2.branch2.a.weight"):
        assert name in slow and name in both
    for name in ("s1_fuse.conv_f2s.weight", "s4_fuse.bn.running_var", "s4.pathway1_res5.branch2.c_bn.weight"):
        assert name in both
    assert "head.projection.weight" in slow and both["head.projection.weight"].shape == (400, 2304)
    for name in ("stem.3.weight", "layer2.0.conv1.0.3.weight", "layer2.0.downsample.1.bias", "layer4.1.conv2.1.bias"):
        assert name in factored
    assert resnet3d.MEAN == slowfast.MEAN


def test_the_slow_pathway_sees_every_fourth_frame_from_the_first_on() -> None:
    net = small("slowfast-8x8").double()
    long = recording(1, 3, 32, PIXELS, PIXELS)
    other = long.clone()
    other[:, :, 1::4] = 0  # the fast pathway alone sees these
    with torch.no_grad():
        one, two = (net.s1.pathway0_stem(x[:, :, ::4]) for x in (long, other))  # type: ignore[union-attr, operator]
        assert torch.equal(one, two) and not torch.equal(net(long), net(other))
