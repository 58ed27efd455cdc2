"""Attention written by hand, softmax(Q K^T) V, becomes the one operator for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from edgeco.graph.trace import ClipGraph, shape_of

aten = torch.ops.aten

_SOFTMAX = (aten.softmax, aten._softmax)
_PASSED = (aten.dropout, aten.clone, aten.alias, aten.contiguous, aten.detach)
_FILLED = (aten.full_like, aten.full)
_PRODUCT = (aten.matmul, aten.bmm)
_HIDDEN = -1e4
"""A score filled with less than this is hidden: its exponential is zero."""


@dataclass
class _Scores:
    """What was found above a softmax: the product, its factor, and what is added to it afterwards."""

    product: fx.Node | None = None
    scale: float = 1.0
    added: list[fx.Node] = field(default_factory=list)
    filled: list[tuple[fx.Node, float, bool]] = field(default_factory=list)
    """Boolean masks, the number they put, and whether that is where they are false."""


def gather_attention(clip: ClipGraph) -> int:
    """Replace every softmax(Q K^T) V by ``scaled_dot_product_attention``, in place; returns how many there were."""
    found = 0
    for node in list(clip.graph.nodes):
        if _packet(node) in _SOFTMAX and _along_last(node):
            found += _replace(clip, node)
    clip.graph.eliminate_dead_code()
    return found


def _packet(node: Any) -> Any:
    return getattr(node.target, "overloadpacket", None) if isinstance(node, fx.Node) else None


def _along_last(node: fx.Node) -> bool:
    shape = shape_of(node)
    return shape is not None and int(node.args[1]) % len(shape) == len(shape) - 1  # type: ignore[arg-type]


def _replace(clip: ClipGraph, softmax: fx.Node) -> bool:
    result = _product_below(clip, softmax)
    scores = _scores_above(clip, softmax.args[0])
    if result is None or scores is None or scores.product is None:
        return False
    query, turned, value = scores.product.args[0], scores.product.args[1], result.args[1]
    ranks = {len(shape_of(n) or ()) for n in (query, turned, value, result) if isinstance(n, fx.Node)}
    if len(ranks) != 1 or not isinstance(turned, fx.Node) or ranks.pop() < 3:
        return False
    with clip.graph.inserting_before(result):
        key = _emit(clip, result, aten.transpose.int, turned, -2, -1)
        mask = _mask(clip, result, scores)
        made = _emit(
            clip, result, aten.scaled_dot_product_attention.default, query, key, value, mask, 0.0, False,
            scale=scores.scale,
        )  # fmt: skip
    if result.name in clip.resized:
        clip.resized[made.name] = clip.resized[result.name]
    result.replace_all_uses_with(made)
    clip.outputs.update({name: made for name, node in clip.outputs.items() if node is result})
    clip.graph.erase_node(result)
    return True


def _product_below(clip: ClipGraph, node: fx.Node) -> fx.Node | None:
    """The product of the weights with the values, if nothing else looks at the weights."""
    while len(node.users) == 1:
        user = _as_product(clip, next(iter(node.users)))
        if _packet(user) in _PRODUCT:
            return user if user.args[0] is node and user.args[1] is not node else None
        if _packet(user) not in _PASSED:
            return None
        node = user
    return None


def _scores_above(clip: ClipGraph, node: Any) -> _Scores | None:
    """Read upwards through factors and masks to the product of queries and keys."""
    found = _Scores()
    while isinstance(node, fx.Node) and _looked_at(node) == 1:
        node = _as_product(clip, node)
        packet, args = _packet(node), node.args
        if packet in _PRODUCT:
            found.product = node
            return found
        if packet in _PASSED:
            node = args[0]
        elif packet in (aten.mul, aten.div) and _number(clip, args[1]) is not None:
            number = _number(clip, args[1])
            assert number is not None
            found.scale *= number if packet is aten.mul else 1 / number
            node = args[0]
        elif packet is aten.add and not node.kwargs and found.scale == 1.0:
            mask = next((a for a in args if isinstance(a, fx.Node) and _constant(clip, a)), None)
            if mask is None:
                return None
            found.added.append(mask)
            node = args[1] if args[0] is mask else args[0]
        elif packet in (aten.masked_fill, aten.where) and found.scale == 1.0:
            hidden = _hidden_by(clip, node)
            if hidden is None:
                return None
            found.filled.append(hidden[1])
            node = hidden[0]
        else:
            return None
    return None


def _as_product(clip: ClipGraph, node: fx.Node) -> fx.Node:
    """An einsum that is a batched product of matrices as one, between permutations; anything else as it is."""
    if _packet(node) is not aten.einsum or len(node.args[1]) != 2:  # type: ignore[arg-type]
        return node
    sides, _, result = str(node.args[0]).replace(" ", "").partition("->")
    left, right = sides.split(",", 1)
    summed = sorted(set(left) & set(right) - set(result))
    lead = [letter for letter in result if letter in left and letter in right]
    rows, columns = ([c for c in result if c in own and c not in lead] for own in (left, right))
    if len(summed) != 1 or len(rows) != 1 or len(columns) != 1 or not lead or "." in result:
        return node
    if sorted(left) != sorted([*lead, *rows, *summed]) or sorted(right) != sorted([*lead, *summed, *columns]):
        return node
    a, b = node.all_input_nodes if len(node.all_input_nodes) == 2 else node.all_input_nodes * 2
    with clip.graph.inserting_before(node):
        first = _permuted(clip, node, a, left, [*lead, *rows, *summed])
        second = _permuted(clip, node, b, right, [*lead, *summed, *columns])
        product = _emit(clip, node, aten.matmul.default, first, second)
        made = _permuted(clip, node, product, "".join([*lead, *rows, *columns]), list(result))
    node.replace_all_uses_with(made)
    clip.outputs.update({name: made for name, output in clip.outputs.items() if output is node})
    clip.graph.erase_node(node)
    return product


def _permuted(clip: ClipGraph, like: fx.Node, node: fx.Node, letters: str, wanted: list[str]) -> fx.Node:
    order = [letters.index(letter) for letter in wanted]
    return node if order == sorted(order) else _emit(clip, like, aten.permute.default, node, order)


def _hidden_by(clip: ClipGraph, node: fx.Node) -> tuple[fx.Node, tuple[fx.Node, float, bool]] | None:
    """The scores that a masked_fill or where hides some of; its mask, its number, and whether it says what is kept."""
    if _packet(node) is aten.masked_fill:
        scores, mask, filler = node.args[:3]
        kept = False
    else:
        mask, first, second = node.args[:3]
        kept = _number(clip, first) is None
        scores, filler = (first, second) if kept else (second, first)
    number = _number(clip, filler)
    if number is None or number > _HIDDEN or not isinstance(scores, fx.Node):
        return None
    return (scores, (mask, number, kept)) if isinstance(mask, fx.Node) and _constant(clip, mask) else None


def _number(clip: ClipGraph, node: Any) -> float | None:
    """The one number that an argument consists of."""
    if isinstance(node, (int, float)):
        return float(node)
    if _packet(node) in _FILLED or _packet(node) is aten.scalar_tensor:
        number = node.args[0 if _packet(node) is aten.scalar_tensor else 1]
        return float(number) if isinstance(number, (int, float)) else None
    tensor = clip.tensors.get(node.name) if isinstance(node, fx.Node) else None
    return float(tensor) if tensor is not None and tensor.numel() == 1 else None


def _looked_at(node: fx.Node) -> int:
    """Users that take a value's numbers, and not only its shape."""
    return sum(_packet(user) not in _FILLED for user in node.users)


