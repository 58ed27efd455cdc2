"""The drawn scene moves as its labels say, and every parameter is checked."""

from __future__ import annotations

import hashlib
import time
from itertools import pairwise

import numpy as np
import pytest

from edgeco.errors import SpecError
from edgeco.runtime.frame import Frame
from edgeco.runtime.sources import State, open_source
from edgeco.runtime.sources.pattern import MOTIONS, SPEED, Segment, parse_script
from edgeco.runtime.sources.scene import Scene


def frames(uri: str) -> list[Frame]:
    with open_source(uri) as source:
        return list(source)


def flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Least-squares motion of the content in frame widths: (across, down, growth, turn clockwise)."""
    first, second = before.mean(axis=2), after.mean(axis=2)
    middle = (first + second) / 2
    down, across = np.gradient(middle)
    height, width = middle.shape
    y, x = np.mgrid[:height, :width].astype(float)
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    columns = [across, down, across * x + down * y, down * x - across * y]
    inner = (slice(4, -4), slice(4, -4))
    system = np.stack([column[inner].ravel() for column in columns], axis=1)
    motion = np.linalg.lstsq(system, (first - second)[inner].ravel(), rcond=None)[0]
    return motion / np.array([width, width, 1, 1])


SPREAD = np.sqrt((1 + 0.75**2) / 12)
EXPECTED = {
    "still": (0, 0, 0, 0),
    "pan left": (SPEED, 0, 0, 0),
    "pan right": (-SPEED, 0, 0, 0),
    "tilt up": (0, SPEED, 0, 0),
    "tilt down": (0, -SPEED, 0, 0),
    "zoom in": (0, 0, SPEED / SPREAD, 0),
    "zoom out": (0, 0, -SPEED / SPREAD, 0),
}


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("before", ["still:1", "roll:9,zoom-in:7"])
def test_content_moves_as_the_label_says(motion: str, before: str) -> None:
    count = sum(segment.frames for segment in parse_script(before))
    shown = frames(f"pattern://motion?size=128x96&script={before},{motion.replace(' ', '-')}:6&seed=3")[count:]
    assert {frame.label for frame in shown} == {motion}
    measured = np.median([flow(a.image, b.image) for a, b in pairwise(shown)], axis=0)
    if motion == "roll":
        assert abs(measured[3]) == pytest.approx(SPEED / SPREAD, rel=0.2)
        assert np.abs(measured[:3]).max() < 0.1 * SPEED / SPREAD
    else:
        units = np.array([1, 1, SPREAD, SPREAD])  # the layers of a zooming scene fade, which the fit takes for growth
        assert measured * units == pytest.approx(EXPECTED[motion] * units, abs=0.2 * SPEED)


def test_rolls_turn_either_way() -> None:
    turns = set()
    for seed in range(6):
        shown = frames(f"pattern://motion?size=64x48&script=roll:2&seed={seed}")
        turns.add(float(np.sign(flow(shown[0].image, shown[1].image)[3])))
    assert turns == {-1.0, 1.0}


def test_labels_follow_the_script() -> None:
    shown = frames("pattern://motion?size=32x24&fps=10&script=pan-left:2,zoom_out:1,ROLL:2")
    assert [frame.label for frame in shown] == ["pan left", "pan left", "zoom out", "roll", "roll"]
    assert [frame.index for frame in shown] == [0, 1, 2, 3, 4]
    assert [frame.stamp for frame in shown] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert {(frame.clock, frame.gap) for frame in shown} == {("rate", 0)}
    assert shown[0].image.shape == (24, 32, 3) and shown[0].image.dtype == np.uint8
    assert {frame.label for frame in frames("pattern://motion?size=16x16")} == set(MOTIONS)


def test_the_label_is_the_motion_from_the_frame_before() -> None:
    shown = frames("pattern://motion?size=128x96&script=still:3,pan-left:3,still:3")
    moved = [bool(np.any(a.image != b.image)) for a, b in pairwise(shown)]
    assert moved == [frame.label != "still" for frame in shown[1:]]


def test_equal_seeds_give_equal_pictures() -> None:
    uri = "pattern://motion?size=40x30&script=pan-left:3,roll:3&seed="
    first, again, other = (
        hashlib.sha256(b"".join(frame.image.tobytes() for frame in frames(uri + seed))).hexdigest() for seed in "778"
    )
    assert first == again != other


@pytest.mark.parametrize("zoom", [0.05, -0.05])
def test_the_scene_never_wears_out(zoom: float) -> None:
    scene = Scene(64, 48, 1)
    before = scene.render().astype(float)
    for _ in range(400):
        scene.move(0.01, 0.01, zoom, 0.05)
        image = scene.render().astype(float)
        assert 15 < image.std() < 80
        assert np.abs(image - before).mean() < 40  # no layer enters or leaves with a jump
        before = image


def test_bars_move() -> None:
    shown = frames("pattern://bars?size=80x20&fps=5&frames=12")
    assert len(shown) == 12
    assert shown[3].stamp == pytest.approx(0.6)
    assert all(frame.label is None for frame in shown)
    assert len(np.unique(shown[0].image.reshape(-1, 3), axis=0)) == 8
    ten = shown[10].image
    assert np.array_equal(np.roll(ten, 8, axis=1), shown[0].image)  # 10 frames are a tenth of the width
    assert not np.array_equal(shown[0].image, shown[2].image)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("pattern://snow", "no such pattern"),
        ("pattern://motion/x", "no such pattern"),
        ("pattern://motion?colour=red", "no parameter 'colour'"),
        ("pattern://bars?seed=1", "no parameter 'seed'"),
        ("pattern://motion?size=640", "width x height"),
        ("pattern://motion?size=4x480", "width"),
        ("pattern://motion?size=640x-2", "height"),
        ("pattern://motion?size=640x99999", "height"),
        ("pattern://motion?fps=0", "fps"),
        ("pattern://motion?fps=fast", "fps"),
        ("pattern://motion?fps=nan", "fps"),
        ("pattern://motion?script=", "no such motion"),
        ("pattern://motion?script=fly:3", "no such motion"),
        ("pattern://motion?script=still", "whole number"),
        ("pattern://motion?script=still:0", "whole number"),
        ("pattern://motion?script=still:3,", "no such motion"),
        ("pattern://motion?seed=-1", "whole number"),
        ("pattern://motion?seed=1&seed=2", "twice"),
        ("pattern://bars?frames=0", "whole number"),
        ("pattern://bars?frames=1e3", "whole number"),
    ],
)
def test_parameters_are_checked(uri: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        open_source(uri)


def test_script() -> None:
    assert parse_script(" still:2 , pan-left:1") == (Segment("still", 2), Segment("pan left", 1))


@pytest.mark.usefixtures("leakless")
def test_a_live_pattern_keeps_its_rate_and_drops_what_is_not_taken() -> None:
    begun = time.monotonic()
    with open_source("pattern://bars?size=64x48&fps=50&frames=20&live=1") as source:
        assert source.fps == 50
        frames = []
        for frame in source:
            frames.append(frame)
            time.sleep(0.05)
        status = source.status()
    assert time.monotonic() - begun >= 19 / 50
    assert (status.state, status.detail, status.fps) == (State.ENDED, "its pattern is over", 50)
    assert status.captured == status.frames + status.dropped == 20
    assert sum(frame.gap for frame in frames) <= status.drops["newer"]
    assert {frame.clock for frame in frames} == {"monotonic"}
    assert all(first.stamp < second.stamp for first, second in pairwise(frames))


@pytest.mark.usefixtures("leakless")
def test_a_live_pattern_shows_what_the_recorded_one_shows() -> None:
    uri = "pattern://motion?size=64x48&fps=200&script=still:2,pan-left:2&seed=3"
    with open_source(uri) as source:
        recorded = {frame.image.tobytes(): frame.label for frame in source}
    with open_source(uri + "&live=1&loop=1") as source:
        shown = [next(source) for _ in range(9)]
    assert all(recorded[frame.image.tobytes()] == frame.label for frame in shown)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("live=perhaps", "live is 'perhaps': give 1 or 0"),
        ("live=1&loop=2", "loop is '2'"),
        ("loop=1", "no parameter 'loop'"),
        ("live=1&size=3", "size is '3'"),
        ("live=1&stall=no", "stall is 'no'"),
        ("live=1&colour=red", "no parameter 'colour'"),
    ],
)
def test_what_is_wrong_with_a_live_pattern_is_said_at_once(query: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        open_source(f"pattern://bars?{query}")
