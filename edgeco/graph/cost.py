"""Multiply-accumulates and bytes, per layer and per phase: the only place that counts them.

Multiply-accumulates are counted of convolutions, linear layers and products of matrices; not of norms, activations and
pooling. Traffic is counted of fused layers: what an engine at its best reads from memory and writes to it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from edgeco.graph.trace import op_name, where

aten = torch.ops.aten


@dataclass(frozen=True)
class LayerCost:
    """What one operator executes for one row, where it was called, and its name in the graph."""

    op: str
    where: str
    macs: int
    name: str


Shape = Callable[[Any], tuple[int, ...]]
"""Gives the shape of a node's value."""


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in node.meta["val"].shape)


def _convolution(node: fx.Node, shape: Shape) -> int:
    kernel = shape(node.args[1])
    return math.prod(shape(node)) * math.prod(kernel[1:])


def _transposed(node: fx.Node, shape: Shape) -> int:
    return math.prod(shape(node.args[0])) * math.prod(shape(node.args[1])[1:])


def _linear(node: fx.Node, shape: Shape) -> int:
    return math.prod(shape(node)) * shape(node.args[1])[1]


def _product(node: fx.Node, shape: Shape) -> int:
    return math.prod(shape(node)) * shape(node.args[0])[-1]


def _addmm(node: fx.Node, shape: Shape) -> int:
    return math.prod(shape(node)) * shape(node.args[1])[-1]


def _attention(node: fx.Node, shape: Shape) -> int:
    query, key = shape(node.args[0]), shape(node.args[1])
    return math.prod(query) * key[-2] + math.prod(shape(node)) * key[-2]


def _einsum(node: fx.Node, shape: Shape) -> int:
    words = str(node.args[0]).replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for word, operand in zip(words, node.args[1], strict=True):  # type: ignore[arg-type]
        sizes |= dict(zip(word, shape(operand), strict=False))
    return math.prod(sizes.values())


def _recurrent(node: fx.Node, shape: Shape) -> int:
    """Every matrix of every layer once per row and element of the sequence."""
    rows, length, _ = shape(node.args[0])
    matrices = [shape(given) for given in node.args[2]]  # type: ignore[union-attr]
    return rows * length * sum(math.prod(size) for size in matrices if len(size) == 2)


_COUNT: dict[Any, Callable[[fx.Node, Shape], int]] = {
    aten.conv1d: _convolution,
    aten.conv2d: _convolution,
    aten.conv3d: _convolution,
    aten.conv_transpose1d: _transposed,
    aten.conv_transpose2d: _transposed,
    aten.conv_transpose3d: _transposed,
    aten.linear: _linear,
    aten.matmul: _product,
    aten.bmm: _product,
    aten.mm: _product,
    aten.addmm: _addmm,
    aten.einsum: _einsum,
    aten.scaled_dot_product_attention: _attention,
    aten.lstm: _recurrent,
    aten.gru: _recurrent,
    aten.rnn_tanh: _recurrent,
    aten.rnn_relu: _recurrent,
}


