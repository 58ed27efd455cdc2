"""The training scripts from end to end, on recordings made here, for a few steps."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mat_bytes import mat_file
from safetensors.torch import load_file

from edgeco.errors import SpecError
from edgeco.train import fingertip_gesture, hand_digit_motion, watch_activity
from edgeco.train.config import Recipe
from edgeco.train.data import read_data
from edgeco.train.digits import draw, read_digits
from edgeco.train.nearest import nearest_accuracy


@pytest.fixture
def tracks(tmp_path: Path) -> Path:
    """A long walk of a fingertip in each class, a line of sixteen places at every one of its frames."""
    rng = np.random.default_rng(0)
    lines = []
    for label in range(4):
        walk = np.cumsum(rng.normal(0, 0.01 * (label + 1), (415, 2)), axis=0)
        for start in range(400):
            places = walk[start : start + 16] - walk[start]
            lines.append(",".join([str(label), *(f"{value:.9f}" for value in places.ravel())]))
    path = tmp_path / "tracks.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def watch(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = ["@classLabel true Standing Running Walking Badminton", "@data"]
    for label in ("Standing", "Running", "Walking", "Badminton"):
        for _ in range(10):
            lines.append(":".join(",".join(map(str, row)) for row in rng.normal(size=(6, 40)).round(3)) + f":{label}")
    path = tmp_path / "watch.ts"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    classes = np.tile(np.arange(1, 11), 20)[:, None]
    arrays = {"X_src": rng.random((256, 200)), "X_tar": rng.random((256, 200)), "Y_src": classes, "Y_tar": classes}
    path = tmp_path / "digits.mat"
    path.write_bytes(mat_file(arrays))
    return path


def ended(script: Any, arguments: list[str]) -> object:
    """What a script exits with."""
    with pytest.raises(SystemExit) as found:
        script.main(arguments)
    return found.value.code


SCRIPTS: list[tuple[Any, str, str]] = [
    (fingertip_gesture, "tracks", "batch = 8"),
    (watch_activity, "watch", "batch = 8"),
    (hand_digit_motion, "digits", "batch = 2"),
]


@pytest.mark.parametrize(("script", "data", "config"), SCRIPTS, ids=["fingertip", "watch", "digits"])
def test_a_script_trains_and_goes_on_where_it_ended(
    script: Any,
    data: str,
    config: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = request.getfixturevalue(data)
    monkeypatch.setattr(hand_digit_motion, "TESTED", 40)
    monkeypatch.setattr(hand_digit_motion, "KNOWN", 40)
    (tmp_path / "how.toml").write_text(f"steps = 4\nvalidate_every = 2\n{config}\n[search]\npeak = [0.001, 0.01]\n")
    common = ["--data", str(path), "--config", str(tmp_path / "how.toml")]
    out, test = tmp_path / "net.safetensors", tmp_path / "test.npz"
    script.main([*common, "--out", str(out), "--test", str(test)])
    assert "of the test clips told rightly; 1-nearest-neighbour: " in capsys.readouterr().out
    first = load_file(out)
    kept = tmp_path / "again.safetensors.checkpoint"
    again = [*common, "--out", str(kept.with_suffix(""))]
    asked = iter([False] * 2)
    with monkeypatch.context() as patched:
        patched.setattr("edgeco.train.script.stop_on_signal", lambda: nullcontext(lambda: next(asked, True)))
        assert ended(script, again) == 130
    assert kept.exists() and not kept.with_suffix("").exists()
    assert "go on with --resume" in capsys.readouterr().out
    before = kept.read_bytes()
    assert ended(script, again) == SpecError.exit_code and kept.read_bytes() == before
    assert "--resume, or remove it" in capsys.readouterr().err
    script.main([*again, "--resume"])
    assert not kept.exists()
    assert all(torch.equal(value, first[name]) for name, value in load_file(kept.with_suffix("")).items())
    held_out = read_data(test)
    assert held_out[0].fps and len(set(held_out.counts.values())) <= 4
    script.main([*common, "--search", "2"])
    assert capsys.readouterr().out.count("of the validation part with peak") == 2


def test_a_script_says_what_is_wrong_in_one_sentence(tmp_path: Path, capsys: Any) -> None:
    for arguments, told in (
        (["--data", str(tmp_path / "none.ts"), "--out", "x"], "no such file"),
        (["--data", "x"], "Nothing to do"),
        (["--data", "x", "--out", "y", "--peak", "-1"], "The recipe is not usable"),
    ):
        with pytest.raises(SystemExit) as error:
            watch_activity.main(arguments)
        assert error.value.code == 2 and told in capsys.readouterr().err


def test_parts_of_tracks_are_far_enough_apart(tracks: Path) -> None:
    """A line shares frames with the fifteen after it."""
    parts = fingertip_gesture.TrackTask().parts(tracks, seed=3)
    where = {int(case.name.split()[-1]): place for place, part in enumerate(parts) for case in part}
    for row, place in where.items():
        for other in range(row + 1, row + 16):
            assert (row - 1) // 400 != (other - 1) // 400 or where.get(other, place) == place
    assert len({case.group for case in fingertip_gesture.read_tracks(tracks)}) == 4


def test_mirrored_and_reversed_tracks_have_the_class_that_fits(tracks: Path) -> None:
    task = fingertip_gesture.TrackTask()
    batches = task.batches(task.parts(tracks, 1)[0], Recipe(batch=400))
    clips, labels = batches(0)
    again, _ = batches(0)
    assert torch.equal(clips, again) and clips.shape == (400, 2, 16) and set(labels.tolist()) == {0, 1, 2, 3}


def test_a_turned_watch_keeps_lengths() -> None:
    rng = np.random.default_rng(0)
    frames = 10 * rng.normal(size=(30, 6)).astype(np.float32)
    made = watch_activity.varied(rng, frames)
    ratio = np.linalg.norm(made.reshape(-1, 2, 3), axis=2) / np.linalg.norm(frames.reshape(-1, 2, 3), axis=2)
    assert made.dtype == np.float32 and made.shape == frames.shape and ratio.std() < 0.05 and 0.7 < ratio.mean() < 1.3


def test_drawn_digits_move_as_their_class_says(digits: Path) -> None:
    """The middle of what is bright moves left, right, up, down."""
    data = read_digits(digits)
    assert len(data) == 400 and {case.group for case in data} == {"mnist", "usps"}
    clips, classes = draw(data, 120, seed=5)
    again, _ = draw(data, 120, seed=5)
    assert np.array_equal(clips, again) and clips.shape == (120, 10, 32, 32) and clips.dtype == np.uint8
    y, x = np.mgrid[:32, :32]
    weight = np.clip(clips.astype(float) - np.percentile(clips, 80, axis=(2, 3), keepdims=True), 0, None) ** 2
    middle = [(weight * axis).sum((2, 3)) / weight.sum((2, 3)) for axis in (x, y)]
    moved = np.stack([axis[:, -3:].mean(1) - axis[:, :3].mean(1) for axis in middle], 1)
    told = np.where(np.abs(moved[:, 0]) > np.abs(moved[:, 1]), (moved[:, 0] > 0) + 0, (moved[:, 1] > 0) + 2)
    assert (told == classes % 4).mean() > 0.8


def test_the_nearest_neighbour_is_the_nearest() -> None:
    rng = np.random.default_rng(0)
    known, asked = rng.normal(size=(60, 4, 3)), rng.normal(size=(300, 4, 3))
    classes, truth = rng.integers(3, size=60), rng.integers(3, size=300)
    by_hand = [classes[np.linalg.norm((known - one).reshape(60, -1), axis=1).argmin()] for one in asked]
    assert nearest_accuracy((known, classes), (asked, truth)) == pytest.approx((np.array(by_hand) == truth).mean())
