"""Operators that treat every element alone: indices that meet are one."""

from __future__ import annotations

from edgeco.graph.channels.axes import Axis, Value, still
from edgeco.graph.channels.call import Call, aten
from edgeco.graph.channels.rules.registry import channel_rule, existing


def broadcast(call: Call, values: list[Value]) -> Value:
    """Values against each other, axes counted from the last."""
    rank = max(len(value) for value in values)
    full = [tuple(still(1) for _ in range(rank - len(value))) + value for value in values]
    return tuple(call.unite([value[i] for value in full]) for i in range(rank))


def pointwise(call: Call) -> Value | list[Value | None]:
    """Any function of single elements: silent if it makes zero of zeros."""
    if not call.values:
        return call.fixed()
    made = broadcast(call, call.values)
    return made if call.zero_of_zeros() else tuple(axis.loud() for axis in made)


@channel_rule(aten.mul)
def product(call: Call) -> Value:
    """A product is silent where one factor is."""
    values = call.values
    made = broadcast(call, values)
    return tuple(_any_silent(axis, [v[i] for v in values if len(v) >= -i]) for i, axis in _from_last(made))


@channel_rule(aten.div)
def quotient(call: Call) -> Value:
    """A quotient is silent where what is divided is."""
    values = call.values
    made = broadcast(call, values)
    return tuple(_any_silent(axis, [v[i] for v in values[:1] if len(v) >= -i]) for i, axis in _from_last(made))


def _from_last(value: Value) -> list[tuple[int, Axis]]:
    return [(i - len(value), axis) for i, axis in enumerate(value)]


def _any_silent(axis: Axis, given: list[Axis]) -> Axis:
    silent = axis.fixed or any(a.silent and a.size == axis.size for a in given)
    return Axis(axis.labels, silent, axis.sources)


@channel_rule(
    *existing(
        (
            *("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "native_dropout", "contiguous"),
            *("clone", "detach", "detach_", "alias", "lift_fresh_copy", "_to_copy", "to", "type_as", "positive"),
        )
    )
)
def same(call: Call) -> Value | list[Value | None]:
    """The same numbers."""
    return call.values[0] if not isinstance(call.node.meta["val"], (tuple, list)) else [call.values[0], call.values[0]]


@channel_rule(aten.copy)
def copy(call: Call) -> Value:
    """The second value in the shape of the first."""
    target, source = call.args["self"], call.args["src"]
    full = tuple(still(1) for _ in range(len(target) - len(source))) + source
    return tuple(b if b.size == a.size else a.loud() for a, b in zip(target, full, strict=True))
