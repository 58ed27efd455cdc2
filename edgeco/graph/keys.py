"""Keys that tell operators of a graph apart: what they are and where their arguments come from, as hashable tuples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from edgeco.graph.trace import ClipGraph

_aten = torch.ops.aten
_LIKE = (_aten.zeros_like, _aten.ones_like, _aten.full_like, _aten.new_zeros, _aten.new_ones, _aten.new_full)
OTHER = ("other",)
"""Stands for an argument that no iteration has in common with the others."""


def is_like(node: fx.Node) -> bool:
    """Whether a node makes a constant of which only the shape comes from its argument."""
    return getattr(node.target, "overloadpacket", None) in _LIKE


class Same:
    """Names for values that no iteration changes, so that what each iteration makes anew is known to be the same."""

    def __init__(self, clip: ClipGraph) -> None:
        self.names: dict[fx.Node, Any] = {}
        known: dict[Any, Any] = {}
        weights: dict[Any, list[fx.Node]] = defaultdict(list)
        for node in clip.graph.nodes:
            key: Any = node
            if node.name in clip.tensors:  # edits of the graph leave every iteration a copy of its own
                mine = clip.tensors[node.name]
                alike = weights[mine.dtype, mine.shape]
                key = next((n for n in alike if torch.equal(clip.tensors[n.name], mine)), node)
                alike.append(node)
            if node.op == "call_function" and torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
                args = node.args[1:] if is_like(node) else node.args
                shape = tuple(node.meta["val"].shape) if is_like(node) else ()
                key = (node.target, shape, frozen(args, self.names), frozen(node.kwargs, self.names))
            self.names[node] = known.setdefault(key, node)

    def __getitem__(self, node: fx.Node) -> Any:
        return self.names[node]


def frozen(value: Any, names: dict[fx.Node, Any]) -> Any:
    if isinstance(value, fx.Node):
        return names[value]
    if isinstance(value, (list, tuple)):
        return tuple(frozen(v, names) for v in value)
    if isinstance(value, dict):
        return tuple((k, frozen(v, names)) for k, v in sorted(value.items()))
    return (type(value), repr(value)) if isinstance(value, float) else value


def tokens(key: Any) -> Iterator[tuple[Any, ...]]:
    """All arguments within the loop that a key holds."""
    if isinstance(key, tuple):
        if len(key) == 3 and key[0] == "loop":
            yield key
        else:
            for part in key:
                yield from tokens(part)


def older(key: Any) -> Any:
    """A key in which everything within the loop is of one iteration before."""
    if isinstance(key, tuple):
        return ("loop", key[1], key[2] + 1) if key[:1] == ("loop",) and len(key) == 3 else tuple(map(older, key))
    return key


def flat(key: Any) -> set[Any]:
    """All parts of a key."""
    found = {key} if not isinstance(key, tuple) or key == OTHER else set()
    if isinstance(key, tuple) and key != OTHER:
        for part in key:
            found |= flat(part)
    return found


def equal(a: Any, b: Any) -> bool:
    return a is b if isinstance(a, fx.Node) or isinstance(b, fx.Node) else type(a) is type(b) and a == b
