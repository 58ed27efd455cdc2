"""Operators that only rearrange axes: time is carried through splits, merges and permutations."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import fx

from edgeco.continual.builder import aten
from edgeco.continual.context import Context
from edgeco.continual.registry import rule
from edgeco.continual.rules.pointwise import with_summaries
from edgeco.continual.value import Kind, Value
from edgeco.graph.layout import Factor, Layout, plain
from edgeco.graph.timeline import Timeline


@rule(aten.view, aten.reshape, aten._unsafe_view, aten.flatten, aten.unflatten)
def reshape(ctx: Context) -> Value | list[Value]:
    """Reshape: axes are split and merged by their factors."""
    value = ctx.values[0]
    if value.kind is Kind.WINDOW:
        return ctx.window()
    layout = value.layout.reshape(ctx.shape)
    if layout is None:
        return _cut_into_groups(ctx, value) or ctx.window("a reshape that cuts the time axis")
    return viewed(ctx, value, layout)


def _cut_into_groups(ctx: Context, value: Value) -> Value | None:
    """(…, T, …) as (…, T / k, k, …): one element of k for every k of the stream."""
    axis = value.layout.pure_time
    if axis is None:
        return None
    length = value.layout.shape[axis]
    for size in (k for k in range(2, length + 1) if length % k == 0):
        split = value.layout.with_axis(axis, (Factor(length // size, "time"), Factor(size)))
        layout = split.reshape(ctx.shape)
        if layout is not None:
            node, time = grouped(ctx, value, size, size)
            return viewed(ctx, Value(Kind.STREAM, split, node, time), layout)
    return None


def grouped(ctx: Context, value: Value, size: int, stride: int) -> tuple[fx.Node, Timeline]:
    """Groups of `size` elements that begin `stride` apart: in the clip's own axes, the group where time stands."""
    ready = ctx.ready(value)
    delay = ready.time.delay + ready.time.rate * (size - 1)
    time = ctx.strided(ready.time.tapped(size, (0, 0), delay, stride=stride))
    ctx.note(time, f"groups of {size} elements" + (f", a group every {stride}" if stride > 1 else ""))
    return ctx.builder.window(ready, delay, size), time


@rule(aten.unfold)
def unfold(ctx: Context) -> Value | list[Value]:
    """Overlapping parts of an axis, along a new last one."""
    value = ctx.values[0]
    axis = ctx.args["dimension"] % value.layout.rank
    size, stride = ctx.args["size"], ctx.args["step"]
    if value.kind is Kind.WINDOW or (axis == value.layout.time and value.layout.pure_time is None):
        return ctx.window()
    layout = value.layout.with_size(axis, ctx.shape[axis]).insert(value.layout.rank, plain([size]).axes[0])
    if axis != value.layout.time:
        return _unfolded_frame(ctx, value, axis, layout)
    node, time = grouped(ctx, value, size, stride)
    order = [i for i in range(value.layout.rank) if i != axis]
    return ctx.stream(ctx.builder.call(aten.permute.default, node, [*order, axis]), layout, time)


def viewed(ctx: Context, value: Value, layout: Layout) -> Value:
    """The same numbers in other axes."""
    node = ctx.builder.node(value)
    if layout.step.shape != value.layout.step.shape:
        node = ctx.builder.call(aten.reshape.default, node, layout.step.sizes())
    return _still_inside(value, ctx.stream(node, layout, value.time))


def _still_inside(value: Value, made: Value) -> Value:
    """The same numbers in other axes, explicit padding and what it surrounds told apart as before."""
    axis = made.layout.pure_time
    if value.inside is None or axis is None:
        return made
    inner, front, back, number = value.inside
    layout = made.layout.with_axis(axis, (Factor(inner.time.length, "time"),))
    return replace(made, inside=(Value(Kind.STREAM, layout, made.node, inner.timeline), front, back, number))


def _unfolded_frame(ctx: Context, value: Value, axis: int, layout: Layout) -> Value:
    """By slices, one for each place within a part."""
    if axis == value.layout.batch:
        ctx.refuse("it runs along the batch", "Each row is a stream of its own: use another axis.")
    ready, at = ctx.ready(value), value.layout.step_axis(axis)
    stride, reach = ctx.args["step"], ctx.args["step"] * (ctx.shape[axis] - 1) + 1
    parts = [
        ctx.builder.call(aten.slice.Tensor, ctx.builder.node(ready), at, i, i + reach, stride)
        for i in range(ctx.args["size"])
    ]
    return ctx.stream(ctx.builder.call(aten.stack.default, parts, -1), layout, ready.time)


