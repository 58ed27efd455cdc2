"""Where a network takes one value apart along an axis, position by position, as Python loops over time do."""

from __future__ import annotations

import operator
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgeco.graph.trace import getitem_source, shape_of

_aten = torch.ops.aten
_SPLITS = (_aten.split, _aten.split_with_sizes, _aten.chunk, _aten.tensor_split, _aten.unsafe_split, _aten.unsafe_chunk)
SHORTEST = 4
"""Positions of the shortest loop that is looked at: iterations that differ from the first and the last are compared."""


@dataclass(frozen=True)
class Frames:
    """One value taken apart at consecutive positions of an axis.

    Attributes:
        source: the value.
        dim: the axis.
        first: the first position taken.
        length: positions taken.
        kept: whether each part keeps the axis, with one element.
        picks: the nodes that take a position, counted from `first`.
    """

    source: fx.Node
    dim: int
    first: int
    length: int
    kept: bool
    picks: dict[fx.Node, int]

    @property
    def key(self) -> tuple[fx.Node, int, bool]:
        """What tells it from others."""
        return self.source, self.dim, self.kept

    def reversed(self) -> Frames:
        """The same, counted from the last position."""
        turned = {node: self.length - 1 - at for node, at in self.picks.items()}
        return Frames(self.source, self.dim, self.first, self.length, self.kept, turned)


def find_frames(graph: fx.Graph) -> list[Frames]:
    """Every value of a graph that is taken apart along an axis, in the order of the graph."""
    found: dict[tuple[fx.Node, int, bool], dict[fx.Node, int]] = defaultdict(dict)
    for node in graph.nodes:
        picked = _picked(node)
        if picked is not None:
            source, dim, position, kept = picked
            found[source, dim, kept][node] = position
    frames = []
    for (source, dim, kept), picks in found.items():
        first, last = min(picks.values()), max(picks.values())
        if last - first + 1 >= SHORTEST and set(picks.values()) == set(range(first, last + 1)):
            counted = {node: at - first for node, at in picks.items()}
            frames.append(Frames(source, dim, first, last - first + 1, kept, counted))
    order = {node: i for i, node in enumerate(graph.nodes)}
    return sorted(frames, key=lambda f: order[f.source])


def _picked(node: fx.Node) -> tuple[fx.Node, int, int, bool] | None:
    """Source, axis, position, and whether the axis is kept, of a node that takes one position."""
    packet = getattr(node.target, "overloadpacket", None)
    if packet is _aten.select:
        source: Any = node.args[0]
        shape = shape_of(source)
        dim, index = node.args[1:]
        assert shape is not None and isinstance(dim, int) and isinstance(index, int)
        return source, dim % len(shape), index % shape[dim], False
    if packet is _aten.slice:
        return _sliced(node)
    several = getitem_source(node) if node.target is operator.getitem else None
    return _part(*several) if several is not None else None


def _sliced(node: fx.Node) -> tuple[fx.Node, int, int, bool] | None:
    source: Any = node.args[0]
    given: list[Any] = [*node.args[1:], *(0, 0, None, 1)[len(node.args) - 1 :]]
    dim, start, _, step = given
    before, after = shape_of(source), shape_of(node)
    assert before is not None and after is not None and isinstance(dim, int)
    dim %= len(before)
    if step != 1 or before[dim] == 1 or after[dim] != 1:
        return None
    first = start if isinstance(start, int) else 0
    return source, dim, first % before[dim], True


def _part(source: fx.Node, index: int) -> tuple[fx.Node, int, int, bool] | None:
    """The same for one of several parts of a split or unbind."""
    packet = getattr(source.target, "overloadpacket", None)
    if packet is not _aten.unbind and packet not in _SPLITS:
        return None
    whole: Any = source.args[0]
    shape = shape_of(whole)
    at = 1 if packet is _aten.unbind else 2
    dim = source.args[at] if len(source.args) > at else source.kwargs.get("dim", 0)
    assert shape is not None and isinstance(dim, int)
    dim %= len(shape)
    if packet is _aten.unbind:
        return whole, dim, index, False
    sizes = {part.shape[dim] for part in source.meta["val"] if isinstance(part, Tensor)}
    return (whole, dim, index, True) if sizes == {1} else None