def _constant(clip: ClipGraph, node: fx.Node) -> bool:
    """Whether a value depends on no input of the network."""
    if node.op == "placeholder":
        return node.name in clip.tensors
    return all(_constant(clip, n) for n in node.all_input_nodes)


def _mask(clip: ClipGraph, before: fx.Node, scores: _Scores) -> fx.Node | None:
    """All masks as one that is added."""
    assert scores.product is not None
    dtype = scores.product.meta["val"].dtype
    parts = list(scores.added)
    for mask, number, kept in scores.filled:
        mask = _emit(clip, before, aten.logical_not.default, mask) if kept else mask
        zero = _emit(clip, before, aten.zeros_like.default, mask, dtype=dtype)
        parts.append(_emit(clip, before, aten.masked_fill.Scalar, zero, mask, number))
    total: fx.Node | None = None
    for part in parts:
        total = part if total is None else _emit(clip, before, aten.add.Tensor, total, part)
    return total


def _emit(clip: ClipGraph, like: fx.Node, op: Any, *args: Any, **kwargs: Any) -> fx.Node:
    node = clip.graph.call_function(op, args, kwargs)
    node.meta.update({k: v for k, v in like.meta.items() if k in ("stack_trace", "nn_module_stack")})
    given, named = fx.node.map_arg((args, kwargs), lambda n: n.meta["val"])
    made: Tensor = op(*given, **named)
    node.meta["val"] = made
    return node
