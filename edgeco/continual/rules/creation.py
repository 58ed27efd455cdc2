"""Tensors made like another: their contents do not depend on the stream, only their shape does."""

from __future__ import annotations

import torch

from edgeco.continual.builder import aten
from edgeco.continual.context import Context, is_batch
from edgeco.continual.registry import rule
from edgeco.continual.value import Kind, Value
from edgeco.graph.layout import marked


@rule(
    aten.zeros_like, aten.ones_like, aten.full_like, aten.new_zeros, aten.new_ones, aten.new_full, aten.empty_like,
    aten.new_empty,
)  # fmt: skip
def like(ctx: Context) -> Value:
    """A constant of one number; its batch axis has size 1 and broadcasts."""
    shape = [1 if is_batch(n, ctx.builder.batch) else n for n in ctx.shape]
    name = str(ctx.node.target).split(".")[1]
    number = ctx.args.get("fill_value", 1.0 if "ones" in name else 0.0)
    made = torch.full(shape, number, dtype=ctx.node.meta["val"].dtype)
    value: Value = next(iter(ctx.args.values()))
    layout = marked(ctx.shape, ctx.builder.batch)
    return Value(
        Kind.CONSTANT, layout.with_axis(layout.batch, ()) if layout.batch is not None and value else layout, tensor=made
    )
