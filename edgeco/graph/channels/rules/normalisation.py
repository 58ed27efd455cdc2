"""Norms: over rows a channel is by itself; over channels, what is removed changes what is left."""

from __future__ import annotations

from dataclasses import replace

from torch import fx

from edgeco.graph.channels.axes import Axis, Value
from edgeco.graph.channels.call import Call, aten
from edgeco.graph.channels.rules.registry import channel_rule


def _affine(call: Call, axes: Value, weight: Value | None, bias: Value | None) -> list[Axis]:
    """Axes met by scale and shift: silent where both are there, for then zero is made of anything."""
    made = []
    for i, axis in enumerate(axes):
        given = [p[i] for p in (weight, bias) if p is not None]
        call.produce(frozenset().union(*(a.sources for a in given)), norm=True, first=_before(call))
        both = len(given) == 2 or (len(given) == 1 and bias is None)
        made.append(replace(call.unite([axis, *given]), silent=axis.fixed or both, sources=frozenset()))
    return made


def _before(call: Call) -> fx.Node:
    """The operator whose result is normed."""
    return call.node.all_input_nodes[0]


@channel_rule(
    aten.batch_norm,
    aten.cudnn_batch_norm,
    aten.native_batch_norm,
    aten._native_batch_norm_legit_no_training,
    aten.instance_norm,
)
def batch_norm(call: Call) -> Value | list[Value | None]:
    """Statistics, scale and shift of every channel by itself."""
    x: Value = call.args["input"]
    for name in ("running_mean", "running_var"):
        if call.args.get(name) is not None:
            call.unite([x[1], call.args[name][0]])
    (channel,) = _affine(call, x[1:2], call.args["weight"], call.args["bias"])
    made = (x[0].loud(), channel, *(axis.loud() for axis in x[2:]))
    if isinstance(call.node.meta["val"], (tuple, list)):
        rest = call.fixed()
        return [made, *rest[1:]]
    return made


@channel_rule(aten.layer_norm, aten.native_layer_norm, aten.rms_norm)
def layer_norm(call: Call) -> Value | list[Value | None]:
    """Mean and variance over the last axes: removing some of their indices is approximate."""
    x: Value = call.args["input"]
    over = len(call.args["normalized_shape"])
    for axis in x[-over:]:
        call.summarise(axis, "a norm takes mean and variance over it")
    bias = call.args.get("bias")
    if over == 1:
        normed = _affine(call, x[-1:], call.args["weight"], bias)
        normed = [a if call.args["weight"] is not None else b.loud() for a, b in zip(normed, x[-1:], strict=True)]
    else:
        given = [p for p in (call.args["weight"], bias) if p is not None]
        normed = [call.unite([axis, *(p[i] for p in given)]).loud() for i, axis in enumerate(x[-over:])]
    made = (*(axis.loud() for axis in x[:-over]), *normed)
    if isinstance(call.node.meta["val"], (tuple, list)):
        rest = call.fixed()
        return [made, *rest[1:]]
    return made


@channel_rule(aten.group_norm)
def group_norm(call: Call) -> Value:
    """Mean and variance over groups of channels: whole groups fall, exactly."""
    x, groups = call.args["input"], call.args["num_groups"]
    each = x[1].size // groups
    if groups == 1:
        call.summarise(x[1], "a norm takes mean and variance over it")
    elif each > 1 and not x[1].fixed:
        first = x[1].labels[::each].repeat(each, axis=0)
        call.labels.equate(first, x[1].labels, f"a norm takes mean and variance over groups of it: {call.where}")
    (channel,) = _affine(call, x[1:2], call.args["weight"], call.args["bias"])
    return (x[0].loud(), channel, *(axis.loud() for axis in x[2:]))
