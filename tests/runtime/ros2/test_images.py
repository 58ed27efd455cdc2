"""Pictures of ROS messages, each encoding against what it means by definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_ros import CLASSES

from edgeco.errors import FrameError
from edgeco.runtime.ros2 import decode_compressed, decode_image
from edgeco.runtime.ros2.images import ENCODINGS

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)
BGR = RNG.integers(0, 256, (6, 8, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (6, 8, 1), np.uint8)
GRAY = BGR[:, :, :1]


def image(pixels: Array, encoding: str, padding: int = 0, **fields: Any) -> Any:
    """A message whose rows end with bytes that belong to no pixel."""
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    padded = np.concatenate([rows, np.full((height, padding), 77, np.uint8)], 1)
    values = {"height": height, "width": width, "encoding": encoding, "step": padded.shape[1], "data": padded.tobytes()}
    return CLASSES["sensor_msgs/Image"](**{**values, **fields})


CASES = {
    "bgr8": (BGR, BGR),
    "8UC3": (BGR, BGR),
    "rgb8": (BGR[:, :, ::-1], BGR),
    "bgra8": (np.concatenate([BGR, ALPHA], 2), BGR),
    "8UC4": (np.concatenate([BGR, ALPHA], 2), BGR),
    "rgba8": (np.concatenate([BGR[:, :, ::-1], ALPHA], 2), BGR),
    "mono8": (GRAY, GRAY.repeat(3, 2)),
    "8UC1": (GRAY, GRAY.repeat(3, 2)),
}


@pytest.mark.parametrize("padding", [0, 1, 24])
@pytest.mark.parametrize("encoding", CASES)
def test_channels_and_padding(encoding: str, padding: int) -> None:
    pixels, expected = CASES[encoding]
    found = decode_image(image(pixels, encoding, padding))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def packed(luma: Array, blue: Array, red: Array, order: str) -> Array:
    """Two pixels in four bytes."""
    pairs = {"U": blue, "V": red, "Y": luma[:, ::2], "Z": luma[:, 1::2]}
    return np.stack([pairs[letter] for letter in order], 2).reshape(luma.shape[0], luma.shape[1], 2)


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize(
    ("encoding", "order"), [("yuv422", "UYVZ"), ("uyvy", "UYVZ"), ("yuv422_yuy2", "YUZV"), ("yuyv", "YUZV")]
)
def test_yuv_by_the_formula_of_bt601(encoding: str, order: str, padding: int) -> None:
    pytest.importorskip("cv2")
    luma = RNG.integers(16, 236, (6, 8)).astype(np.uint8)
    blue, red = (RNG.integers(16, 241, (6, 4)).astype(np.uint8) for _ in range(2))
    y, u, v = 1.164 * (luma - 16.0), blue.repeat(2, 1) - 128.0, red.repeat(2, 1) - 128.0
    expected = np.stack([y + 2.018 * u, y - 0.813 * v - 0.391 * u, y + 1.596 * v], 2).clip(0, 255)
    found = decode_image(image(packed(luma, blue, red, order), encoding, padding))
    np.testing.assert_allclose(found.astype(float), expected, atol=1.5)


def test_every_encoding_is_tried() -> None:
    assert set(ENCODINGS) == {*CASES, "yuv422", "uyvy", "yuv422_yuy2", "yuyv"}


def test_the_padding_of_the_last_row_may_be_missing() -> None:
    message = image(BGR, "bgr8", 10)
    message.data = message.data[:-10]
    np.testing.assert_array_equal(decode_image(message), BGR)


def test_the_order_of_bytes_means_nothing_where_channels_are_bytes() -> None:
    np.testing.assert_array_equal(decode_image(image(BGR, "bgr8", is_bigendian=1)), BGR)


PAIRS = np.zeros((4, 6, 2), np.uint8)
REFUSED = {
    "depth": (image(np.zeros((4, 12), np.uint8), "16UC1", width=6), "'16UC1' are not read; publish one of bgr8"),
    "terminal codes": (image(GRAY, "\x1b[2J"), r"'\\x1b\[2J' are not read"),
    "bayer": (image(GRAY, "bayer_rggb8"), "'bayer_rggb8' are not read"),
    "no pixels": (image(BGR, "bgr8", height=0, width=6), "6x0 pixels holds no picture"),
    "short step": (image(BGR, "bgr8", step=23), "8 pixels a row in bgr8 take a step of 24 bytes or more, not 23"),
    "short data": (image(BGR, "bgr8", height=7), "has at least 168 bytes; this one has 144"),
    "step beyond the data": (image(BGR, "bgr8", step=2**32 - 1), "this one has 144"),
    "big-endian pairs": (image(PAIRS, "yuv422", is_bigendian=1), "big-endian image of encoding yuv422 has no defined"),
    "odd width": (image(np.zeros((4, 5, 2), np.uint8), "yuyv"), "has pairs of pixels, and this one is 5 wide"),
}


@pytest.mark.parametrize(("message", "sentence"), REFUSED.values(), ids=REFUSED)
def test_refused(message: Any, sentence: str) -> None:
    with pytest.raises(FrameError, match=sentence) as caught:
        decode_image(message)
    assert str(caught.value).isprintable()


def test_compressed_pictures() -> None:
    cv2 = pytest.importorskip("cv2")
    kind = CLASSES["sensor_msgs/CompressedImage"]
    png = cv2.imencode(".png", BGR)[1].tobytes()
    np.testing.assert_array_equal(decode_compressed(kind(format="png", data=png)), BGR)
    smooth = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8)[:, :, None].repeat(3, 2)
    jpeg = cv2.imencode(".jpg", smooth, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    found = decode_compressed(kind(format="rgb8; jpeg compressed bgr8", data=jpeg))
    assert np.abs(found.astype(int) - smooth).max() < 12
    for message, sentence in (
        (kind(format="jpeg", data=b""), "format 'jpeg' and 0 bytes cannot be decoded"),
        (kind(format="jpeg", data=jpeg[:20]), "cannot be decoded"),
        (kind(format="16UC1; compressedDepth png", data=png), "holds distances"),
    ):
        with pytest.raises(FrameError, match=sentence):
            decode_compressed(message)
