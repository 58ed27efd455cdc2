"""Preprocessing against oracles that share no code with it."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeco.bundle.manifest import Preprocessing
from edgeco.errors import FrameError, SpecError
from edgeco.runtime.preprocess import Preprocessor, scaled_size

pytest.importorskip("cv2", reason="pictures are resized with OpenCV")

Array = np.ndarray[Any, Any]


def picture(height: int, width: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# The oracles resize one axis with a matrix: each row holds the weights of one new pixel.


def area_matrix(size: int, new: int) -> Array:
    made = np.zeros((new, size))
    for row in range(new):
        start, stop = row * size / new, (row + 1) * size / new
        for column in range(size):
            made[row, column] = max(0.0, min(stop, column + 1) - max(start, column))
    return made / made.sum(axis=1, keepdims=True)


def cubic(distance: float, a: float = -0.75) -> float:
    d = abs(distance)
    if d < 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def sampling_matrix(size: int, new: int, kind: str) -> Array:
    made = np.zeros((new, size))
    for row in range(new):
        centre = (row + 0.5) * size / new - 0.5
        if kind == "nearest":
            made[row, min(size - 1, math.floor(Fraction(2 * row + 1, 2) * size / new))] = 1
            continue
        low = math.floor(centre)
        for column in range(low - 1, low + 3):
            weight = cubic(centre - column) if kind == "cubic" else max(0.0, 1 - abs(centre - column))
            made[row, min(max(column, 0), size - 1)] += weight
    return made


def resized(image: Array, height: int, width: int, kind: str) -> Array:
    if image.shape[:2] == (height, width):
        return image.astype(float)
    if kind == "area" and (height > image.shape[0] or width > image.shape[1]):
        kind = "linear"
    make = area_matrix if kind == "area" else lambda size, new: sampling_matrix(size, new, kind)
    down, across = make(image.shape[0], height), make(image.shape[1], width)
    return np.clip(np.einsum("ij,jkc,lk->ilc", down, image.astype(float), across), 0, 255)


def oracle(image: Array, spec: Preprocessing) -> Array:
    """Frame in float before rounding."""
    if spec.roi is not None:
        h, w = image.shape[:2]
        left, top, right, bottom = (
            math.floor(part * size + 0.5) for part, size in zip(spec.roi, (w, h, w, h), strict=True)
        )
        left, top = min(left, w - 1), min(top, h - 1)
        image = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    h, w = image.shape[:2]
    height, width = spec.size
    if spec.resize == "stretch":
        image = resized(image, height, width, spec.interpolation)
    else:
        pick = max if spec.resize == "crop" else min
        scale = pick(Fraction(height, h), Fraction(width, w))
        tall, wide = (max(1, math.floor(side * scale + Fraction(1, 2))) for side in (h, w))
        image = resized(image, tall, wide, spec.interpolation)
        if spec.resize == "crop":
            top, left = (tall - height) // 2, (wide - width) // 2
            image = image[top : top + height, left : left + width]
        else:
            canvas = np.full((height, width, 3), float(spec.pad_value))
            top, left = (height - tall) // 2, (width - wide) // 2
            canvas[top : top + tall, left : left + wide] = image
            image = canvas
    if spec.colour == "rgb":
        return image[..., ::-1]
    if spec.colour == "gray":
        return (0.114 * image[..., 0] + 0.587 * image[..., 1] + 0.299 * image[..., 2])[..., None]
    return image


sides = st.integers(1, 41)
specs = st.builds(
    Preprocessing,
    size=st.tuples(st.integers(1, 23), st.integers(1, 23)),
    colour=st.sampled_from(["rgb", "bgr", "gray"]),
    resize=st.sampled_from(["crop", "letterbox", "stretch"]),
    interpolation=st.sampled_from(["area", "linear", "cubic", "nearest"]),
    roi=st.one_of(
        st.none(),
        st.builds(
            lambda a, b, c, d: (a * 0.7, b * 0.7, a * 0.7 + 0.01 + c * 0.29, b * 0.7 + 0.01 + d * 0.29),
            *[st.floats(0, 1)] * 4,
        ),
    ),
    pad_value=st.integers(0, 255),
)


@settings(max_examples=400, deadline=None)
@given(spec=specs, height=sides, width=sides, seed=st.integers(0, 5))
def test_frames_equal_the_oracle(spec: Preprocessing, height: int, width: int, seed: int) -> None:
    image = picture(height, width, seed)
    kept = image.copy()
    frame = Preprocessor(spec)(image)
    expected = oracle(image, spec)
    assert frame.dtype == np.uint8 and frame.flags.c_contiguous
    assert frame.shape == expected.shape == (*spec.size, 1 if spec.colour == "gray" else 3)
    # One level for OpenCV's fixed point, one more where the colour was rounded after the size.
    assert np.abs(frame - expected).max() <= (2.01 if spec.colour == "gray" else 1.51)
    assert np.array_equal(image, kept)


@settings(max_examples=60, deadline=None)
@given(spec=specs, sizes=st.lists(st.tuples(sides, sides), min_size=2, max_size=5))
def test_reused_buffers_hold_nothing_of_the_last_picture(spec: Preprocessing, sizes: list[tuple[int, int]]) -> None:
    prepare = Preprocessor(spec)
    for number, (height, width) in enumerate([*sizes, spec.size, *sizes]):
        image = picture(height, width, number)
        assert np.array_equal(prepare(image), Preprocessor(spec)(image))


@pytest.mark.parametrize("resize", ["crop", "letterbox", "stretch"])
def test_the_buffer_is_reused(resize: Any) -> None:
    prepare = Preprocessor(Preprocessing(size=(5, 7), resize=resize))
    assert prepare(picture(20, 30)) is prepare(picture(31, 17))


def test_exact_examples() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, :, 0], image[:, :, 2] = 10, 200
    image[:, 3:, 1] = 100
    assert Preprocessor(Preprocessing(size=(4, 6), colour="rgb"))(image)[0, 0].tolist() == [200, 0, 10]
    assert Preprocessor(Preprocessing(size=(4, 6), colour="bgr"))(image)[0, 5].tolist() == [10, 100, 200]
    grey = Preprocessor(Preprocessing(size=(4, 6), colour="gray"))(image)
    assert grey[0, 0, 0] == round(0.114 * 10 + 0.299 * 200)
    half = Preprocessor(Preprocessing(size=(2, 3), colour="bgr", roi=(0.5, 0.0, 1.0, 0.5)))(image)
    assert np.array_equal(half, image[:2, 3:])
    letterbox = Preprocessor(Preprocessing(size=(7, 6), colour="bgr", resize="letterbox", pad_value=9))(image)
    assert np.array_equal(letterbox[1:5], image) and set(letterbox[[0, 5, 6]].ravel()) == {9}
    crop = Preprocessor(Preprocessing(size=(4, 3), colour="bgr"))(image)
    assert np.array_equal(crop, image[:, 1:4])


def test_area_averages_what_linear_skips() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[::4, ::4] = 255
    area = Preprocessor(Preprocessing(size=(8, 8), interpolation="area"))(image)
    assert set(area.ravel()) == {16}
    assert set(Preprocessor(Preprocessing(size=(8, 8), interpolation="linear"))(image).ravel()) != {16}


def test_grey_is_opencv_grey() -> None:
    cv2 = pytest.importorskip("cv2")
    image = picture(50, 60)
    grey = Preprocessor(Preprocessing(size=(50, 60), colour="gray"))(image)
    assert np.abs(grey[..., 0].astype(int) - cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)).max() <= 1


@given(sides, sides, sides, sides)
def test_scaled_sizes(height: int, width: int, to_height: int, to_width: int) -> None:
    tall, wide = scaled_size(height, width, to_height, to_width, cover=True)
    assert tall >= to_height and wide >= to_width and (tall == to_height or wide == to_width)
    tall, wide = scaled_size(height, width, to_height, to_width, cover=False)
    assert 1 <= tall <= to_height and 1 <= wide <= to_width and (tall == to_height or wide == to_width)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused(image: Array) -> None:
    with pytest.raises(FrameError, match="height, width, 3"):
        Preprocessor(Preprocessing(size=(2, 2)))(image)


@pytest.mark.parametrize(
    "roi", [(0.5, 0, 0.5, 1), (0, 0.9, 1, 0.1), (-0.1, 0, 1, 1), (0, 0, 1.1, 1), (0, 0, float("nan"), 1)]
)
def test_regions_outside_are_refused(roi: tuple[float, float, float, float]) -> None:
    with pytest.raises(SpecError, match="region of interest"):
        Preprocessor(Preprocessing(size=(2, 2), roi=roi))


def test_a_picture_of_the_frames_size_needs_no_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from edgeco.errors import SourceError

    monkeypatch.setitem(sys.modules, "cv2", None)
    for resize in ("crop", "letterbox", "stretch"):
        image = picture(5, 7)
        prepare = Preprocessor(Preprocessing(size=(5, 7), resize=resize))  # type: ignore[arg-type]
        assert np.array_equal(prepare(image), image[..., ::-1])
        with pytest.raises(SourceError, match="pip install"):
            prepare(picture(10, 14))
