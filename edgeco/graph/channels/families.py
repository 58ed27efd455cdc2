"""What the labels come to: families of alike units that can be removed, and blocks of what stays, with the reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import fx

from edgeco.graph.channels.axes import Member
from edgeco.graph.channels.call import Findings, Producer
from edgeco.graph.channels.labels import NOTHING, STRUCTURE, Array, Labels
from edgeco.graph.cost import LayerCost, layer_costs
from edgeco.graph.trace import ClipGraph

Gone = npt.NDArray[np.bool_]
"""Whether each label, by its number, is removed."""


@dataclass(eq=False)
class Family:
    """Units of which each has as many indices of the same axes as every other.

    A unit is what falls at once: one channel of all layers that a residual path joins, a head, a unit of an LSTM.

    Attributes:
        name: of the layer that first makes them.
        units: how many there are.
        members: for every tensor and axis, the indices of each unit: (units, indices).
        roots: the label that stands for each unit.
        producers: the tensors and axes along which layers make them; without layers that a norm follows at once.
        norms: those of `producers` that belong to norms.
        makers: as `producers`, with the layers that a norm follows.
        approximate: why removing some changes a normalisation over the others; None if it is exact.
    """

    name: str
    units: int
    members: dict[Member, Array]
    roots: Array
    producers: frozenset[Member] = frozenset()
    norms: frozenset[Member] = frozenset()
    makers: frozenset[Member] = frozenset()
    approximate: str | None = None

    @property
    def width(self) -> int:
        """Channels of the layer it is named for."""
        return self.units * self.each

    @property
    def each(self) -> int:
        """Channels a unit has in the layer it is named for."""
        return int(next(iter(self.members.values())).shape[1])


@dataclass(frozen=True)
class Block:
    """Channels that stay.

    Attributes:
        name: of the first layer that has them.
        tensors: the axes of parameters they lie along.
        width: how many.
        reason: why they stay.
    """

    name: str
    tensors: tuple[Member, ...]
    width: int
    reason: str


@dataclass
class Channels:
    """The channels of a network.

    Attributes:
        clip: the traced network.
        families: what can be removed, in the order of the network.
        blocks: what stays.
        unknown: operators that have no rule, by name, with the first source line; all that they touch stays.
        assumed: families that rest on the assumption that an operator cuts in proportion: operator to names.
    """

    clip: ClipGraph
    families: list[Family]
    blocks: list[Block]
    unknown: dict[str, str]
    assumed: dict[str, list[str]]
    labels: Labels = field(repr=False)
    values: dict[fx.Node, Any] = field(repr=False)

    def gone(self, removed: dict[str, Array]) -> Gone:
        """Labels that fall with units of families: family name to unit numbers."""
        flags = np.zeros(len(self.labels), dtype=bool)
        for family in self.families:
            flags[family.roots[removed.get(family.name, np.zeros(0, dtype=np.int64))]] = True
        return flags

    def shape_without(self, gone: Gone) -> Callable[[fx.Node], tuple[int, ...]]:
        """A function that gives the shape of a node's value once some labels are removed."""
        sizes: dict[int, int] = {}

        def size(labels: Array) -> int:
            if not labels.shape[1]:
                return len(labels)
            if id(labels) not in sizes:
                sizes[id(labels)] = int((~gone[self.labels.roots(labels)].any(1)).sum())
            return sizes[id(labels)]

        return lambda node: tuple(size(axis.labels) for axis in self.values[node])

    def layers(self, gone: Gone) -> list[LayerCost]:
        """Multiply-accumulates of every layer of the clip network once some labels are removed."""
        return layer_costs(self.clip.graph, self.clip.batch, self.shape_without(gone))

    def parameters(self, gone: Gone) -> int:
        """Numbers in all parameters that the network uses, once some labels are removed."""
        shape = self.shape_without(gone)
        nodes = [n for n in self.clip.graph.nodes if n.op == "placeholder" and n.name.startswith("p_")]
        return sum(int(np.prod(shape(n), dtype=np.int64)) for n in nodes)


