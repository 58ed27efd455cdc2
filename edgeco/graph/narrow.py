"""Only what is used: where one element of attention's result is taken, one query is asked.

``encoder(x)[:, -1]`` computes every token of the last layer and throws all but one away. What
stands between attention and that choice (norms, linear layers, residuals, reshapes) works token by token, and attention
query by query, so that the choice may be made before them all: the same numbers, for one token. A stream then needs no
more than the newest query against the keys and values of the past.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgeco.graph.trace import ClipGraph, shape_of

aten = torch.ops.aten

_SAME = (aten.dropout, aten.clone, aten.alias, aten.contiguous, aten.detach, aten._to_copy)
_LAST_AXES = (aten.linear, aten.layer_norm, aten.rms_norm)
_SIZED = (aten.view, aten.reshape, aten._unsafe_view)
_VIEWS = (*_SIZED, aten.flatten, aten.unsqueeze)


@dataclass(frozen=True)
class Choice:
    """One index of one factor of an axis: the axis has ``outer * size * inner`` places."""

    axis: int
    outer: int
    size: int
    inner: int
    index: int

    @property
    def pure(self) -> bool:
        return self.outer == self.inner == 1


def narrow(clip: ClipGraph) -> int:
    """Move choices of one element up to the queries of attention, in place; returns how many operators that narrows."""
    for node in list(clip.graph.nodes):
        if _packet(node) is aten.scaled_dot_product_attention:
            _set_apart(clip, node)
    chosen: dict[fx.Node, Choice] = {}
    for node in reversed(list(clip.graph.nodes)):
        choice = _agreed(node, chosen)
        if choice is not None and _operands(node, choice) is not None:
            chosen[node] = choice
    kept = _reaching_attention(clip, chosen)
    operands = {node: _operands(node, choice) or {} for node, choice in kept.items()}  # before any shape changes
    for node in list(clip.graph.nodes):
        if node in kept:
            cut = {operand: choice for operand, choice in operands[node].items() if operand not in kept}
            _apply(clip, node, kept[node], cut)
        elif node.op == "call_function" and any(n in kept for n in node.all_input_nodes):
            _pick(node)
    clip.graph.eliminate_dead_code()
    return len(kept)


def _set_apart(clip: ClipGraph, node: fx.Node) -> None:
    """Queries that are the keys or values as well get a name of their own: one of them may be chosen, not of those."""
    query, *others = node.args
    if not isinstance(query, fx.Node) or (query not in others and query not in node.kwargs.values()):
        return
    with clip.graph.inserting_before(node):
        twin = clip.graph.call_function(aten.alias.default, (query,))
    twin.meta.update({k: v for k, v in node.meta.items() if k in ("stack_trace", "nn_module_stack")})
    twin.meta["val"] = query.meta["val"]
    node.args = (twin, *others)


def _packet(node: fx.Node) -> Any:
    return getattr(node.target, "overloadpacket", None)


def _agreed(node: fx.Node, chosen: dict[fx.Node, Choice]) -> Choice | None:
    """The one choice that every user makes of this value."""
    shape = shape_of(node)
    if node.op != "call_function" or shape is None or not node.users:
        return None
    found = {_made_by(user, node, shape, chosen) for user in node.users}
    return found.pop() if len(found) == 1 else None


def _made_by(user: fx.Node, node: fx.Node, shape: tuple[int, ...], chosen: dict[fx.Node, Choice]) -> Choice | None:
    if user.op != "call_function" or not user.args:
        return None
    if _packet(user) is aten.select and user.args[0] is node:
        axis, index = int(user.args[1]) % len(shape), int(user.args[2])  # type: ignore[arg-type]
        return Choice(axis, 1, shape[axis], 1, index % shape[axis])
    if _packet(user) is aten.slice and user.args[0] is node and len(user.args) > 2:
        axis = int(user.args[1]) % len(shape)  # type: ignore[arg-type]
        made, start = shape_of(user), user.args[2]
        if made is not None and made[axis] == 1 and isinstance(start, int):
            return Choice(axis, 1, shape[axis], 1, start % shape[axis] if start < 0 else start)
    if user in chosen:
        return (_operands(user, chosen[user]) or {}).get(node)
    return None


def _operands(node: fx.Node, choice: Choice) -> dict[fx.Node, Choice] | None:
    """What a choice from the result chooses from the operands it is made of (none of the others); None if unknown."""
    packet, shape = _packet(node), shape_of(node)
    assert shape is not None
    first = node.args[0] if node.args else None
    source = shape_of(first) if isinstance(first, fx.Node) else None
    if torch.Tag.pointwise in getattr(node.target, "tags", ()) or packet in _SAME:
        return _broadcast(node, choice, len(shape))
    if not isinstance(first, fx.Node) or source is None:
        return None
    axis: int | None = None
    if packet in _VIEWS:
        return _seen(first, source, shape, choice)
    if packet in _LAST_AXES:
        normed = len(node.args[1]) if packet is not aten.linear else 1  # type: ignore[arg-type]
        axis = choice.axis if choice.axis < len(shape) - normed else None
    elif packet is aten.transpose:
        a, b = (int(d) % len(shape) for d in node.args[1:3])  # type: ignore[arg-type]
        axis = {a: b, b: a}.get(choice.axis, choice.axis)
    elif packet is aten.permute:
        axis = int(node.args[1][choice.axis]) % len(shape)  # type: ignore[index, arg-type]
    elif packet is aten.scaled_dot_product_attention:
        return _query(node, first, shape, choice)
    return None if axis is None else {first: _on(choice, axis)}


def _on(choice: Choice, axis: int) -> Choice:
    return Choice(axis, choice.outer, choice.size, choice.inner, choice.index)


def _broadcast(node: fx.Node, choice: Choice, rank: int) -> dict[fx.Node, Choice] | None:
    found: dict[fx.Node, Choice] = {}
    for operand in node.all_input_nodes:
        shape = shape_of(operand)
        if shape is None:
            return None
        axis = choice.axis - rank + len(shape)
        if axis < 0 or shape[axis] == 1:
            continue
        if shape[axis] != choice.outer * choice.size * choice.inner:
            return None
        found[operand] = _on(choice, axis)
    return found


def _seen(
    source: fx.Node, before: tuple[int, ...], after: tuple[int, ...], choice: Choice
) -> dict[fx.Node, Choice] | None:
    """A factor keeps its size and its stride through a reshape."""
    stride = math.prod(after[choice.axis + 1 :]) * choice.inner
    for axis, size in enumerate(before):
        step = math.prod(before[axis + 1 :])
        inner, outer = stride // step if step else 0, step * size // max(stride * choice.size, 1)
        whole = stride % max(step, 1) == 0 and (step * size) % (stride * choice.size) == 0
        if step <= stride and whole and outer * choice.size * inner == size and inner and outer:
            return {source: Choice(axis, outer, choice.size, inner, choice.index)}
    return None


def _query(node: fx.Node, query: fx.Node, shape: tuple[int, ...], choice: Choice) -> dict[fx.Node, Choice] | None:
    """One query; under a causal mask the last, which sees all keys."""
    rank = len(shape)
    if choice.axis != rank - 2 or not choice.pure:
        return None
    if _is_causal(node) and choice.index != choice.size - 1:
        return None
    found = {query: choice}
    mask = _argument(node, 3, "attn_mask")
    if isinstance(mask, fx.Node):
        rows = shape_of(mask)
        if rows is None or len(rows) < 2 or mask is query:
            return None
        if rows[-2] == choice.size and choice.size > 1:
            found[mask] = Choice(len(rows) - 2, 1, choice.size, 1, choice.index)
    return found


def _argument(node: fx.Node, position: int, name: str) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name)


def _is_causal(node: fx.Node) -> bool:
    return bool(_argument(node, 5, "is_causal"))


def _reaching_attention(clip: ClipGraph, chosen: dict[fx.Node, Choice]) -> dict[fx.Node, Choice]:
    """The choices made of attention's result and below; the others would gain nothing."""
    kept: dict[fx.Node, Choice] = {}
    for node in clip.graph.nodes:
        if node not in chosen:
            continue
        operands = _operands(node, chosen[node]) or {}
        attends = _packet(node) is aten.scaled_dot_product_attention
        cut = [choice for operand, choice in operands.items() if operand not in kept]
        if all(choice.pure for choice in cut) and (attends or any(operand in kept for operand in operands)):
            kept[node] = chosen[node]
    return _closed(kept)


