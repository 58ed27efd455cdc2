"""The networks whose weights are shipped: small, exact in a stream, and as good on recordings as their cards say."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from edgeco.continual.program import convert
from edgeco.models import digit_motion, fingertip, watch
from edgeco.models.digit_motion import hand_digit_motion
from edgeco.models.fingertip import fingertip_gesture
from edgeco.models.watch import watch_activity
from edgeco.train import fingertip_gesture as fingertip_script
from edgeco.train import hand_digit_motion as digit_script
from edgeco.train import watch_activity as watch_script
from edgeco.train.script import Task, accuracy, compared

FACTORIES = [(fingertip, fingertip_gesture), (watch, watch_activity), (digit_motion, hand_digit_motion)]
IDS = ["fingertip", "watch", "digits"]


@pytest.mark.parametrize(("module", "factory"), FACTORIES, ids=IDS)
def test_weights_fit_strictly_and_are_small(module: Any, factory: Callable[..., nn.Module]) -> None:
    state = load_file(module.WEIGHTS)
    factory(weights=False).load_state_dict(state, strict=True)
    assert module.WEIGHTS.stat().st_size <= 1_000_000
    net = factory()
    assert not net.training
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(("module", "factory"), FACTORIES, ids=IDS)
def test_a_clip_gives_a_logit_per_label(module: Any, factory: Any) -> None:
    net = factory(weights=False)
    assert net(torch.zeros(3, *module.CLIP_SHAPE)).shape == (3, len(module.LABELS))
    assert factory.clip == module.CLIP_SHAPE and factory.labels == module.LABELS and factory.start == "replicate"
    assert len(set(module.LABELS)) == len(module.LABELS)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(("module", "factory"), FACTORIES, ids=IDS)
def test_a_stream_answers_as_the_clip_network_does(module: Any, factory: Callable[..., nn.Module], batch: int) -> None:
    """On every window of a stream five receptive fields long, with norms' statistics and gammas at random."""
    torch.manual_seed(batch)
    net = factory()
    for part in net.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            assert part.running_mean is not None and part.running_var is not None
            nn.init.normal_(part.running_mean, 0, 0.3)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.3)
    length = module.CLIP_SHAPE[1]
    program = convert(net, torch.zeros(1, *module.CLIP_SHAPE))
    assert program.report and program.exactness == "exact" and program.receptive_field == length
    stream = torch.randn(batch, module.CLIP_SHAPE[0], 5 * length, *module.CLIP_SHAPE[2:])
    with torch.no_grad():
        for t in range(5 * length):
            answer = program.forward_step(stream[:, :, t])
            assert (answer is None) == (t < length - 1)
            if answer is not None:
                expected = net(stream[:, :, t + 1 - length : t + 1])
                torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-4)


def test_a_track_may_begin_anywhere() -> None:
    net, track = fingertip_gesture(), torch.rand(2, 2, 16)
    torch.testing.assert_close(
        net(track), net(track + torch.tensor([0.3, -0.7]).reshape(1, 2, 1)), rtol=1e-3, atol=1e-3
    )


def test_a_circle_is_told_from_its_mirror_image_and_from_rest() -> None:
    """Clockwise as one sees it: down on the right, as y points down."""
    turn = torch.arange(16) * 2 * torch.pi / 16
    circle = 0.5 + 0.06 * torch.stack([turn.cos(), turn.sin()])
    tracks = torch.stack([torch.full((2, 16), 0.5), circle, circle * torch.tensor([[-1.0], [1.0]])])
    told = fingertip_gesture()(tracks).argmax(1).tolist()
    assert [fingertip.LABELS[i] for i in told] == ["stop", "clockwise", "counter-clockwise"]


def test_both_heads_are_as_if_asked_alone() -> None:
    net = hand_digit_motion(weights=False)
    clip = torch.randn(2, *digit_motion.CLIP_SHAPE)
    seen: dict[str, torch.Tensor] = {}
    for name in ("digit", "way"):
        getattr(net, name).register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
    pairs = net(clip).softmax(1).reshape(2, 10, 4)
    torch.testing.assert_close(pairs.sum(2), seen["digit"].softmax(1))
    torch.testing.assert_close(pairs.sum(1), seen["way"].softmax(1))
    assert digit_motion.LABELS[4 * 7 + 2] == "7 up"


def recording(name: str) -> Path:
    root = os.environ.get("EDGECO_TEST_DATA")
    path = Path(root or "", name)
    if not root or not path.is_file():
        pytest.skip(f"EDGECO_TEST_DATA names no folder with {name}")
    return path


REAL: list[tuple[Task, Callable[..., nn.Module], str, float]] = [
    (fingertip_script.TrackTask(), fingertip_gesture, "sensor/fingertip_tracks_train.csv", 0.985),
    (watch_script.WatchTask(), watch_activity, "sensor/BasicMotions_TRAIN.ts", 0.98),
]


@pytest.mark.parametrize(("task", "factory", "name", "least"), REAL, ids=IDS[:2])
def test_held_out_recordings(task: Task, factory: Callable[..., nn.Module], name: str, least: float) -> None:
    """The split that the shipped weights were not trained on; it beats a nearest neighbour that knows the rest."""
    own, nearest = compared(task, recording(name), 1, factory())
    assert own >= least and own > nearest


def test_digits_that_were_not_learnt_from() -> None:
    task = digit_script.DigitTask()
    frames, classes = task.clips(task.parts(recording("images/MNIST_vs_USPS.mat"), 1)[2], seed=77)
    assert accuracy(hand_digit_motion(), task, (frames[:480], classes[:480])) >= 0.91


def test_no_frame_of_a_track_is_in_two_parts() -> None:
    """Pieces of five changes of place are looked for in the other parts, where something moves in them at all."""
    parts = fingertip_script.TrackTask().parts(recording("sensor/fingertip_tracks_train.csv"), 1)
    pieces = []
    for part in parts:
        found = set()
        for case in part:
            moves = np.round(np.diff(case.array(), axis=0), 5)
            for start in range(11):
                piece = moves[start : start + 5]
                if np.abs(piece).max(axis=1).min() > 0.004:
                    found.add(piece.tobytes())
        pieces.append(found)
    assert min(map(len, pieces)) > 100
    assert not (pieces[0] & pieces[1] or pieces[0] & pieces[2] or pieces[1] & pieces[2])


def test_neighbouring_tracks_are_one_recording() -> None:
    """Why tracks are split by blocks: this is what was found in the data."""
    data = fingertip_script.read_tracks(recording("sensor/fingertip_tracks_train.csv"))
    assert len({case.group for case in data}) == 13
