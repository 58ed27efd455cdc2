"""Which tensors FP16 cannot hold, by the ranges of a calibration.

FP16 reaches to 65504, and below 6.1e-5 its steps stay 6e-8 wide. What was seen to go beyond is kept in FP32: the block
list. What came near might on another day.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgeco.bundle.ranges import Ranges, TensorRange

GREATEST = 65504.0
"""The greatest finite number of FP16."""

SMALLEST = 2.0**-14
"""The least number of FP16 with all its 11 bits."""

HEADROOM = 4.0
"""A magnitude that is so many times below the greatest is safe."""


@dataclass(frozen=True)
class HalfRange:
    """Keys of tensors, each once.

    Attributes:
        beyond: seen above ``GREATEST``: the block list.
        near: seen within ``HEADROOM`` of it.
        vanishing: never seen above ``SMALLEST``, and not dead: FP16 rounds them coarsely or to 0.
    """

    beyond: tuple[str, ...]
    near: tuple[str, ...]
    vanishing: tuple[str, ...]


def blocked(ranges: Ranges) -> frozenset[str]:
    """Names of the tensors that FP16 graphs keep in FP32, whichever graph they are in."""
    return frozenset(key.partition("@")[0] for key in half_range(ranges).beyond)


def half_range(ranges: Ranges) -> HalfRange:
    """The tensors that FP16 holds badly or not at all.

    Example::

        half_range(observe(exported, manifest, streams)).beyond     # () where FP16 is safe
    """

    def those(condition: Callable[[TensorRange], bool]) -> tuple[str, ...]:
        return tuple(key for key, found in ranges.tensors.items() if condition(found))

    return HalfRange(
        beyond=those(lambda found: found.peak > GREATEST),
        near=those(lambda found: GREATEST / HEADROOM < found.peak <= GREATEST),
        vanishing=those(lambda found: 0 < found.peak < SMALLEST),
    )