def _closed(kept: dict[fx.Node, Choice]) -> dict[fx.Node, Choice]:
    """Without those whose users take the whole: a user that is not narrowed must be the choice itself."""
    while True:
        broken = [
            node
            for node, choice in kept.items()
            if any(user not in kept and _made_by(user, node, shape_of(node) or (), {}) != choice for user in node.users)
        ]
        if not broken:
            return kept
        for node in broken:
            del kept[node]
        # What stood on them must now choose for itself, which only a whole axis allows.
        for node in list(kept):
            operands = _operands(node, kept[node]) or {}
            if any(operand not in kept and not choice.pure for operand, choice in operands.items()):
                del kept[node]


def _apply(clip: ClipGraph, node: fx.Node, choice: Choice, cut: dict[fx.Node, Choice]) -> None:
    """Narrow one operator: the operands that are still whole, then the sizes it names."""
    for operand, taken in cut.items():
        node.replace_input_with(operand, _slice(clip, node, operand, taken))
    shape = shape_of(node)
    assert shape is not None
    if _packet(node) in _SIZED:
        narrowed = [*shape]
        narrowed[choice.axis] //= choice.size
        node.args = (node.args[0], narrowed)
    if _is_causal(node):  # the last query sees every key
        node.args = (*node.args[:5], False, *node.args[6:]) if len(node.args) > 5 else node.args
        node.kwargs = {k: False if k == "is_causal" else v for k, v in node.kwargs.items()}
    _remake(clip, node, choice)


def _slice(clip: ClipGraph, before: fx.Node, operand: fx.Node, choice: Choice) -> fx.Node:
    with clip.graph.inserting_before(before):
        node = clip.graph.call_function(aten.slice.Tensor, (operand, choice.axis, choice.index, choice.index + 1))
    node.meta.update({k: v for k, v in before.meta.items() if k in ("stack_trace", "nn_module_stack")})
    node.meta["val"] = _value(node)
    return node


def _remake(clip: ClipGraph, node: fx.Node, choice: Choice) -> None:
    node.meta["val"] = _value(node)
    longer = clip.resized.get(node.name)
    if longer is not None:
        sizes = [*longer]
        sizes[choice.axis] = node.meta["val"].shape[choice.axis]
        clip.resized[node.name] = tuple(sizes)


def _value(node: fx.Node) -> Tensor:
    """The fake value of a node from those of its arguments."""
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
    made: Tensor = node.target(*args, **kwargs)  # type: ignore[operator]
    return made


def _pick(node: fx.Node) -> None:
    """The choice itself, of the one element that is left."""
    if _packet(node) is aten.select:
        node.args = (*node.args[:2], 0)
    elif _packet(node) is aten.slice:
        node.args = (*node.args[:2], 0, 1)
