"""Recycled positions: the row that is due is carried from step to step."""

from __future__ import annotations

from dataclasses import replace

import torch

from edgeco.continual import positions
from edgeco.continual.builder import aten
from edgeco.continual.context import Context
from edgeco.continual.registry import rule
from edgeco.continual.value import Kind, Value
from edgeco.graph.layout import Layout, plain
from edgeco.graph.timeline import worst

assert positions.recycle is not None, "importing it registers the operator"


@rule(torch.ops.edgeco.recycle)
def recycle(ctx: Context) -> Value | list[Value]:
    """The table's row by a carried one-hot vector: no index, so that every engine and every precision runs it alike."""
    value, table = ctx.args["x"], ctx.args["table"]
    if table.tensor is None:
        ctx.refuse("its table is computed from the input", "Give it a parameter or a buffer.")
    dim, size = ctx.args["dim"] % value.layout.rank, table.tensor.shape[0]
    if value.kind is Kind.WINDOW:
        return _in_window(ctx, dim)
    if value.layout.pure_time != dim or dim == value.layout.rank - 1:
        ctx.refuse("its axis is not that of time", "Give it the axis of time, with the width of the tokens last.")
    ready = ctx.ready(value)
    builder, batch = ctx.builder, value.layout.batch
    assert batch is not None, "every stream holds the batch"
    # A state is zero before its first step, so what is carried is the difference from the first row's one-hot vector.
    moved = builder.carried(Layout((value.layout.axes[batch], plain([size]).axes[0])), ready.time)
    first = builder.weight(torch.eye(1, size, dtype=builder.dtype), "first_row")
    here = builder.call(aten.add.Tensor, moved, first)
    last, others = (builder.call(aten.slice.Tensor, here, 1, *ends) for ends in ((size - 1, size), (0, size - 1)))
    builder.carry(moved, builder.call(aten.sub.Tensor, builder.call(aten.cat.default, [last, others], 1), first))
    row = builder.call(aten.matmul.default, here, builder.node(table))
    step = value.layout.step
    shape = [size if axis in (step.batch, step.rank - 1) else 1 for axis, size in enumerate(step.shape)]
    row = builder.call(aten.reshape.default, row, [-1 if axis == step.batch else n for axis, n in enumerate(shape)])
    time = replace(ready.time, exactness=worst(ready.time.exactness, "unpadded"))
    ctx.note(time, f"one of {size} positions a step, in turn")
    return ctx.stream(builder.call(aten.add.Tensor, ready.node, row), value.layout, time)


def _in_window(ctx: Context, dim: int) -> Value | list[Value]:
    """In a live window, which is a clip, positions are numbered from the window's first token on."""
    nodes, timeline = ctx.windows()
    shape = [1] * len(ctx.shape)
    shape[dim], shape[-1] = ctx.shape[dim], ctx.shape[-1]
    table = ctx.args["table"].tensor
    rows = table[(torch.arange(ctx.shape[dim]) + ctx.args["start"]) % table.shape[0]].reshape(shape)
    node = ctx.builder.call(aten.add.Tensor, nodes[id(ctx.args["x"])], ctx.builder.weight(rows, "positions"))
    return Value(Kind.WINDOW, Layout(ctx.args["x"].layout.axes), node, timeline)
