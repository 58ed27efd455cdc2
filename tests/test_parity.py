"""A built bundle in its engine against the torch runner: 300 steps, snapshots, two streams in turn."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import edgeco
from edgeco.models.x3d import SIZES, X3D

sys.path.insert(0, str(Path(__file__).parent / "helpers"))
from streaming import randomise_norms

STEPS, PIXELS, MEAN, STD = 300, 32, 0.45, 0.225
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A bundle of an X3D with padding in every layer, frames, and the torch runner's answers from reset."""
    torch.manual_seed(0)
    net = randomise_norms(X3D(SIZES["xs"], classes=7, pixels=PIXELS)).eval()
    path = tmp_path_factory.mktemp("parity") / "net.edgeco"
    folder = path.parent
    torch.save(net.state_dict(), folder / "net.pt")
    (folder / "net.py").write_text(
        "from edgeco.models.x3d import SIZES, X3D\n"
        f"def make():\n    return X3D(SIZES['xs'], classes=7, pixels={PIXELS})\n"
        f"make.clip = (3, 4, {PIXELS}, {PIXELS})\nmake.mean, make.std = ({MEAN},), ({STD},)\n"
    )
    edgeco.build({"model": f"{folder / 'net.py'}:make", "weights": str(folder / "net.pt")}, path)
    frames = np.random.default_rng(1).integers(0, 256, (STEPS, PIXELS, PIXELS, 3), dtype=np.uint8)
    program = edgeco.convert(net, torch.zeros(1, 3, 4, PIXELS, PIXELS))
    rgb = torch.from_numpy(frames[..., ::-1].copy()).permute(3, 0, 1, 2)[None].float()
    answers = program.forward_steps((rgb / 255 - MEAN) / STD)
    return path, frames, answers[0].numpy()


@pytest.fixture
def model(case: tuple[Path, np.ndarray, np.ndarray]) -> object:
    return edgeco.load(case[0], threads=1)


def hold(given: list[np.ndarray], expected: np.ndarray) -> None:
    difference = np.abs(np.stack(given) - expected).max() / np.abs(expected).max()
    assert difference < TOLERANCE


def test_three_hundred_steps_from_reset(case, model) -> None:
    _, frames, expected = case
    with model.stream() as stream:
        for _ in range(2):
            results = [stream.step(frame) for frame in frames]
            first = STEPS - len(expected)
            assert [r.valid for r in results] == [False] * first + [True] * len(expected)
            hold([r.outputs["output"] for r in results[first:]], expected)
            stream.reset()


@pytest.mark.parametrize("cut", [3, 30, 71, 72, 73, 151])
def test_snapshot_in_the_middle_goes_on_as_if_nothing_had_happened(case, model, cut: int) -> None:
    _, frames, expected = case
    first = STEPS - len(expected)
    with model.stream() as stream:
        for frame in frames[:cut]:
            stream.step(frame)
        kept = stream.snapshot()
        for frame in frames[:17]:
            stream.step(frame)
    with model.stream() as other:
        other.restore(kept)
        assert other.steps == cut
        results = [other.step(frame) for frame in frames[cut:]]
    late = max(first - cut, 0)
    hold([r.outputs["output"] for r in results[late:]], expected[max(cut - first, 0) :])


def test_two_streams_in_turn_do_not_touch_each_other(case, model) -> None:
    _, frames, expected = case
    first = STEPS - len(expected)
    with model.stream() as one, model.stream() as two:
        ours, theirs = [], []
        for i in range(STEPS):
            ours.append(one.step(frames[i]).outputs["output"])
            if i % 3:  # the other one falls behind
                theirs.append(two.step(frames[len(theirs)]).outputs["output"])
    hold(ours[first:], expected)
    hold(theirs[first:], expected[: len(theirs) - first])


def test_rows_of_one_stream_are_streams_of_their_own(case, model) -> None:
    _, frames, expected = case
    first = STEPS - len(expected)
    with model.stream(rows=2) as stream:
        results = [stream.step(np.stack([frames[i], frames[STEPS - 1 - i]])).outputs["output"] for i in range(120)]
    hold([r[0] for r in results[first:]], expected[: 120 - first])
    assert not np.allclose(results[-1][0], results[-1][1])
