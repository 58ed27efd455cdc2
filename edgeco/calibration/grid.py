"""The grid of 256 numbers on which a tensor lies in INT8: of which type, how fine, and where zero is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgeco.bundle.ranges import LEVELS, TensorRange

Array = np.ndarray[Any, Any]
Kind = Literal["cpu", "trt"]

LEAST = float(np.finfo(np.float16).smallest_subnormal)
GREATEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Grid:
    """``number = (code - zero) * scale``; codes of ``dtype``, int8 or uint8."""

    scale: float
    zero: int
    dtype: Literal["int8", "uint8"]

    def code(self, number: float) -> int:
        """The code nearest to a number: where it lies beyond the grid, and for infinities, the last one."""
        limits = np.iinfo(self.dtype)
        if not np.isfinite(number):
            return int(limits.max if number > 0 else limits.min)
        return int(np.clip(np.rint(number / self.scale) + self.zero, limits.min, limits.max))


def grid_of(found: TensorRange, kind: Kind) -> Grid:
    """The grid for a range.

    TensorRT wants int8 with its zero at 0; scales are numbers that FP16 has, so that typed and untyped networks have
    equal codes. ONNX Runtime fuses uint8, with any zero: it lies where the range wants it, which is twice as fine after
    a ReLU as a zero in the middle, and lets the lowest code do the ReLU's work.
    """
    if kind == "trt":
        return Grid(half_scale(found.scale), 0, "int8")
    low, high = max(min(found.low, 0.0), -found.amax), min(max(found.high, 0.0), found.amax)
    if high - low <= 0:
        return Grid(1.0 / LEVELS, 128, "uint8")
    scale = (high - low) / 255
    return Grid(scale, int(np.clip(np.rint(-low / scale), 0, 255)), "uint8")


def half_scale(scale: float) -> float:
    """The least number of FP16 that is not below a scale."""
    near = np.float16(min(max(scale, LEAST), GREATEST))
    return float(near if float(near) >= scale else np.nextafter(near, np.float16(np.inf)))


def joined(ranges: list[TensorRange]) -> TensorRange:
    """One range for tensors that share a grid: that of the widest, reaching as far as any."""
    import msgspec

    widest = max(ranges, key=lambda found: found.amax)
    low, high = min(found.low for found in ranges), max(found.high for found in ranges)
    return msgspec.structs.replace(widest, low=low, high=high, limit=0.0, histogram=())


def weight_codes(array: Array, axis: int, kind: Kind, least: Array | None = None) -> tuple[Array, Array]:
    """Codes (int8) and scales (float32, one per channel of ``axis``) of a weight.

    Args:
        array: the weight.
        axis: that of its output channels.
        kind: typing; for TensorRT scales are numbers that FP16 has.
        least: scales that must not be undercut, per channel, so that a bias fits into int32.
    """
    rest = tuple(place for place in range(array.ndim) if place != axis)
    amax = np.abs(array).max(axis=rest).astype(np.float64)
    scales = np.where(amax > 0, amax, 1.0) / LEVELS
    if least is not None:
        scales = np.maximum(scales, least)
    if kind == "trt":
        scales = np.array([half_scale(scale) for scale in scales])
    scales = scales.astype(np.float32)
    shape = [1] * array.ndim
    shape[axis] = -1
    codes = np.clip(np.rint(array / scales.reshape(shape)), -LEVELS, LEVELS).astype(np.int8)
    return codes, scales