@rule(aten.permute, aten.transpose, aten.t, aten.movedim, aten.swapaxes, aten.swapdims)
def permute(ctx: Context) -> Value | list[Value]:
    """Axes in another order."""
    value = ctx.values[0]
    if value.kind is Kind.WINDOW:
        return ctx.window()
    rank = value.layout.rank
    if "source" in ctx.args:  # sizes that differ tell where each axis went
        moved = torch.empty(*range(2, rank + 2), device="meta").movedim(ctx.args["source"], ctx.args["destination"])
        order = [size - 2 for size in moved.shape]
    elif "dims" in ctx.args:
        order = [d % rank for d in ctx.args["dims"]]
    else:
        a, b = (ctx.args.get(f"dim{i}", ctx.args.get(f"axis{i}", i)) % rank for i in (0, 1))
        order = list(range(rank))
        order[a], order[b] = order[b], order[a]
    steps = [s for s in (value.layout.step_axis(d) for d in order) if s is not None]
    node = ctx.builder.node(value)
    if steps != sorted(steps):
        node = ctx.builder.call(aten.permute.default, node, steps)
    return _still_inside(value, ctx.stream(node, value.layout.permute(order), value.time))


@rule(aten.squeeze)
def squeeze(ctx: Context) -> Value | list[Value]:
    """Axes of one element dropped."""
    value = ctx.values[0]
    if value.kind is Kind.WINDOW:
        return ctx.window()
    given = ctx.args.get("dim")
    rank = value.layout.rank
    dims = range(rank) if given is None else given if isinstance(given, (list, tuple)) else [given]
    gone = [d % rank for d in dims if value.layout.shape[d % rank] == 1]
    return viewed(ctx, value, value.layout.drop(gone) if gone else value.layout)


@rule(aten.unsqueeze)
def unsqueeze(ctx: Context) -> Value | list[Value]:
    """An axis of one element put in."""
    value = ctx.values[0]
    if value.kind is Kind.WINDOW:
        return ctx.window()
    return viewed(ctx, value, value.layout.insert(ctx.args["dim"] % len(ctx.shape)))


@rule(aten.expand, aten.expand_as)
def expand(ctx: Context) -> Value | list[Value]:
    """Axes of one element repeated; a summary of the clip repeated over time is causal."""
    value = ctx.values[0]
    if value.kind is Kind.WINDOW:
        return ctx.window()
    new = len(ctx.shape) - value.layout.rank
    layout, time = value.layout, value.time
    for _ in range(new):
        layout = layout.insert(0)
    for i, size in enumerate(ctx.shape):
        if layout.shape[i] == size:
            continue
        if i == layout.time:
            longer = lengthened(ctx, value, size)
            if isinstance(longer, list) or longer.kind is Kind.WINDOW:
                return longer
            layout, time = layout.with_axis(i, (Factor(size, "time"),)), longer.time
        else:
            layout = layout.with_size(i, size)
    time = _long(time, ctx.shape[layout.time]) if layout.time is not None and layout.pure_time is not None else time
    node = ctx.builder.call(aten.expand.default, ctx.builder.node(value), layout.step.sizes())
    return ctx.stream(node, layout, time)


def lengthened(ctx: Context, value: Value, size: int) -> Value | list[Value]:
    """A summary of the clip repeated for each of its elements: each sees the window that ends at it."""
    if ctx.exact is not None and size > 1:
        return ctx.window("each element meets the summary of its own clip")
    assert value.layout.time is not None
    layout = value.layout.with_axis(value.layout.time, (Factor(size, "time"),))
    like = Value(Kind.STREAM, layout, timeline=_long(value.time, size))
    time = with_summaries(ctx, [value, like])[0].time
    return ctx.stream(ctx.builder.node(value), layout, _long(time, size))


def _long(time: Timeline, length: int) -> Timeline:
    return replace(time, length=length)


@rule(aten.repeat)
def repeat(ctx: Context) -> Value | list[Value]:
    """Axes tiled; of time a summary of the clip, one element, for as many as there are; of the batch none."""
    value = ctx.values[0]
    if value.kind is Kind.WINDOW:
        return ctx.window()
    times: list[int] = ctx.args["repeats"]
    layout = value.layout
    for _ in range(len(times) - layout.rank):
        layout = layout.insert(0)
    if layout.batch is not None and times[layout.batch] != 1:
        ctx.refuse("it repeats the batch", "Each row is a stream of its own: keep axis 0 as it is.")
    lifted = viewed(ctx, value, layout)
    if layout.time is not None and times[layout.time] != 1:
        if layout.shape[layout.time] != 1:
            ctx.refuse("it repeats time as a whole", "Repeat a summary of the clip, or other axes.")
        longer = lengthened(ctx, lifted, times[layout.time])
        if isinstance(longer, list) or longer.kind is Kind.WINDOW:
            return longer
        lifted, layout = longer, longer.layout
        times = [1 if i == layout.time else n for i, n in enumerate(times)]
    steps = [n for i, n in enumerate(times) if i != layout.pure_time]
    for i, n in enumerate(times):
        layout = layout.with_size(i, layout.shape[i] * n) if n != 1 else layout
    node = ctx.builder.call(aten.repeat.default, ctx.builder.node(ctx.ready(lifted)), steps)
    return ctx.stream(node, layout, ctx.ready(lifted).time)
