"""Operators that treat every frame alone: time lies in the batch axis, or the value has no time axis."""

from __future__ import annotations

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


@rule(
    aten.upsample_nearest1d,
    aten.upsample_nearest2d,
    aten.upsample_linear1d,
    aten.upsample_bilinear2d,
    aten.upsample_bicubic2d,
    aten._upsample_nearest_exact1d,
    aten._upsample_nearest_exact2d,
    aten._upsample_bilinear2d_aa,
    aten.upsample_nearest3d,
    aten.upsample_trilinear3d,
    aten.pixel_shuffle,
    aten.pixel_unshuffle,
    aten.channel_shuffle,
    aten.conv_transpose1d,
    aten.conv_transpose2d,
    aten.conv_transpose3d,
    aten.reflection_pad1d,
    aten.reflection_pad2d,
    aten.replication_pad1d,
    aten.replication_pad2d,
)
def only_framewise(ctx: Context) -> Value | list[Value]:
    """Resizing and shuffling within a frame."""
    value = ctx.values[0]
    if value.kind is Kind.WINDOW:
        return ctx.window()
    if not in_batch(value) or any(v.kind is not Kind.CONSTANT for v in ctx.values[1:]):
        ctx.refuse(
            "it runs over an axis that is time",
            "Merge time into the batch first (x.transpose(1, 2).flatten(0, 1)), so that it works on single frames.",
        )
    return framewise(ctx, value)
