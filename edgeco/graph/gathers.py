"""What loops write down, in one spelling: writes into a prepared tensor and growing tensors become a stack or cat."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import fx

from edgeco.graph.keys import is_like
from edgeco.graph.trace import ClipGraph, shape_of

_aten = torch.ops.aten


def copied(clip: ClipGraph) -> tuple[ClipGraph, dict[fx.Node, fx.Node]]:
    """A clip graph over the same tensors whose nodes may be changed, and each node's copy."""
    graph = fx.Graph()
    nodes: dict[fx.Node, fx.Node] = {}
    for node in clip.graph.nodes:
        nodes[node] = graph.node_copy(node, lambda n: nodes[n])
    outputs = {name: nodes[node] for name, node in clip.outputs.items()}
    return replace(clip, graph=graph, outputs=outputs, tensors=dict(clip.tensors)), nodes


def gathered(clip: ClipGraph) -> ClipGraph:
    """A copy of a clip graph in which what is gathered position by position is gathered at once."""
    made, _ = copied(clip)
    for node in reversed(list(made.graph.nodes)):  # from the last write on, each of which holds those before
        items = _written(node)
        if items is not None:
            with made.graph.inserting_before(node):
                whole = made.graph.call_function(_aten.stack.default, (items, node.args[2]))
            _take_place(made, node, whole)
        elif node.target is _aten.cat.default:
            node.args = (_grown(node), *node.args[1:])
        elif is_like(node):
            with made.graph.inserting_before(node):
                _take_place(made, node, _filled(made.graph, node, clip.batch))
    made.graph.eliminate_dead_code()
    return made


def _take_place(clip: ClipGraph, node: fx.Node, other: fx.Node) -> None:
    other.meta = dict(node.meta)
    node.replace_all_uses_with(other)
    clip.outputs = {name: other if n is node else n for name, n in clip.outputs.items()}


def _written(node: fx.Node) -> list[fx.Node] | None:
    """What a chain of writes puts at each position of an axis, if it fills all of it."""
    if node.target is not _aten.select_scatter.default:
        return None
    shape = shape_of(node)
    axis: Any = node.args[2]
    assert shape is not None
    found: dict[int, fx.Node] = {}
    link: Any = node
    while link.target is _aten.select_scatter.default and link.args[2] == axis:
        found.setdefault(link.args[3] % shape[axis], _assigned(link.args[1]))
        link = link.args[0]
    if len(found) < shape[axis]:
        return None
    items = [found[i] for i in range(shape[axis])]
    same = {(shape_of(item), item.meta["val"].dtype) for item in items}
    return items if len(same) == 1 and items[0].meta["val"].dtype == node.meta["val"].dtype else None


def _filled(graph: fx.Graph, node: fx.Node, batch: int) -> fx.Node:
    """A constant made like another value, without that value; its batch has size 1 and broadcasts."""
    name, value = str(node.target), node.meta["val"]
    number = float("one" in name) if "full" not in name else node.kwargs.get("fill_value", node.args[-1])
    shape = [1 if size and size % batch == 0 else size for size in value.shape]
    return graph.call_function(_aten.full.default, (shape, number), {"dtype": value.dtype})


def _assigned(node: Any) -> Any:
    """What an assignment assigns, where it is of the shape and type of what it is assigned to."""
    if node.target is not _aten.copy.default:
        return node
    into, what = node.args[:2]
    same = shape_of(into) == shape_of(what) and into.meta["val"].dtype == what.meta["val"].dtype
    return _assigned(what) if same else node


def _grown(node: fx.Node) -> list[fx.Node]:
    """The parts of a concatenation, those of the concatenations it alone takes included."""
    parts: list[fx.Node] = []
    for part in node.args[0]:  # type: ignore[union-attr]
        inner = isinstance(part, fx.Node) and part.target is _aten.cat.default and len(part.users) == 1
        parts += _grown(part) if inner and part.args[1:] == node.args[1:] else [part]  # type: ignore[arg-type,list-item,union-attr]
    return parts
