"""Operators along one axis that keep every size: as they are off the time axis, on a live window along it."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from edgeco.continual.builder import aten
from edgeco.continual.context import Context
from edgeco.continual.registry import rule
from edgeco.continual.rules.slicing import part
from edgeco.continual.value import Kind, Value
from edgeco.graph.layout import Layout


@rule(aten.softmax, aten.log_softmax, aten._softmax, aten._log_softmax)
def softmax(ctx: Context) -> Value | list[Value]:
    """Softmax along one axis; over time it is the window's."""
    return along(ctx, over_time="a softmax over time")


@rule(aten.index_select)
def selected(ctx: Context) -> Value | list[Value]:
    """Positions from a constant list: along time a slice, if they lie evenly apart."""
    value, index = ctx.args["self"], ctx.args["index"]
    axis = ctx.args["dim"] % value.layout.rank
    found = _evenly(value, axis, index)
    return along(ctx, over_time=None) if found is None else part(ctx, value, axis, *found)


def _evenly(value: Value, axis: int, index: Value) -> tuple[int, int, int] | None:
    """The slice (start, end, step) along time that a list of positions amounts to."""
    if value.kind is not Kind.STREAM or axis != value.layout.time or index.tensor is None or index.tensor.ndim != 1:
        return None
    places = index.tensor.tolist()
    step = places[1] - places[0] if len(places) > 1 else 1
    even = step > 0 and places == list(range(places[0], places[-1] + 1, step))
    return (places[0], places[-1] + 1, step) if even and places[0] >= 0 else None


@rule(aten.sort, aten.topk)
def ranked(ctx: Context) -> Value | list[Value]:
    """Elements by size; along time those of the clip, of which something is made of the whole."""
    return along(ctx, over_time="the order of a clip's elements by size")


@rule(aten.flip, aten.roll)
def ordered(ctx: Context) -> Value | list[Value]:
    """Operators whose meaning along time is another than along any other axis."""
    return along(ctx, over_time=None)


@rule(aten.index)
def picked(ctx: Context) -> Value | list[Value]:
    """x[:, [2, 0, 1]]: a constant list of positions along one axis that is neither time nor batch."""
    value = ctx.values[0]
    chosen = [(i, v) for i, v in enumerate(ctx.args["indices"]) if v is not None]
    if value.kind is Kind.WINDOW:
        return ctx.window()
    axis, index = chosen[0]
    if len(chosen) > 1 or index.tensor is None or index.tensor.ndim != 1 or index.tensor.dtype.is_floating_point:
        ctx.refuse(
            "it picks by an index that is not one constant list", "Index one axis by a list, or use torch.where."
        )
    found = _evenly(value, axis, index)
    if found is not None:
        return part(ctx, value, axis, *found)
    if axis in (value.layout.batch, value.layout.time):
        ctx.refuse(
            "it picks positions of time that do not lie evenly apart, or rows of the batch",
            "Slice time instead (x[:, :, ::4]), and keep the batch whole.",
        )
    ready = ctx.ready(value)
    positions = ctx.builder.weight(index.tensor, "index")
    node = ctx.builder.call(aten.index_select.default, ready.node, value.layout.step_axis(axis), positions)
    return ctx.stream(node, value.layout.with_size(axis, len(index.tensor)), ready.time)


@rule(aten.glu)
def gated(ctx: Context) -> Value | list[Value]:
    """Half of the channels gate the other half."""
    value = ctx.values[0]
    axis = ctx.args["dim"] % value.layout.rank
    if value.kind is Kind.STREAM and value.layout.time != axis:
        ready = ctx.ready(value)
        node = ctx.emit({"dim": value.layout.step_axis(axis)}, {id(value): ctx.builder.node(ready)})
        return ctx.stream(node, value.layout.with_size(axis, ctx.shape[axis]), ready.time)
    return ctx.window("gating along time")


def along(ctx: Context, over_time: str | None) -> Value | list[Value]:
    """Emit the operator with its axis renumbered; along time, a live window, or a refusal where that misleads."""
    value: Value = next(iter(ctx.args.values()))
    if value.kind is Kind.WINDOW:
        return ctx.window()
    name = "dims" if "dims" in ctx.args else "dim"
    given = ctx.args[name]
    axes = [d % value.layout.rank for d in (given if isinstance(given, (list, tuple)) else [given])]
    if value.layout.batch in axes:
        ctx.refuse("it runs along the batch", "Each row is a stream of its own: use another axis.")
    if value.layout.time in axes:
        if over_time is None and ctx.exact is None:
            ctx.refuse(
                "it runs along time, and a live stream has no such whole",
                "Use a convolution, a pool or a mean over time; or let exact=True recompute a live window.",
            )
        return ctx.window(over_time)
    if any(v.kind is not Kind.CONSTANT for v in ctx.values[1:]):
        return ctx.window("an index computed from the input")
    ready = ctx.ready(value)
    steps = [value.layout.step_axis(a) for a in axes]
    changes = {name: steps if isinstance(given, (list, tuple)) else steps[0]}
    node = ctx.emit(changes, {id(value): ctx.builder.node(ready)})
    result = ctx.node.meta["val"]
    if isinstance(result, (tuple, list)):
        return [
            ctx.stream(ctx.builder.call(operator.getitem, node, i), _sized(value, r.shape), ready.time)
            for i, r in enumerate(result)
        ]
    return ctx.stream(node, _sized(value, result.shape), ready.time)


def _sized(value: Value, shape: Sequence[int]) -> Layout:
    layout = value.layout
    for i, size in enumerate(shape):
        if layout.shape[i] != size:
            layout = layout.with_size(i, size)
    return layout
