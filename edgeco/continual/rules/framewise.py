"""Operators that treat every frame alone: time lies in the batch axis, or the value has no time axis."""

from __future__ import annotations

from typing import NoReturn

import torch

from edgeco.continual.builder import aten
from edgeco.continual.context import Context
from edgeco.continual.registry import rule
from edgeco.continual.value import Kind, Value
from edgeco.graph.layout import Layout, plain


def framewise(ctx: Context, value: Value) -> Value:
    """Emit the operator on the step value of its one stream; axis 0 is kept, the others are the result's."""
    value_ready = ctx.ready(value)
    assert value_ready.node is not None
    node = ctx.emit({}, {id(value): value_ready.node})
    layout = Layout((value.layout.axes[0], *plain(ctx.shape[1:]).axes))
    return ctx.stream(node, layout, value_ready.time)


def in_batch(value: Value) -> bool:
    """Whether time stands in axis 0 (or in none), so that an operator over the other axes never mixes it."""
    return value.layout.batch == 0 and value.layout.time in (None, 0) and value.layout.pure_time is None


@rule(aten.pixel_shuffle, aten.pixel_unshuffle)
def shuffled(ctx: Context) -> Value | list[Value]:
    """Channels spread over the frame or gathered from it: the last three axes, whatever stands before them."""
    value = ctx.values[0]
    if value.kind is Kind.STREAM and value.layout.pure_time is not None and value.layout.pure_time < len(ctx.shape) - 3:
        ready = ctx.ready(value)
        layout = value.layout
        for axis in range(len(ctx.shape) - 3, len(ctx.shape)):
            layout = layout.with_size(axis, ctx.shape[axis])
        return ctx.stream(ctx.emit({}, {id(value): ctx.builder.node(ready)}), layout, ready.time)
    return only_framewise(ctx)


@rule(aten.channel_shuffle)
def channel_shuffle(ctx: Context) -> Value | list[Value]:
    """Channels in another order, wherever time stands but among them."""
    value = ctx.values[0]
    if value.kind is Kind.WINDOW or value.layout.time == 1:
        return ctx.window()
    builder, ready = ctx.builder, ctx.ready(value)
    channels, groups = ctx.shape[1], ctx.args["groups"]
    order = torch.arange(channels).reshape(groups, -1).T.flatten()
    axis = value.layout.step_axis(1)
    node = builder.call(aten.index_select.default, builder.node(ready), axis, builder.weight(order, "order"))
    return ctx.stream(node, value.layout, ready.time)


@rule(
    aten.reflection_pad1d,
    aten.reflection_pad2d,
    aten.replication_pad1d,
    aten.replication_pad2d,
)
def only_framewise(ctx: Context) -> Value | list[Value]:
    """Padding within a frame, and shuffling where axes are merged."""
    value = ctx.values[0]
    if value.kind is Kind.WINDOW:
        return ctx.window()
    if not in_batch(value):
        refuse_time(ctx)
    return framewise(ctx, value)


def refuse_time(ctx: Context) -> NoReturn:
    """Refuse an operator that is framewise only."""
    ctx.refuse(
        "it runs over an axis that is time",
        "Merge time into the batch first (x.transpose(1, 2).flatten(0, 1)), so that it works on single frames.",
    )
