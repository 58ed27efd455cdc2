"""Convolutions: channels in along axis 1 of the kernel, channels out along axis 0 (transposed: the other way)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgeco.graph.channels.axes import Axis, Value, still
from edgeco.graph.channels.call import Call, aten
from edgeco.graph.channels.rules.registry import channel_rule


@channel_rule(aten.conv1d, aten.conv2d, aten.conv3d, aten.convolution)
def convolution(call: Call) -> Value | list[Value | None]:
    """A convolution, grouped or not; the core form may be a transposed one."""
    if call.args.get("transposed"):
        return transposed(call)
    kernel: Value = call.args["weight"]
    return _convolved(call, taken=kernel[1], given=kernel[0], kernel=kernel[2:], rows=kernel[0])


@channel_rule(aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d)
def transposed(call: Call) -> Value:
    """A transposed convolution, whose kernel has channels in along its first axis."""
    kernel: Value = call.args["weight"]
    if call.args["groups"] == 1:
        return _convolved(call, taken=kernel[0], given=kernel[1], kernel=kernel[2:], rows=kernel[1])
    groups = call.args["groups"]
    x, bias = _input(call), call.args["bias"]
    why = "a transposed convolution in groups has no rule for channels; one of a single group has"
    call.pin([x[1], *kernel[:2], *([bias[0]] if bias is not None else [])], why)
    call.pin(kernel[2:])
    return (x[0].loud(), still(kernel[1].size * groups), *_places(call, x))


def _input(call: Call) -> Value:
    value: Value = call.args.get("input") or call.values[0]
    return value if len(value) == len(call.shape) else (still(1), *value)


def _convolved(call: Call, taken: Axis, given: Axis, kernel: Value, rows: Axis) -> Value:
    x, bias, groups = _input(call), call.args["bias"], call.args["groups"]
    call.pin(kernel)
    out = replace(given, sources=frozenset())
    if bias is not None:
        call.unite([out, bias[0]])
    if groups == 1:
        call.contract(x[1], taken)
    else:
        _grouped(call, x[1], taken, out, groups)
    call.produce(rows.sources | (bias[0].sources if bias is not None else frozenset()))
    made = (x[0].loud(), out, *_places(call, x))
    return made if len(made) == len(call.shape) else made[1:]


def _places(call: Call, x: Value) -> list[Axis]:
    call.pin(x[2:])
    return [still(n) for n in call.shape[len(call.shape) - len(x) + 2 :]]


def _grouped(call: Call, x: Axis, taken: Axis, out: Axis, groups: int) -> None:
    """Single channels, or equal places of all groups, fall together."""
    each, made = x.size // groups, out.size // groups
    if each == 1:
        spread = np.repeat(x.labels, made, axis=0)
        call.labels.equate(spread, out.labels, f"its groups meet channels that stay, in {call.where}")
        return
    call.tie(x.labels, each)
    call.tie(out.labels, made)
    call.labels.equate(x.labels[:each], taken.labels, f"its groups meet channels that stay, in {call.where}")
