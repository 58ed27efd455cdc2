"""TSM and MoViNet, which answer at every frame without delay: a stream is the clip network on the whole recording."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from engine_parity import differences
from streaming import randomise_norms, recording, relative
from torch import nn
from torch.nn import functional as F

import edgeco
from edgeco.models.movinet import (
    SIZES,
    Layer,
    MoViNet,
    Shrink,
    Size,
    _same,
    movinet_a0,
    movinet_a1,
    movinet_a2,
    running_mean,
)
from edgeco.models.tsm import TsmMobileNetV2, shifted, tsm_mobilenetv2

TINY = Size(64, 8, ((Layer(16, 24, 5, 3, 2), Layer(16, 32, 3, 3)),), 24)


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "tsm":
        net: nn.Module = TsmMobileNetV2(5, rows=((1, 16, 1, 1), (4, 16, 3, 2)))
    else:
        net = MoViNet(TINY if name == "movinet" else SIZES[name], 5)
        for block in net.blocks.values():
            nn.init.constant_(block.alpha, 0.7)
    return randomise_norms(net).eval()


def hold(net: nn.Module, batch: int, frames: int, tolerance: float, pixels: int = 37) -> edgeco.StepProgram:
    """Every frame's answer is the clip network's, and the next recording begins anew."""
    dtype = next(net.parameters()).dtype
    program = edgeco.convert(net, torch.zeros(1, 3, 6, pixels, pixels, dtype=dtype))
    for seed in (1, 2):
        long = recording(batch, 3, frames, pixels, pixels, seed=seed, dtype=dtype)
        program.clean_state()
        given = program.forward_steps(long)
        with torch.no_grad():
            assert relative(given, net(long)) <= tolerance
    assert (program.delay, program.valid_from, program.stride, program.exactness) == (0, 0, 1, "unpadded")
    return program


@pytest.mark.parametrize("name", ["tsm", "movinet"])
def test_a_small_network_streams(name: str) -> None:
    program = hold(small(name).double(), 3, 30 if name == "tsm" else 50, 1e-12)
    # Two blocks of the small TSM have a shortcut, before which a frame is shifted. In MoViNet 4 + 2 frames back, and
    # the means so far, two gates' and the head's, which a clip's figure counts as the 5 frames before its last.
    assert program.receptive_field == (3 if name == "tsm" else 1 + 4 + 2 + 3 * 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tsm", "movinet"])
def test_a_small_network_streams_in_single_precision(name: str) -> None:
    hold(small(name), 1, 100, 1e-5)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ["tsm", "movinet"])
def test_the_engine_agrees(name: str) -> None:
    assert max(differences(small(name), (3, 6, 37, 37), steps=110, rows=3).values()) < 1e-5


@pytest.mark.slow
def test_the_whole_tsm() -> None:
    torch.manual_seed(0)
    program = hold(randomise_norms(tsm_mobilenetv2()).double().eval(), 1, 60, 1e-11, 64)
    assert program.receptive_field == 11
    assert sorted(h.shape[0] for h in program.histories) == [3, 4, 4, 8, 8, 8, 12, 12, 20, 20]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a0", "a1", "a2"])
def test_the_whole_movinet(name: str) -> None:
    hold(small(name).double(), 1, 60, 1e-11, 64)


@pytest.mark.parametrize(
    ("factory", "count"),
    [(movinet_a0, 3_748_031), (tsm_mobilenetv2, 2_258_459), (movinet_a1, 6_447_352), (movinet_a2, 7_326_962)],
)
def test_parameters_as_published(factory: Callable[[], nn.Module], count: int) -> None:
    """Those of A0 and TSM as counted in the published networks; those of A1 and A2 are only held as they are."""
    with torch.device("meta"):
        assert sum(p.numel() for p in factory().parameters()) == count


def test_names_of_parameters_are_those_of_the_checkpoints() -> None:
    with torch.device("meta"):
        streams, shifts = movinet_a0().state_dict(), tsm_mobilenetv2().state_dict()
    for name in (
        "conv1.conv_1.conv2d.weight",
        "conv1.conv_1.norm.running_mean",
        "blocks.b0_l0.alpha",
        "blocks.b1_l0.res.1.conv_1.conv2d.weight",
        "blocks.b2_l0.deep.conv_2.norm.bias",
        "blocks.b4_l3.se.fc2.conv_1.conv2d.bias",
        "conv7.conv_1.norm.weight",
        "classifier.3.conv_1.conv2d.bias",
    ):
        assert name in streams
    assert streams["blocks.b2_l0.deep.conv_2.conv2d.weight"].shape == (184, 1, 5, 1)
    assert {"features.0.0.weight", "features.2.conv.7.bias", "features.18.1.weight", "classifier.weight"} <= set(shifts)
    assert not any("space" in name for name in streams)


def test_channels_of_the_frame_before() -> None:
    x = recording(2, 5, 16, 3, 3)
    given = shifted(x.flatten(0, 1), 5).unflatten(0, (2, 5))
    assert not given[:, 0, :2].any() and torch.equal(given[:, 1:, :2], x[:, :-1, :2])
    assert torch.equal(given[:, :, 2:], x[:, :, 2:])


def test_the_mean_of_all_frames_so_far() -> None:
    x = recording(2, 7, 3)
    given = running_mean(x)
    for i in range(7):
        torch.testing.assert_close(given[:, i], x[:, : i + 1].mean(1))


@pytest.mark.parametrize("side", [11, 22, 43, 86, 172])
def test_padding_that_keeps_the_last_place(side: int) -> None:
    """172 -> 86 -> 43 -> 22 -> 11 -> 6, more of it behind; what is padding counts in no mean."""
    assert sum(_same(side, 3, 2)) == (2 if side % 2 else 1) and _same(22, 3, 2) == (0, 1)
    x = recording(1, 1, side, side)
    given = Shrink()(x)
    assert given.shape[-1] == -(-side // 2)
    torch.testing.assert_close(Shrink()(torch.ones_like(x)), torch.ones_like(given))
    if side % 2:
        torch.testing.assert_close(given, F.avg_pool2d(x, 3, 2, 1, count_include_pad=False))
