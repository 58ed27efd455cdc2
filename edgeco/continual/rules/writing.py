"""Writing into parts of a value, as in-place assignments become in a functional graph."""

from __future__ import annotations

import itertools

import torch

from edgeco.continual.builder import aten
from edgeco.continual.context import Context, constant, is_batch
from edgeco.continual.registry import rule
from edgeco.continual.rules.shape import viewed
from edgeco.continual.rules.slicing import along_time, bounds, cut, join, known
from edgeco.continual.value import Kind, Value


@rule(aten.slice_scatter)
def slice_scatter(ctx: Context) -> Value | list[Value]:
    """Writing into a slice: the parts around the slice, joined with what is written."""
    base, source = ctx.args["self"], ctx.args["src"]
    axis = ctx.args["dim"] % len(ctx.shape)
    size = ctx.shape[axis]
    start, end = bounds(ctx.args["start"], ctx.args["end"], size)
    if ctx.args["step"] != 1 or Kind.WINDOW in (base.kind, source.kind):
        return (
            ctx.window("writing into a slice")
            if source.kind is not Kind.CONSTANT or base.kind is not Kind.CONSTANT
            else base
        )
    if start >= end:
        return base  # type: ignore[no-any-return]
    if (start, end) == (0, size):
        return source  # type: ignore[no-any-return]
    if axis in (base.layout.time, source.layout.time):
        shifted = _part_by_part(ctx, base, source, axis, start, end)
        if shifted is not None:
            return shifted
    return join(ctx, [*_pieces(ctx, base, axis, 0, start), source, *_pieces(ctx, base, axis, end, size)], axis)


def _pieces(ctx: Context, value: Value, axis: int, start: int, end: int) -> list[Value]:
    """What lies there, by the parts it was joined from."""
    if end <= start:
        return []
    if value.joined is None or value.joined[0] != axis or not all(known(p) for p in value.joined[1]):
        return [cut(ctx, value, axis, start, end)]
    found, at = [], 0
    for part in value.joined[1]:
        size = part.layout.shape[axis]
        low, high = max(start - at, 0), min(end - at, size)
        if low < high:
            found += _pieces(ctx, part, axis, low, high)
        at += size
    return found


def _part_by_part(ctx: Context, base: Value, source: Value, axis: int, start: int, end: int) -> Value | None:
    """Writing along time where base and source were joined along another axis: each part is a shift of its own.

    None unless every part is one: untouched, all constant, or a stream that constants surround.
    """
    joined = [v.joined for v in (base, source) if v.joined is not None and v.joined[0] != axis]
    if not joined or not all(known(p) for _, parts in joined for p in parts):
        return None
    along = joined[0][0]
    edges = {0, base.layout.shape[along]}
    for other, parts in joined:
        if other != along:
            return None
        edges |= set(itertools.accumulate(p.layout.shape[along] for p in parts))
    pairs = [
        (cut(ctx, base, along, low, high), cut(ctx, source, along, low, high))
        for low, high in itertools.pairwise(sorted(edges))
    ]
    if ctx.exact == "clip" or not all(_simple(b, s, axis, start, end) for b, s in pairs):
        return None
    made = join(ctx, [_written(ctx, b, s, axis, start, end) for b, s in pairs], along)
    return made if isinstance(made, Value) else None


def _untouched(base: Value, source: Value, axis: int, start: int, end: int) -> bool:
    return source.origin is not None and source.origin[0] is base and source.origin[1:] == (axis, start, end)


def _simple(base: Value, source: Value, axis: int, start: int, end: int) -> bool:
    if _untouched(base, source, axis, start, end) or (base.tensor is not None and source.tensor is not None):
        return True
    return source.kind is Kind.STREAM and source.layout.pure_time is not None and base.uniform is not None


def _written(ctx: Context, base: Value, source: Value, axis: int, start: int, end: int) -> Value:
    if _untouched(base, source, axis, start, end):
        return base
    if base.tensor is not None and source.tensor is not None:
        part = source.tensor.expand(base.tensor.narrow(axis, start, end - start).shape)
        return constant(torch.slice_scatter(base.tensor, part, axis, start, end))
    size = base.layout.shape[axis]
    around = [cut(ctx, base, axis, 0, start), source, cut(ctx, base, axis, end, size)]
    made = along_time(ctx, [v for v in around if v.layout.shape[axis]], axis)
    assert isinstance(made, Value)
    return made


@rule(aten.select_scatter)
def select_scatter(ctx: Context) -> Value | list[Value]:
    """Writing into one position of an axis, as ``y[:, 0] = …`` becomes."""
    base, source = ctx.args["self"], ctx.args["src"]
    axis = ctx.args["dim"] % len(ctx.shape)
    size = ctx.shape[axis]
    index = ctx.args["index"] % size
    if Kind.WINDOW in (base.kind, source.kind):
        return ctx.window("writing into one position")
    if axis == base.layout.batch:
        ctx.refuse("it writes into one row of the batch", "Each row is a stream of its own: write into all rows alike.")
    if source.kind is Kind.STREAM:
        lifted = viewed(ctx, source, source.layout.insert(axis))
    elif source.tensor is not None:
        lifted = constant(source.tensor.unsqueeze(axis))
    else:
        return ctx.window("writing a value that is not known")
    parts = [cut(ctx, base, axis, 0, index), lifted, cut(ctx, base, axis, index + 1, size)]
    return join(ctx, [p for p in parts if p.layout.shape[axis]], axis)


@rule(aten.copy)
def copy(ctx: Context) -> Value | list[Value]:
    """Assignment to a whole tensor: what is assigned, spread where it is a constant."""
    source: Value = ctx.args["src"]
    if source.layout.shape == ctx.shape or source.kind is Kind.WINDOW:
        return source
    if source.tensor is None:
        ctx.refuse("it assigns a smaller tensor", "Expand the right-hand side to the shape it is assigned to.")
    sizes = [1 if is_batch(n, ctx.builder.batch) else n for n in ctx.shape]
    return constant(source.tensor.expand(sizes))
