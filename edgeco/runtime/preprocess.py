"""How a picture of any size becomes the frame a network takes: the one implementation, for running and for training.

In this order: the region of interest is cut out, resized, cropped or padded to the frame's size, its colour changed.

Sizes: with a picture of h x w pixels and a frame of H x W, ``crop`` scales by max(H/h, W/w) and cuts the middle out,
``letterbox`` scales by min(H/h, W/w) and pads around, ``stretch`` scales each side by itself. A scaled side is rounded
to the nearest whole number, halves upwards. Where an odd number of rows or columns is cut away or padded, the larger
half lies at the bottom or right. A region of interest covers the pixels from round(left * w) to round(right * w), and
at least one.

Interpolation: pixel centres are at half-integers, and what lies outside the picture repeats its edge. ``nearest`` (the
pixel that holds the scaled centre, the right or lower one if it lies between two), ``linear`` and ``cubic`` (a = -0.75)
sample at the scaled centre and do not smooth when shrinking. ``area`` averages the pixels a new pixel covers when no
side grows, and is ``linear`` otherwise. Values may differ by one level between versions of OpenCV.

Colour: ``gray`` is 0.114 blue + 0.587 green + 0.299 red, rounded, with one channel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeco.bundle.manifest import Preprocessing
from edgeco.errors import FrameError, SpecError
from edgeco.runtime.sources.base import import_cv2

_Image = np.ndarray[Any, np.dtype[np.uint8]]

_GRAY = (1868, 9617, 4899)
"""Weights of blue, green and red in 1/16384, as OpenCV has them."""


class Preprocessor:
    """Turns pictures into frames by a bundle's ``Preprocessing`` record.

    The array that a call returns is reused by the next call: copy it to keep it. Use one preprocessor per thread.
    Pictures may change in size from call to call. OpenCV is needed only to interpolate.

    Args:
        spec: the manifest's record. ``mean`` and ``std`` are not applied: the graph holds them.

    Raises:
        SpecError: the region of interest is not within the picture.

    Example:
        >>> prepare = Preprocessor(Preprocessing(size=(2, 3), colour="gray"))
        >>> prepare(np.full((2, 3, 3), 200, np.uint8)).shape
        (2, 3, 1)
    """

    def __init__(self, spec: Preprocessing) -> None:
        if spec.roi is not None:
            left, top, right, bottom = spec.roi
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise SpecError(
                    f"region of interest {spec.roi}: give left, top, right and bottom as rising fractions from 0 to 1"
                )
        self.spec = spec
        height, width = spec.size
        self._fitted: _Image = np.empty((height, width, 3), np.uint8)
        self._scaled: _Image = np.empty((0, 0, 3), np.uint8)
        self._frame: _Image = np.empty((height, width, 1 if spec.colour == "gray" else 3), np.uint8)
        self._sum = np.empty((height, width), np.uint32)
        self._part = np.empty_like(self._sum)
        self._content: tuple[int, int] | None = None

    def __call__(self, image: _Image) -> _Image:
        """Prepare one picture.

        Args:
            image: (height, width, 3) uint8 in the order blue, green, red; any size from 1 x 1.

        Returns:
            (height, width, channels) uint8 of the manifest's size and colour, overwritten by the next call.

        Raises:
            FrameError: the picture has another shape or type.
            SourceError: OpenCV is needed and not installed.
        """
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype != np.uint8:
            raise FrameError(
                "a picture must be (height, width, 3) in uint8, blue, green, red; "
                f"this one is {image.shape} in {image.dtype}"
            )
        return self._colour(self._fit(self._cut(image)))

    def _cut(self, image: _Image) -> _Image:
        if self.spec.roi is None:
            return image
        height, width = image.shape[:2]
        left, top, right, bottom = self.spec.roi
        x, y = min(int(left * width + 0.5), width - 1), min(int(top * height + 0.5), height - 1)
        return image[y : max(int(bottom * height + 0.5), y + 1), x : max(int(right * width + 0.5), x + 1)]

    def _fit(self, image: _Image) -> _Image:
        """Resize, then crop or pad to the frame's size."""
        height, width = self.spec.size
        if image.shape[:2] == (height, width):
            self._content = None
            return image
        if self.spec.resize == "stretch":
            return self._resize(image, self._fitted)
        tall, wide = scaled_size(image.shape[0], image.shape[1], height, width, cover=self.spec.resize == "crop")
        if self.spec.resize == "letterbox":
            if self._content != (tall, wide):
                self._content = (tall, wide)
                self._fitted[...] = self.spec.pad_value
            top, left = (height - tall) // 2, (width - wide) // 2
            self._resize(image, self._fitted[top : top + tall, left : left + wide])
            return self._fitted
        scaled = image
        if image.shape[:2] != (tall, wide):
            if self._scaled.shape[:2] != (tall, wide):
                self._scaled = np.empty((tall, wide, 3), np.uint8)
            scaled = self._resize(image, self._scaled)
        top, left = (tall - height) // 2, (wide - width) // 2
        return scaled[top : top + height, left : left + width]

    def _resize(self, image: _Image, out: _Image) -> _Image:
        if image.shape == out.shape:
            np.copyto(out, image)
            return out
        kind = self.spec.interpolation
        if kind == "nearest":
            # Not OpenCV's: its fixed point takes the other pixel where a centre falls on an edge.
            down, across = (
                (2 * np.arange(new) + 1) * old // (2 * new)
                for new, old in zip(out.shape[:2], image.shape[:2], strict=True)
            )
            out[...] = image[down[:, None], across]
            return out
        cv2 = import_cv2("changing the size of pictures")
        if kind == "area" and (out.shape[0] > image.shape[0] or out.shape[1] > image.shape[1]):
            kind = "linear"
        flag = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}[kind]
        result = cv2.resize(image, (out.shape[1], out.shape[0]), dst=out, interpolation=flag)
        if not np.may_share_memory(result, out):  # OpenCV allocates anew where it cannot write to ``dst``
            np.copyto(out, result)
        return out

    def _colour(self, image: _Image) -> _Image:
        out = self._frame
        if self.spec.colour == "bgr":
            np.copyto(out, image)
        elif self.spec.colour == "rgb":
            for channel in range(3):
                out[..., channel] = image[..., 2 - channel]
        else:
            total = np.multiply(image[..., 0], _GRAY[0], out=self._sum, dtype=np.uint32)
            for channel in (1, 2):
                total += np.multiply(image[..., channel], _GRAY[channel], out=self._part, dtype=np.uint32)
            total += np.uint32(8192)
            total >>= np.uint32(14)
            out[..., 0] = total
        return out


def scaled_size(height: int, width: int, to_height: int, to_width: int, *, cover: bool) -> tuple[int, int]:
    """Height and width after scaling by one factor so that the result covers a size, or fits into it.

    Example:
        >>> scaled_size(480, 640, 100, 100, cover=True), scaled_size(480, 640, 100, 100, cover=False)
        ((100, 133), (75, 100))
    """
    by_height = (to_height * width >= to_width * height) == cover
    if by_height:
        return to_height, max(1, (2 * width * to_height + height) // (2 * height))
    return max(1, (2 * height * to_width + width) // (2 * width)), to_width
