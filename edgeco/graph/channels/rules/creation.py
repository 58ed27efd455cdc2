"""Values made of nothing, in some shape: their axes are those they meet."""

from __future__ import annotations

from edgeco.graph.channels.axes import Axis, Value
from edgeco.graph.channels.call import Call, aten
from edgeco.graph.channels.labels import free
from edgeco.graph.channels.rules.registry import channel_rule, existing
from edgeco.graph.channels.rules.shape import small


@channel_rule(*existing(("full", "zeros", "ones", "new_zeros", "new_ones", "new_full", "empty", "new_empty")))
def made(call: Call) -> Value:
    """A constant: whether its size follows another's, the network tells when it runs."""
    zero = "zeros" in str(call.node.target) or call.args.get("fill_value", 1) == 0
    return tuple(Axis(call.labels.fresh(n) if small(n) else free(n), zero) for n in call.shape)


@channel_rule(*existing(("zeros_like", "ones_like", "full_like", "empty_like")))
def like(call: Call) -> Value:
    """A constant in the shape of another value."""
    value = call.values[0]
    zero = "zeros" in str(call.node.target) or call.args.get("fill_value", 1) == 0
    return tuple(Axis(axis.labels, axis.fixed or zero) for axis in value)


@channel_rule(*existing(("arange", "linspace", "scalar_tensor", "eye", "tril_indices", "triu_indices")))
def numbered(call: Call) -> Value | list[Value | None]:
    """Numbers in order."""
    return call.fixed()


@channel_rule(aten.tril, aten.triu)
def triangle(call: Call) -> Value:
    """Half of a matrix."""
    value = call.values[0]
    call.pin(value[-2:])
    return value