def layer_costs(graph: fx.Graph, batch: int, shape: Shape = _shape) -> list[LayerCost]:
    """Cost of every counted operator of a graph whose nodes carry fake values of a batch of `batch`.

    Args:
        graph: the graph.
        batch: rows its values have.
        shape: gives the shape of a node's value, if not the one it carries.
    """
    found = []
    for node in graph.nodes:
        count = _COUNT.get(getattr(node.target, "overloadpacket", None))
        if count is not None and node.meta.get("val") is not None:
            found.append(LayerCost(op_name(node), where(node), count(node, shape) // batch, node.name))
    return found


def total_macs(graph: fx.Graph, batch: int) -> int:
    """Multiply-accumulates of a whole graph for one row."""
    return sum(layer.macs for layer in layer_costs(graph, batch))


# -------------------------------------------------------------------------------------------------------- traffic

_MOVES = frozenset(
    packet
    for name in (
        *("view", "reshape", "_unsafe_view", "permute", "transpose", "t", "squeeze", "unsqueeze", "expand", "flatten"),
        *("unflatten", "slice", "select", "split", "split_with_sizes", "chunk", "unbind", "narrow", "alias", "detach"),
        *("clone", "contiguous", "cat", "stack", "movedim"),
    )
    if (packet := getattr(aten, name, None)) is not None
)
"""Operators that an engine can do without: it reads or writes the value in place instead."""

_FUSED = frozenset((aten.batch_norm, aten._native_batch_norm_legit_no_training, aten._to_copy, aten.to))
"""Operators that treat every element alone, though PyTorch does not tag them so."""


@dataclass
class FusedLayer:
    """What one kernel of an engine does at its best: an operator with the pointwise ones around it, for one row.

    Attributes:
        op: the operator that leads it.
        macs: multiply-accumulates.
        reads: numbers read that other layers or histories hold; those of the frame are not counted.
        writes: numbers written that others read.
        weights: numbers of weights read, however many rows there are.
        nodes: names of its operators in the graph, the leading one first.
    """

    op: str
    macs: int = 0
    reads: int = 0
    writes: int = 0
    weights: int = 0
    nodes: list[str] = field(default_factory=list)


def fused_layers(graph: fx.Graph, batch: int, frames: Collection[str]) -> list[FusedLayer]:
    """The layers of a graph whose nodes carry fake values of a batch of `batch`, in their order.

    Every operator that is not pointwise begins a layer; a pointwise one joins the last layer it reads. Views and
    concatenations cost nothing: this is the least traffic, not that of some engine.

    Args:
        graph: the graph.
        batch: rows its values have.
        frames: names of the inputs that are frames, which are not counted.
    """
    grouping = _Grouping(graph, batch, frames)
    return [grouping.layer(members) for members in grouping.groups if members]


class _Grouping:
    """Which operators share a kernel, and what crosses between kernels."""

    def __init__(self, graph: fx.Graph, batch: int, frames: Collection[str]) -> None:
        self.batch, self.frames = batch, frames
        self.groups: list[list[fx.Node]] = []
        self.group_of: dict[fx.Node, int] = {}
        self._constant: set[fx.Node] = set()
        self._sources: dict[fx.Node, dict[fx.Node, int]] = {}
        for node in graph.nodes:
            self._place(node)

    def _place(self, node: fx.Node) -> None:
        inputs = node.all_input_nodes
        counted = getattr(node.target, "overloadpacket", None) in _COUNT  # also where weights alone are multiplied
        folded = node.op == "call_function" and not counted and all(i in self._constant for i in inputs)
        if node.op == "get_attr" or folded:
            self._constant.add(node)
        elif node.op == "call_function" and _is_move(node):
            joins = getattr(node.target, "overloadpacket", None) in (aten.cat, aten.stack)
            limit = None if joins else _numbers(node)
            merged = self._merged(inputs)
            self._sources[node] = {k: v if limit is None else min(v, limit) for k, v in merged.items()}
            return
        elif node.op == "call_function":
            self._join(node, self._merged(inputs))
        if node.op != "output":
            self._sources[node] = {node: _numbers(node)}

    def _merged(self, inputs: Iterable[fx.Node]) -> dict[fx.Node, int]:
        """The values that reach an operator through views, and how many numbers of each."""
        found: dict[fx.Node, int] = {}
        for given in inputs:
            for source, count in self._sources[given].items():
                found[source] = max(found.get(source, 0), count)
        return found

    def _join(self, node: fx.Node, sources: dict[fx.Node, int]) -> None:
        before = [self.group_of[source] for source in sources if source in self.group_of]
        if not _is_pointwise(node) or not before:
            self.group_of[node] = len(self.groups)
            self.groups.append([node])
            return
        # Pointwise work on histories alone follows no other layer: if nothing else reads it, it is done in this one.
        led = [place for place in before if not _is_pointwise(self.groups[place][0])]
        chosen = max(led or before)
        for other in sorted(set(before) - {chosen} - set(led)):
            members = self.groups[other]
            if all(set(n.users) <= {*members, node} for n in members):
                self.groups[chosen] = [*self.groups[chosen], *members]
                self.group_of |= dict.fromkeys(members, chosen)
                self.groups[other] = []
        self.groups[chosen].append(node)
        self.group_of[node] = chosen

    def layer(self, members: list[fx.Node]) -> FusedLayer:
        """What one group costs."""
        inside = set(members)
        read: dict[fx.Node, int] = {}
        for node in members:
            for source, count in self._merged(node.all_input_nodes).items():
                if source not in inside:
                    read[source] = max(read.get(source, 0), count)
        kept = [source for source in read if source not in self._constant and source.name not in self.frames]
        counted = _COUNT.get(getattr(members[0].target, "overloadpacket", None))
        return FusedLayer(
            op=op_name(members[0]),
            macs=counted(members[0], _shape) // self.batch if counted is not None else 0,
            reads=sum(self._of_one_row(read[source]) for source in kept),
            writes=sum(self._of_one_row(_numbers(node)) for node in members if self._leaves(node, inside)),
            weights=sum(read[source] for source in read if source in self._constant),
            nodes=[node.name for node in members],
        )

    def _leaves(self, node: fx.Node, inside: set[fx.Node]) -> bool:
        """Whether another layer, an answer or a history reads a value."""
        return any(
            user.op == "output" or (self._leaves(user, inside) if _is_move(user) else user not in inside)
            for user in node.users
        )

    def _of_one_row(self, count: int) -> int:
        return count // self.batch if count % self.batch == 0 else count


def _is_move(node: fx.Node) -> bool:
    return node.target is operator.getitem or getattr(node.target, "overloadpacket", None) in _MOVES


def _is_pointwise(node: fx.Node) -> bool:
    packet = getattr(node.target, "overloadpacket", None)
    return torch.Tag.pointwise in getattr(node.target, "tags", ()) or packet in _FUSED


def _numbers(node: fx.Node) -> int:
    """Numbers a node's value holds; several tensors together."""
    value = node.meta.get("val")
    parts = value if isinstance(value, (tuple, list)) else (value,)
    return sum(int(part.numel()) for part in parts if isinstance(part, Tensor))
