"""Counting elements: a table that grows evenly along time, as a stream that goes on growing."""

from __future__ import annotations

from edgeco.continual.builder import aten
from edgeco.continual.context import Context
from edgeco.continual.value import Value


def positions(ctx: Context, table: Value, axis: int, like: Value) -> Value | None:
    """A table that grows evenly along time, as a stream: beside a running value it counts the recording's elements.

    Args:
        table: a constant whose axis `axis` lies along time.
        like: the running value, whose elements are counted.

    Returns:
        None if the table is no such thing.
    """
    tensor = table.tensor
    if tensor is None or tensor.shape[axis] < 2 or like.layout.time is None:
        return None
    line = tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1).double()
    if not bool((line == line[:, :1]).all()):
        return None
    first, step = float(line[0, 0]), float(line[1, 0] - line[0, 0])
    if not bool(((line[:, 0].diff() - step).abs() <= 1e-6 * abs(step)).all()):
        return None
    time, builder = like.time, ctx.builder
    layout = like.layout
    for i in range(layout.rank):
        layout = layout if i in (layout.time, layout.batch) else layout.with_axis(i, ())
    kept = builder.carried(layout.step, time, 0.0)
    one = ctx.stream(kept, layout, time)
    before = builder.restored(kept, one)
    count = builder.call(aten.add.Tensor, before, 1.0)
    builder.carry(kept, builder.stored(ctx.stream(count, layout, time), flat=False))
    skipped = (time.starts_at - time.delay) // time.rate  # elements before the first that is defined
    node = count if step == 1.0 else builder.call(aten.mul.Tensor, count, step)
    shift = first + step * (skipped - 1)
    node = node if shift == 0.0 else builder.call(aten.add.Tensor, node, shift)
    ctx.note(time, "elements counted from the start of the recording on")
    return ctx.stream(node, layout, time)
