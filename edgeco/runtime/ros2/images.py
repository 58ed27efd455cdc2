"""Pictures of ``sensor_msgs/Image`` and ``CompressedImage`` as arrays, without cv_bridge."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from edgeco.errors import FrameError
from edgeco.runtime.sources.base import import_cv2

Picture = np.ndarray[Any, np.dtype[np.uint8]]
"""(height, width, 3) uint8, channels in the order blue, green, red."""

_CHANNELS = {
    "bgr8": (0, 1, 2),
    "8UC3": (0, 1, 2),
    "rgb8": (2, 1, 0),
    "bgra8": (0, 1, 2),
    "8UC4": (0, 1, 2),
    "rgba8": (2, 1, 0),
    "mono8": (0, 0, 0),
    "8UC1": (0, 0, 0),
}
"""Where blue, green and red lie in a pixel. The names of OpenCV, such as 8UC3, are blue first by custom."""
_WIDTHS = {"bgra8": 4, "8UC4": 4, "rgba8": 4, "mono8": 1, "8UC1": 1}
_YUV = {
    "yuv422": "COLOR_YUV2BGR_UYVY",
    "uyvy": "COLOR_YUV2BGR_UYVY",
    "yuv422_yuy2": "COLOR_YUV2BGR_YUY2",
    "yuyv": "COLOR_YUV2BGR_YUY2",
}
"""Two pixels in four bytes. ``uyvy`` and ``yuyv`` are what newer distributions call them."""
ENCODINGS = (*_CHANNELS, *_YUV)


class ImageMessage(Protocol):
    """The fields of ``sensor_msgs/Image`` that hold the picture."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class CompressedMessage(Protocol):
    """The fields of ``sensor_msgs/CompressedImage`` that hold the picture."""

    format: str
    data: Any


def decode_image(message: ImageMessage) -> Picture:
    """The picture of a ``sensor_msgs/Image``.

    Rows may be padded (``step``); the padding of the last may be missing. The result may share memory with the message.

    Raises:
        FrameError: the encoding is none of ``ENCODINGS``, or the sizes do not fit the data.
        SourceError: a yuv422 picture, which OpenCV converts, where OpenCV is missing.
    """
    encoding = message.encoding
    if encoding not in ENCODINGS:
        raise FrameError(f"images of encoding {encoding[:40]!a} are not read; publish one of {', '.join(ENCODINGS)}")
    yuv = encoding in _YUV
    if yuv and message.is_bigendian:
        raise FrameError(f"a big-endian image of encoding {encoding} has no defined order of bytes; publish bgr8")
    if yuv and message.width % 2:
        raise FrameError(f"an image of encoding {encoding} has pairs of pixels, and this one is {message.width} wide")
    rows = _rows(message, 2 if yuv else _WIDTHS.get(encoding, 3))
    if yuv:
        cv2 = import_cv2(f"an image of encoding {encoding}")
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(rows), getattr(cv2, _YUV[encoding])))
    order = _CHANNELS[encoding]
    if rows.shape[2] == 3 and order == (0, 1, 2):
        return rows
    return np.ascontiguousarray(rows[:, :, order])


def _rows(message: ImageMessage, channels: int) -> Picture:
    """(height, width, channels) of the bytes of a message, padding left out."""
    height, width, step = message.height, message.width, message.step
    if height < 1 or width < 1:
        raise FrameError(f"an image of {width}x{height} pixels holds no picture")
    if step < width * channels:
        least = width * channels
        raise FrameError(f"{width} pixels a row in {message.encoding} take a step of {least} bytes or more, not {step}")
    data = np.frombuffer(message.data, np.uint8)
    needed = step * (height - 1) + width * channels
    if data.size < needed:
        raise FrameError(
            f"an image of {width}x{height} pixels in {message.encoding} with a step of {step} has at least {needed} "
            f"bytes; this one has {data.size}"
        )
    return np.lib.stride_tricks.as_strided(data, (height, width, channels), (step, channels, 1), writeable=False)


def decode_compressed(message: CompressedMessage) -> Picture:
    """The picture of a ``sensor_msgs/CompressedImage`` (JPEG, PNG and what else OpenCV reads).

    Raises:
        FrameError: it holds depths, or no picture that can be read.
        SourceError: OpenCV is missing.
    """
    if "compressedDepth" in message.format:
        raise FrameError("a compressedDepth image holds distances, not a picture; subscribe the colour image")
    cv2 = import_cv2("a compressed image")
    data = np.frombuffer(message.data, np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if picture is None:
        given = ascii(message.format[:40])
        raise FrameError(f"a compressed image of format {given} and {data.size} bytes cannot be decoded")
    return np.asarray(picture)
