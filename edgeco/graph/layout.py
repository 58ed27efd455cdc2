"""Axes as ordered lists of factors, so that time and batch stay visible through reshape, permute, split and merge.

A clip value of shape (B*T, C, H, W) has the layout ((batch, time), (C,), (H,), (W,)); its *step* form is the same
tensor with the time factor taken out: (B, C, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Role = Literal["plain", "batch", "time"]


@dataclass(frozen=True)
class Factor:
    """One factor of an axis: its size in the clip network and what it counts."""

    size: int
    role: Role = "plain"


Axis = tuple[Factor, ...]


def _size(axis: Axis) -> int:
    return math.prod(factor.size for factor in axis)


@dataclass(frozen=True)
class Layout:
    """The axes of one clip value, outermost first."""

    axes: tuple[Axis, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(_size(axis) for axis in self.axes)

    @property
    def rank(self) -> int:
        return len(self.axes)

    def _find(self, role: Role) -> int | None:
        found = [i for i, axis in enumerate(self.axes) if any(f.role == role for f in axis)]
        return found[0] if found else None

    @property
    def time(self) -> int | None:
        """Index of the axis that holds time, or None."""
        return self._find("time")

    @property
    def batch(self) -> int | None:
        return self._find("batch")

    @property
    def pure_time(self) -> int | None:
        """Index of the axis that is time alone, or None."""
        time = self.time
        return time if time is not None and len(self.axes[time]) == 1 else None

    def step_axis(self, axis: int) -> int | None:
        """Index in the step value of a clip axis; None for the axis that is time alone."""
        axis %= max(self.rank, 1)
        pure = self.pure_time
        if axis == pure:
            return None
        return axis - (pure is not None and axis > pure)

    @property
    def step(self) -> Layout:
        """The layout with time taken out."""
        pure = self.pure_time
        kept = [axis for i, axis in enumerate(self.axes) if i != pure]
        return Layout(tuple(tuple(f for f in axis if f.role != "time") for axis in kept))

    def sizes(self) -> list[int]:
        """Shape with -1 for the axis that holds the batch: what a reshape of any batch takes."""
        batch = self.batch
        return [-1 if i == batch else size for i, size in enumerate(self.shape)]

    def with_axis(self, index: int, axis: Axis) -> Layout:
        return Layout((*self.axes[:index], axis, *self.axes[index + 1 :]))

    def with_size(self, index: int, size: int) -> Layout:
        """The layout after an operator changed the size of one axis (convolution, slice, pad)."""
        axis = self.axes[index]
        if len(axis) == 1:
            return self.with_axis(index, (replace(axis[0], size=size),))
        return self.with_axis(index, () if size == 1 else (Factor(size),))

    def permute(self, order: Sequence[int]) -> Layout:
        return Layout(tuple(self.axes[i % self.rank] for i in order))

    def drop(self, indices: Iterable[int]) -> Layout:
        gone = {i % self.rank for i in indices}
        return Layout(tuple(axis for i, axis in enumerate(self.axes) if i not in gone))

    def insert(self, index: int, axis: Axis = ()) -> Layout:
        return Layout((*self.axes[:index], axis, *self.axes[index:]))

    def reshape(self, shape: Sequence[int]) -> Layout | None:
        """The layout after a reshape to `shape`, or None if it would cut the batch or time factor in two.

        >>> clip = Layout(((Factor(7, "batch"),), (Factor(3),), (Factor(5, "time"),)))
        >>> clip.permute((0, 2, 1)).reshape((35, 3)).axes[0]
        (Factor(size=7, role='batch'), Factor(size=5, role='time'))
        """
        queue = [f for axis in self.axes for f in axis if f.size != 1 or f.role != "plain"]
        axes: list[Axis] = []
        for size in shape:
            taken = _take(queue, size)
            if taken is None:
                return None
            axes.append(taken)
        if any(f.size != 1 for f in queue):
            return None
        # Time of one element says nothing inside an axis of other things; as an axis of its own it is kept.
        return Layout(tuple(axis if len(axis) == 1 else tuple(f for f in axis if f.size != 1) for axis in axes))


def _take(queue: list[Factor], size: int) -> Axis | None:
    """Take factors whose product is `size` from the front of `queue`, splitting a plain one if need be."""
    taken: list[Factor] = []
    rest = size
    if size == 1 and queue and queue[0].size == 1:
        return (queue.pop(0),)
    while rest != 1:
        if not queue:
            return None
        factor = queue.pop(0)
        if rest % factor.size == 0:
            taken.append(factor)
            rest //= factor.size
        elif factor.role == "plain" and factor.size % rest == 0:
            taken.append(Factor(rest))
            queue.insert(0, Factor(factor.size // rest))
            rest = 1
        else:
            return None
    return tuple(taken)


def plain(shape: Sequence[int]) -> Layout:
    """Layout of a value that holds neither batch nor time."""
    return Layout(tuple(() if size == 1 else (Factor(size),) for size in shape))


def marked(shape: Sequence[int], batch: int, time_dim: int | None = None) -> Layout:
    """Layout of a value whose axes divisible by `batch` (the traced batch, a large prime) hold the batch.

    Args:
        shape: the clip shape.
        batch: the traced batch size.
        time_dim: the axis that is time, if any.
    """
    axes: list[Axis] = []
    for i, size in enumerate(shape):
        if i == time_dim:
            axes.append((Factor(size, "time"),))
        elif size and size % batch == 0:
            rest = size // batch
            axes.append((Factor(batch, "batch"), Factor(rest)) if rest > 1 else (Factor(batch, "batch"),))
        else:
            axes.append(() if size == 1 else (Factor(size),))
    return Layout(tuple(axes))
