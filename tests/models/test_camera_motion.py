"""The camera-motion network: its shape, its shipped weights, and its accuracy on unseen clips and real recordings."""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from edgeco.models.camera_motion import CLIP_SHAPE, FPS, LABELS, WEIGHTS, CameraMotion, camera_motion, normalise
from edgeco.train.camera_motion import (
    DRAWN,
    FASTEST_PAN,
    FASTEST_TURN,
    SLOWEST,
    STILL_SPEED,
    answers,
    batch,
    camera_path,
    evaluate_still,
    evaluate_synthetic,
    evaluate_warped,
    mirrored,
)

UNSEEN = (501, 502, 503)
"""Seeds that training never draws from."""


@pytest.fixture(scope="module")
def net() -> CameraMotion:
    """The shipped network."""
    return camera_motion()


@pytest.fixture(scope="module")
def videos() -> Path:
    """Folder of the recordings; they are not part of the project."""
    root = os.environ.get("EDGECO_TEST_DATA")
    if not root or not (Path(root) / "video").is_dir():
        pytest.skip("EDGECO_TEST_DATA names no folder with recordings under video/")
    return Path(root) / "video"


def frames(file: Path, every: int = 1) -> Iterator[NDArray[np.uint8]]:
    """BGR frames of a recording, all or ``every`` n-th."""
    capture = cv2.VideoCapture(str(file))
    number = 0
    while True:
        ok, frame = capture.read()
        if not ok:
            return
        if number % every == 0:
            yield frame
        number += 1


def recall(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of right answers of each class (..., 8)."""
    return np.diagonal(confusion, axis1=-2, axis2=-1) / confusion.sum(-1)


def test_clip_gives_one_logit_per_label(net: CameraMotion) -> None:
    assert net(torch.zeros(2, *CLIP_SHAPE)).shape == (2, len(LABELS)) == (2, 8)
    assert not net.training and FPS > 0


def test_longer_clip_is_the_mean_over_its_windows(net: CameraMotion) -> None:
    """Nothing is padded in time, so features of a long clip are those of its sliding windows."""
    clip = torch.randn(1, 1, CLIP_SHAPE[1] + 3, *CLIP_SHAPE[2:], generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = net(clip)
        windows = [net(clip[:, :, i : i + CLIP_SHAPE[1]]) for i in range(4)]
        features = net.features(clip)
        by_hand = net.head(features.mean((2, 3, 4)))
    torch.testing.assert_close(whole, by_hand)
    parts = [net.head(features[:, :, i : i + CLIP_SHAPE[1] - 6].mean((2, 3, 4))) for i in range(4)]
    torch.testing.assert_close(torch.cat(windows), torch.cat(parts), rtol=1e-4, atol=1e-4)


def test_weights_fit_strictly_and_are_small() -> None:
    state = load_file(WEIGHTS)
    CameraMotion().load_state_dict(state, strict=True)
    assert WEIGHTS.stat().st_size <= 1_000_000
    assert sum(value.numel() for value in CameraMotion().parameters()) <= 250_000
    assert all(value.dtype in (torch.float32, torch.int64) for value in state.values())


def test_batch_depends_on_seed_and_step_only() -> None:
    first, labels = batch(3, seed=77)
    again, _ = batch(3, seed=77)
    other, _ = batch(4, seed=77)
    assert first.shape == (64, 1, DRAWN, *CLIP_SHAPE[2:])
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert set(labels.tolist()) == set(range(8))


@pytest.mark.parametrize("label", range(8))
def test_path_keeps_to_its_speed_range_and_direction(label: int) -> None:
    """Speeds are root mean square displacements in frame widths per frame; x points right, y down, zoom in is positive.

    Turning left moves the view left over the scene, so a pan left has falling x and a tilt up has falling y.
    """
    rng = np.random.default_rng(label)
    spread = np.sqrt((1 + 0.75**2) / 12)
    axis, signs = ((0, ()), (0, (-1,)), (0, (1,)), (1, (-1,)), (1, (1,)), (2, (1,)), (2, (-1,)), (3, (-1, 1)))[label]
    for _ in range(200):
        path = camera_path(rng, label, 10, 0.75)
        speeds = (path[-1] - path[0]) / 10 * (1, 1, spread, spread)
        if label == 0:
            assert np.linalg.norm(speeds) < 1.4 * STILL_SPEED + 0.001  # the tremor comes on top of the drift
        else:
            fastest = FASTEST_PAN if label <= 4 else FASTEST_TURN
            assert 0.6 * SLOWEST < abs(speeds[axis]) < 1.4 * fastest and np.sign(speeds[axis]) in signs
            assert np.argmax(np.abs(speeds)) == axis


def test_mirrored_clip_has_the_mirrored_label() -> None:
    rng, seen = np.random.default_rng(0), set()
    ramp = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    for _ in range(60):
        clip, label = mirrored(rng, ramp, LABELS.index("pan left"))
        flipped, reversed_ = bool(clip[0, 0, 0] % 4), bool(clip[0, 0, 0] >= 12)
        assert LABELS[label] == ("pan left" if flipped == reversed_ else "pan right")
        seen.add((flipped, reversed_))
    assert len(seen) == 4


def test_unseen_synthetic_clips(net: CameraMotion) -> None:
    per_class = recall(evaluate_synthetic(net, UNSEEN[:1], per_class=12, extra=4))
    assert per_class.mean() >= 0.95, per_class


def test_plain_frames_are_still(net: CameraMotion) -> None:
    """With nothing to see there is no ground to call the camera moving, whatever the brightness."""
    for value in (0, 128, 255):
        assert set(answers(net, np.full((CLIP_SHAPE[1] + 2, *CLIP_SHAPE[2:]), value, np.uint8))) == {0}


def test_real_frames_warped_by_known_motion(net: CameraMotion, videos: Path) -> None:
    real = [frame for file in sorted(videos.iterdir()) for frame in frames(file, every=40)]
    per_class = recall(evaluate_warped(net, real, UNSEEN[:1], per_class=20))
    assert per_class.mean() >= 0.85, per_class


def test_fixed_camera_on_a_road_is_still(net: CameraMotion, videos: Path) -> None:
    counts = evaluate_still(net, frames(videos / "car-detection.mp4"))
    assert counts[0] / counts.sum() >= 0.90, counts


def test_fixed_camera_on_a_signer_is_still(net: CameraMotion, videos: Path) -> None:
    files = sorted(videos.glob("asl_*.mkv"))
    assert files
    counts = np.sum([evaluate_still(net, frames(file)) for file in files], axis=0)
    assert counts[0] / counts.sum() >= 0.90, counts


def test_normalise_uses_the_module_constants() -> None:
    clip = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 2, 1, 1)
    low, high = normalise(clip).flatten().tolist()
    assert clip.shape == (1, 2, 1, 1) and low == pytest.approx(-0.45 / 0.25) and high == pytest.approx(0.55 / 0.25)
