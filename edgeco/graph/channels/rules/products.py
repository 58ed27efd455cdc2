"""Linear layers and products of matrices: an axis summed over is one in both."""

from __future__ import annotations

from dataclasses import replace

from edgeco.graph.channels.axes import Axis, Value, still
from edgeco.graph.channels.call import Call, aten
from edgeco.graph.channels.rules.pointwise import broadcast
from edgeco.graph.channels.rules.registry import channel_rule


@channel_rule(aten.linear)
def linear(call: Call) -> Value:
    """x W^T + b over the last axis."""
    x, weight, bias = call.args["input"], call.args["weight"], call.args["bias"]
    call.contract(x[-1], weight[1])
    out = replace(weight[0], sources=frozenset())
    if bias is not None:
        call.unite([out, bias[0]])
    call.produce(weight[0].sources | (bias[0].sources if bias is not None else frozenset()))
    return (*(axis.loud() if bias is not None else axis for axis in x[:-1]), out)


@channel_rule(aten.matmul, aten.mm, aten.bmm, aten.mv, aten.dot)
def matmul(call: Call) -> Value:
    """A product of matrices, batched by broadcasting."""
    left, right = call.values
    return _product(call, left, right)


def _product(call: Call, left: Value, right: Value) -> Value:
    call.contract(left[-1], right[-2] if len(right) > 1 else right[-1])
    batch = _batches(call, left[:-2], right[:-2])
    rows = left[-2:-1] if len(left) > 1 else ()
    columns = right[-1:] if len(right) > 1 else ()
    if columns and right[-1].sources:
        call.produce(right[-1].sources)
    return (*batch, *rows, *columns)


def _batches(call: Call, left: Value, right: Value) -> Value:
    """Axes that both sides share: silent where either is."""
    made = broadcast(call, [left, right]) if left or right else ()
    found = []
    for i, axis in enumerate(made, start=-len(made)):
        given = [side[i] for side in (left, right) if len(side) >= -i and side[i].size == axis.size]
        found.append(Axis(axis.labels, axis.fixed or any(a.silent for a in given), axis.sources))
    return tuple(found)


@channel_rule(aten.addmm, aten.baddbmm)
def added(call: Call) -> Value:
    """A product of matrices and a bias."""
    bias, left, right = call.values
    made = _product(call, left, right)
    return broadcast(call, [made, bias])


@channel_rule(aten.einsum)
def einsum(call: Call) -> Value | list[Value | None]:
    """Equal letters are one axis; what the result lacks is summed over."""
    given, arrow, result = str(call.args["equation"]).replace(" ", "").partition("->")
    words = given.split(",")
    if "." in given or any(len(set(word)) != len(word) for word in words):
        return call.unknown()
    if not arrow:
        result = "".join(sorted(c for c in set(given) - {","} if given.count(c) == 1))
    found: dict[str, list[Axis]] = {}
    for word, value in zip(words, call.values, strict=True):
        for letter, axis in zip(word, value, strict=True):
            found.setdefault(letter, []).append(axis)
    axes = {letter: _lettered(call, letter, axes, letter in result) for letter, axes in found.items()}
    for letter, axis in axes.items():
        if letter in result and axis.sources:
            call.produce(axis.sources)
    return tuple(axes[letter] for letter in result)


def _lettered(call: Call, letter: str, axes: list[Axis], kept: bool) -> Axis:
    if not kept and len(axes) == 2:
        call.contract(*axes)
        return axes[0]
    axis = call.unite(axes)
    wide = [a for a in axes if a.size == axis.size]
    silent = axis.fixed or any(a.silent for a in wide)
    if not kept and not silent:
        call.pin(axes, "a sum over it also counts what is not zero where a channel is removed")
    return Axis(axis.labels, silent, axis.sources)


@channel_rule(aten.outer)
def outer(call: Call) -> Value:
    """All products of two vectors."""
    left, right = call.values
    return (left[0] if left else still(1), right[0] if right else still(1))