def sorted_out(clip: ClipGraph, labels: Labels, values: dict[fx.Node, Any], findings: Findings) -> Channels:
    """Families and blocks of a network whose labels are resolved."""
    where = _members(clip, labels, values)
    pinned = {labels.find(label): reason for label, reason in labels.pins.items()}
    near = {labels.find(label): reason for label, reason in labels.approximate.items()}
    alike: dict[Any, list[int]] = defaultdict(list)
    stays: dict[Any, list[int]] = defaultdict(list)
    made = {member for producer in findings.producers for member in producer.tensors}
    for root, members in where.items():
        shape = tuple((member, len(indices)) for member, indices in members.items())
        if root not in pinned and not made & set(members):
            pinned[root] = "no layer makes it, as the rank of an adapter"
        if root in pinned:
            if pinned[root] != STRUCTURE:
                stays[(tuple(members), pinned[root])].append(root)
        else:
            alike[shape].append(root)
    families = [
        _family(roots, [where[r] for r in roots], findings.producers, near.get(roots[0])) for roots in alike.values()
    ]
    _name_apart(families)
    blocks = [
        Block(_named(members[0][0]), members, sum(len(where[r][members[0]]) for r in roots), reason)
        for (members, reason), roots in stays.items()
    ]
    by_root = {int(root): family.name for family in families for root in family.roots}
    assumed = {
        node: sorted({by_root[r] for r in np.unique(labels.roots(array)).tolist() if r in by_root})
        for node, array in findings.assumed.items()
    }
    return Channels(clip, families, blocks, findings.unknown, assumed, labels, values)


def _members(clip: ClipGraph, labels: Labels, values: dict[fx.Node, Any]) -> dict[int, dict[Member, list[int]]]:
    """For every class of labels, the indices of tensors that are in it."""
    found: dict[int, dict[Member, list[int]]] = defaultdict(dict)
    seen: set[int] = set()
    for node in clip.graph.nodes:
        if node.op != "placeholder" or node.name not in clip.tensors or node.name not in clip.names:
            continue
        if id(values[node]) in seen:  # one tensor by two names
            continue
        seen.add(id(values[node]))
        for i, axis in enumerate(values[node]):
            for index, root in enumerate(labels.roots(axis.labels[:, 0]).tolist() if not axis.fixed else ()):
                if root != NOTHING:
                    found[root].setdefault((clip.names[node.name], i), []).append(index)
    return found


def _family(
    roots: list[int], members: list[dict[Member, list[int]]], producers: list[Producer], near: str | None
) -> Family:
    together = {key: np.array([m[key] for m in members], dtype=np.int64) for key in members[0]}
    normed = {p.first for p in producers if p.norm}
    counted = [p for p in producers if p.norm or p.node not in normed]
    made = frozenset(m for p in counted for m in p.tensors if m in together)
    norms = frozenset(m for p in counted if p.norm for m in p.tensors if m in together)
    makers = frozenset(m for p in producers for m in p.tensors if m in together)
    first = next((m for p in producers for m in sorted(p.tensors, key=_weight_first) if m in together), None)
    name = _named((first or next(iter(together)))[0])
    ordered = sorted(together.items(), key=lambda item: item[0] != first)
    return Family(name, len(roots), dict(ordered), np.array(roots, dtype=np.int64), made, norms, makers, near)


def _weight_first(member: Member) -> tuple[bool, Member]:
    return ("bias" in member[0].rsplit(".", 1)[-1], member)


def _named(tensor: str) -> str:
    """A layer's name, from its tensor's."""
    parts = tensor.split(".")
    if "parametrizations" in parts:
        parts = [*parts[: parts.index("parametrizations")], ""]
    return ".".join(parts[:-1]) or tensor


def _name_apart(families: list[Family]) -> None:
    """Give families of one layer names of their own."""
    seen: dict[str, int] = defaultdict(int)
    for family in families:
        seen[family.name] += 1
        if seen[family.name] > 1:
            family.name = f"{family.name}#{seen[family.name]}"


__all__ = ["Block", "Channels", "Family", "sorted_out"]
