"""What is known of the axes of a value: their labels, and whether what is removed is zero."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeco.graph.channels.labels import NOTHING, Array, Labels, free

Member = tuple[str, int]
"""A tensor of the network by its name, and one of its axes."""


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of a value.

    Attributes:
        labels: of its indices, (size, columns).
        silent: whether the value is zero at an index that falls, once all parameters are zero there.
        sources: the axes of parameters that a value made of parameters alone has its indices from.
    """

    labels: Array
    silent: bool = True
    sources: frozenset[Member] = frozenset()

    @property
    def size(self) -> int:
        return len(self.labels)

    @property
    def fixed(self) -> bool:
        """Whether none of its indices can fall."""
        return not self.labels.shape[1]

    def loud(self) -> Axis:
        """The same with no word on what the value is where indices fall."""
        return self if self.fixed else replace(self, silent=False)

    def picked(self, index: slice | Array) -> Axis:
        """Some of its indices."""
        return replace(self, labels=self.labels[index])


Value = tuple[Axis, ...]
"""A tensor, as the axes it has."""


def still(size: int) -> Axis:
    """An axis of which nothing can be removed."""
    return Axis(free(size))


def joined(labels: Sequence[Array]) -> Array:
    """Labels of axes put end to end."""
    columns = max(part.shape[1] for part in labels)
    wide = [np.pad(part, ((0, 0), (0, columns - part.shape[1])), constant_values=NOTHING) for part in labels]
    return np.concatenate(wide)


def regrouped(labels: Labels, value: Value, shape: Sequence[int], why: str) -> Value:
    """A value's axes merged and split into those of another shape.

    A column of labels that only one of the new axes depends on moves there; for one that several depend on, each of
    these gets labels of its own, and an equation says what they are together.
    """
    made: list[Axis] = []
    for before, sizes in _groups([axis.size for axis in value], shape):
        made += _regroup(labels, [value[i] for i in before], sizes, why)
    return tuple(made)


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The smallest runs of axes that hold as much before as after: places before, sizes after."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        places, sizes = [], []
        if i < len(before):
            places, i = [i], i + 1
        if j < len(after):
            sizes, j = [after[j]], j + 1
        while math.prod(before[p] for p in places) != math.prod(sizes) or not places:
            if math.prod(before[p] for p in places) < math.prod(sizes) or not places:
                if i == len(before):
                    break
                places, i = [*places, i], i + 1
            else:
                if j == len(after):
                    break
                sizes, j = [*sizes, after[j]], j + 1
        found.append((places, sizes))
    return found


def _regroup(labels: Labels, axes: list[Axis], sizes: list[int], why: str) -> list[Axis]:
    real = [axis for axis in axes if axis.size != 1]
    wide = [n for n in sizes if n != 1]
    silent = all(axis.silent for axis in axes)
    sources = frozenset[Member]().union(*(axis.sources for axis in axes))
    if [axis.size for axis in real] == wide:
        rest = iter(real)
        return [still(1) if n == 1 else next(rest) for n in sizes]
    columns: dict[int, list[Array]] = {place: [] for place, n in enumerate(sizes) if n != 1}
    for depth, axis in enumerate(real):
        for column in axis.labels.T:
            _settle(labels, _spread(column, depth, [a.size for a in real]).reshape(wide), columns, why)
    made = []
    for place, n in enumerate(sizes):
        stacked = np.stack(columns[place], 1) if columns.get(place) else free(n)
        made.append(Axis(stacked, silent, sources if n != 1 else frozenset()))
    return made


def _spread(column: Array, depth: int, sizes: list[int]) -> Array:
    """An axis' labels at every place of all axes."""
    shape = [n if i == depth else 1 for i, n in enumerate(sizes)]
    return np.broadcast_to(column.reshape(shape), sizes)


def _settle(labels: Labels, grid: Array, columns: dict[int, list[Array]], why: str) -> None:
    """Give a column of labels, laid out in the new axes, to those of them that it depends on."""
    places = list(columns)
    along = [i for i in range(grid.ndim) if (grid != np.take(grid, [0], i)).any()]
    if not along:
        along = [0] if grid.any() else []
    if len(along) == 1:
        index = tuple(slice(None) if i == along[0] else 0 for i in range(grid.ndim))
        columns[places[along[0]]].append(np.ascontiguousarray(grid[index]))
        return
    if not along:
        return
    used = grid[tuple(slice(None) if i in along else 0 for i in range(grid.ndim))]
    parts = []
    for depth, i in enumerate(along):
        new = labels.fresh(grid.shape[i])[:, 0]
        columns[places[i]].append(new)
        parts.append(_spread(new, depth, list(used.shape)).reshape(-1))
    labels.equate(used.reshape(-1, 1), np.stack(parts, 1), why)
