"""Multiply-accumulates and bytes, per layer and per phase: the only place that counts them.

Counted are convolutions, linear layers and products of matrices; norms, activations and pooling are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
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


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in node.meta["val"].shape)


def _convolution(node: fx.Node) -> int:
    kernel = _shape(node.args[1])
    return math.prod(_shape(node)) * math.prod(kernel[1:])


def _transposed(node: fx.Node) -> int:
    return math.prod(_shape(node.args[0])) * math.prod(_shape(node.args[1])[1:])


def _linear(node: fx.Node) -> int:
    return math.prod(_shape(node)) * _shape(node.args[1])[1]


def _product(node: fx.Node) -> int:
    return math.prod(_shape(node)) * _shape(node.args[0])[-1]


def _addmm(node: fx.Node) -> int:
    return math.prod(_shape(node)) * _shape(node.args[1])[-1]


def _attention(node: fx.Node) -> int:
    query, key = _shape(node.args[0]), _shape(node.args[1])
    return math.prod(query) * key[-2] + math.prod(_shape(node)) * key[-2]


def _einsum(node: fx.Node) -> int:
    words = str(node.args[0]).replace(" ", "").split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for word, operand in zip(words, node.args[1], strict=True):  # type: ignore[arg-type]
        sizes |= dict(zip(word, _shape(operand), strict=False))
    return math.prod(sizes.values())


_COUNT: dict[Any, Callable[[fx.Node], int]] = {
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
}


def layer_costs(graph: fx.Graph, batch: int) -> list[LayerCost]:
    """Cost of every counted operator of a graph whose nodes carry fake values of a batch of `batch`."""
    found = []
    for node in graph.nodes:
        count = _COUNT.get(getattr(node.target, "overloadpacket", None))
        if count is not None and isinstance(node.meta.get("val"), Tensor):
            found.append(LayerCost(op_name(node), where(node), count(node) // batch, node.name))
    return found


def total_macs(graph: fx.Graph, batch: int) -> int:
    """Multiply-accumulates of a whole graph for one row."""
    return sum(layer.macs for layer in layer_costs(graph, batch))
