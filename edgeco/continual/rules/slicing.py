"""Slices, shifts, padding and concatenation. Along time they only renumber elements, which costs nothing."""

from __future__ import annotations

import bisect
import itertools
import operator
from dataclasses import replace
from typing import Any

import torch

from edgeco.continual.builder import aten
from edgeco.continual.context import Context, constant
from edgeco.continual.registry import rule
from edgeco.continual.rules.pointwise import time_offset, with_summaries, without_time
from edgeco.continual.rules.shape import viewed
from edgeco.continual.value import Kind, Value
from edgeco.graph.layout import Layout
from edgeco.graph.timeline import Border


def bounds(start: int | None, end: int | None, size: int) -> tuple[int, int]:
    first = 0 if start is None else start + size if start < 0 else start
    last = size if end is None else end + size if end < 0 else end
    return min(max(first, 0), size), min(max(last, 0), size)


@rule(aten.slice)
def slice_(ctx: Context) -> Value | list[Value]:
    """x[a:b] along one axis."""
    value = ctx.values[0]
    if value.kind is Kind.WINDOW:
        return ctx.window()
    axis = ctx.args["dim"] % value.layout.rank
    size = value.layout.shape[axis]
    start, end = bounds(ctx.args["start"], ctx.args["end"], size)
    step = ctx.args["step"]
    return part(ctx, value, axis, start, end, step)


@rule(aten.narrow)
def narrow(ctx: Context) -> Value | list[Value]:
    """A part of one axis by its first place and its length."""
    value = ctx.values[0]
    if value.kind is Kind.WINDOW:
        return ctx.window()
    axis = ctx.args["dim"] % value.layout.rank
    start = ctx.args["start"] % value.layout.shape[axis]
    return part(ctx, value, axis, start, start + ctx.args["length"], 1)


def part(ctx: Context, value: Value, axis: int, start: int, end: int, step: int = 1) -> Value:
    """Elements `start` to `end` of one axis."""
    size = value.layout.shape[axis]
    if (start, end, step) == (0, size, 1):
        return value
    found = _joined_part(ctx, value, axis, start, end) if step == 1 else None
    if found is not None:
        return found
    if axis == value.layout.batch:
        alike = _alike_in_all_rows(ctx, value)
        if alike is not None:
            return alike
        ctx.refuse("it picks rows of the batch", "Each row is a stream of its own: keep axis 0 whole.")
    if axis == value.layout.time:
        if value.layout.pure_time is None:
            ctx.refuse("it cuts an axis that time is merged into", "Slice before merging time into another axis.")
        if end - start <= step:  # one element, which a stream has at every step
            step, end = 1, start + 1
        return _part_in_time(ctx, value, axis, start, end, step)
    count = -(-(end - start) // step)
    node = ctx.builder.call(aten.slice.Tensor, ctx.builder.node(value), value.layout.step_axis(axis), start, end, step)
    return ctx.stream(node, value.layout.with_size(axis, count), value.time)


def _part_in_time(ctx: Context, value: Value, axis: int, start: int, end: int, step: int) -> Value:
    """Elements of the stream, renumbered; of a concatenation along another axis its parts are, too."""
    whole = ctx.ready(value) if step > 1 else value
    time = ctx.strided(whole.time.cut(start, value.layout.shape[axis] - end, step))
    if step > 1:
        ctx.note(time, f"one element of {step}")
    made = ctx.stream(ctx.builder.node(whole), value.layout.with_size(axis, time.length), time)
    if step > 1:
        return made
    parts = None
    if value.joined is not None and value.joined[0] != axis and all(known(p) for p in value.joined[1]):
        parts = (value.joined[0], tuple(cut(ctx, p, axis, start, end) for p in value.joined[1]))
    return replace(made, joined=parts, origin=(value, axis, start, end))


def known(value: Value) -> bool:
    """Whether a value is more than a part of a whole."""
    return value.node is not None or value.tensor is not None


def _joined_part(ctx: Context, value: Value, axis: int, start: int, end: int) -> Value | None:
    """What was concatenated there, if the slice lies within one part: in-place writes come as such slices."""
    if value.joined is None or value.joined[0] != axis:
        return None
    at = 0
    for joined in value.joined[1]:
        size = joined.layout.shape[axis]
        if at <= start and end <= at + size:
            return cut(ctx, joined, axis, start - at, end - at) if known(joined) else None
        at += size
    return None


def _alike_in_all_rows(ctx: Context, value: Value) -> Value | None:
    """Picked rows of which only a constant part is read, such as the class token in front of every frame's patches.

    What nobody reads is zero here.
    """
    if value.joined is None:
        return None
    axis, parts = value.joined
    ends = list(itertools.accumulate(part.layout.shape[axis] for part in parts))
    for user in ctx.node.users:
        if user.target is not aten.select.int or user.args[1] % value.layout.rank != axis:  # type: ignore[operator]
            return None
        part = parts[bisect.bisect(ends, user.args[2] % ends[-1])].tensor  # type: ignore[operator]
        if part is None or not bool((part == part[:1]).all()):
            return None
    model = next(part.tensor[:1] for part in parts if part.tensor is not None)
    sizes = [[part.layout.shape[axis] if i == axis else n for i, n in enumerate(model.shape)] for part in parts]
    made = [p.tensor[:1] if p.tensor is not None else model.new_zeros(s) for p, s in zip(parts, sizes, strict=True)]
    return constant(torch.cat(made, axis))


@rule(aten.select)
def select(ctx: Context) -> Value | list[Value]:
    """x[i] along one axis."""
    value = ctx.values[0]
    if value.kind is Kind.WINDOW:
        return ctx.window()
    axis = ctx.args["dim"] % value.layout.rank
    index = ctx.args["index"] % value.layout.shape[axis]
    return _picked(ctx, value, axis, index)


def _picked(ctx: Context, value: Value, axis: int, index: int) -> Value:
    picked = part(ctx, value, axis, index, index + 1)
    if picked.tensor is not None:
        return constant(picked.tensor.select(axis, 0))
    return viewed(ctx, picked, picked.layout.drop([axis]))


@rule(aten.split, aten.split_with_sizes, aten.chunk, aten.tensor_split, aten.unbind)
def split(ctx: Context) -> Value | list[Value]:
    """Parts along one axis."""
    value = ctx.values[0]
    if value.kind is Kind.WINDOW:
        return ctx.window()
    axis = ctx.args["dim"] % value.layout.rank
    if "unbind" in ctx.op:
        return [_picked(ctx, value, axis, i) for i in range(value.layout.shape[axis])]
    parts, at = [], 0
    for made in ctx.node.meta["val"]:
        size = made.shape[axis]
        parts.append(part(ctx, value, axis, at, at + size))
        at += size
    return parts


@rule(aten.pad, aten.constant_pad_nd)
def pad(ctx: Context) -> Value | list[Value]:
    """Padding: by a constant along time it says what lies before the first element; within a frame it is as it is."""
    value = ctx.values[0]
    if value.kind is Kind.WINDOW:
        return ctx.window()
    mode = ctx.args.get("mode", "constant")
    number = float(ctx.args.get("value") or 0.0)
    pads: list[int] = ctx.args["pad"]
    rank = value.layout.rank
    around = {rank - 1 - i: (pads[2 * i], pads[2 * i + 1]) for i in range(len(pads) // 2)}
    if any(around.get(value.layout.batch, (0, 0))):  # type: ignore[arg-type]
        ctx.refuse("it pads the batch", "Pad other axes.")
    in_time = around.pop(value.layout.time, (0, 0)) if value.layout.time is not None else (0, 0)
    if ctx.exact == "clip" and any(n > 0 for n in in_time):
        return ctx.window("padding in time, of the clip's own ends")
    if any(in_time) and mode not in ("constant", "replicate"):
        before = "what follows it" if mode == "reflect" else "the end of the clip"
        ctx.refuse(
            f"{mode} padding in time puts {before} before the first element, which a stream does not have yet",
            'Pad time by a constant or by mode="replicate", and only the frame by this mode.',
        )
    if any(in_time) and value.layout.pure_time is None:
        ctx.refuse("it pads an axis that time is merged into", "Pad before merging time into another axis.")
    result = _pad_frame(ctx, value, around, mode, number)
    return _pad_time(ctx, result, in_time, "first" if mode == "replicate" else number) if any(in_time) else result


def _pad_frame(ctx: Context, value: Value, around: dict[int, tuple[int, int]], mode: str, number: float) -> Value:
    if not any(any(pair) for pair in around.values()):
        return value
    ready = value if value.time.border == number and mode == "constant" else ctx.ready(value)
    steps = {value.layout.step_axis(axis): pair for axis, pair in around.items()}
    rank = value.layout.step.rank
    depth = rank - min(axis for axis in steps if axis is not None)
    flat = [n for i in range(depth) for n in steps.get(rank - 1 - i, (0, 0))]
    filler = number if mode == "constant" else None
    node = ctx.builder.call(aten.pad.default, ctx.builder.node(ready), flat, mode, filler)
    layout = value.layout
    for axis, pair in around.items():
        layout = layout.with_size(axis, layout.shape[axis] + sum(pair)) if any(pair) else layout
    return ctx.stream(node, layout, ready.time)


def _pad_time(ctx: Context, value: Value, pair: tuple[int, int], number: Border) -> Value:
    front, back = pair
    axis = value.layout.time
    assert axis is not None
    if value.time.border is not None and value.time.border != number:
        value = ctx.ready(value)
    time = value.time.cut(max(-front, 0), max(-back, 0)) if front < 0 or back < 0 else value.time
    time = time.padded(max(front, 0), max(back, 0), number) if front > 0 or back > 0 else time
    if front > 0 or back > 0:
        ends = ("copies of the first element", "of the last") if number == "first" else (f"elements of {number:g}", "")
        ctx.note(time, f"{max(front, 0)} {ends[0]} before, {max(back, 0)} {ends[1]}".rstrip() + " after")
    made = ctx.stream(ctx.builder.node(value), value.layout.with_size(axis, time.length), time)
    alone = value.time.border is None and front >= 0 and back >= 0 and number != "first"
    return replace(made, inside=(value, front, back, float(number))) if alone else made


@rule(aten.cat)
def cat(ctx: Context) -> Value | list[Value]:
    """Concatenation: along time of a stream and constants it is padding; along another axis streams are aligned."""
    values: list[Value] = ctx.args["tensors"]
    axis = ctx.args["dim"] % len(ctx.shape)
    return join(ctx, values, axis)


def join(ctx: Context, values: list[Value], axis: int) -> Value | list[Value]:
    if any(v.kind is Kind.WINDOW for v in values):
        return ctx.window()
    streams = [v for v in values if v.kind is Kind.STREAM]
    if len(values) == 1:
        return values[0]
    offset = time_offset(streams)
    if any(v.layout.time == axis for v in streams) or offset is None:
        return along_time(ctx, values, axis)
    if ctx.uneven(streams):
        return ctx.window("each element meets the summary of its own clip")
    if any(v.layout.batch == axis for v in streams):
        ctx.refuse("it joins along the batch", "Each row is a stream of its own: use another axis.")
    node, layout, time = _aligned_cat(ctx, values, axis, offset)
    return Value(Kind.STREAM, layout, node, time, joined=(axis, tuple(values)))


def along_time(ctx: Context, values: list[Value], axis: int) -> Value | list[Value]:
    streams = [i for i, v in enumerate(values) if v.kind is Kind.STREAM]
    fills = {v.uniform for i, v in enumerate(values) if i not in streams}
    alone = len(streams) == 1 and values[streams[0]].layout.pure_time is not None
    if not alone or len(fills) != 1 or None in fills or ctx.exact == "clip":
        return ctx.window("a concatenation along time")
    front = sum(v.layout.shape[axis] for v in values[: streams[0]])
    back = sum(v.layout.shape[axis] for v in values[streams[0] + 1 :])
    return _pad_time(ctx, values[streams[0]], (front, back), fills.pop())  # type: ignore[arg-type]


def _aligned_cat(ctx: Context, values: list[Value], axis: int, offset: int) -> tuple[Any, Layout, Any]:
    original = [v for v in values if v.kind is Kind.STREAM]
    streams = with_summaries(ctx, original)
    renumbered = {id(a): b for a, b in zip(original, streams, strict=True)}
    time = ctx.together(streams)
    delay = time.delay
    model = max(streams, key=lambda v: (v.layout.time is not None, v.layout.rank))
    layout = model.layout.with_axis(axis, ()).with_size(axis, ctx.shape[axis])
    nodes = []
    for value in values:
        node = without_time(ctx, renumbered.get(id(value), value), offset, delay)
        nodes.append(node if value.kind is Kind.STREAM else _spread_rows(ctx, node, value, layout, axis))
    return ctx.builder.call(aten.cat.default, nodes, layout.step_axis(axis)), layout, time


def _spread_rows(ctx: Context, node: Any, value: Value, layout: Layout, axis: int) -> Any:
    """A constant repeated for every row, as concatenation does not broadcast."""
    step = layout.step
    if step.batch is None:
        return node
    sizes: list[Any] = list(step.shape)
    own = layout.step_axis(axis)
    assert own is not None
    sizes[own] = value.layout.shape[axis]
    rows: Any = ctx.builder.batch_size()
    more = sizes[step.batch] // ctx.builder.batch
    sizes[step.batch] = rows if more == 1 else ctx.builder.call(operator.mul, rows, more)
    return ctx.builder.call(aten.expand.default, node, sizes)


@rule(aten.stack)
def stack(ctx: Context) -> Value | list[Value]:
    """Stacking along a new axis."""
    values: list[Value] = ctx.args["tensors"]
    if any(v.kind is not Kind.STREAM for v in values):
        return ctx.window()
    axis = ctx.args["dim"] % len(ctx.shape)
    return join(ctx, [viewed(ctx, v, v.layout.insert(axis)) for v in values], axis)


def cut(ctx: Context, value: Value, axis: int, start: int, end: int) -> Value:
    if value.kind is Kind.STREAM and end > start:
        return part(ctx, value, axis, start, end)
    if (start, end) == (0, value.layout.shape[axis]):
        return value
    if value.tensor is None:
        return Value(value.kind, value.layout.with_axis(axis, ()).with_size(axis, 0), value.node, value.timeline)
    made = value.tensor.narrow(axis, start, end - start)
    return Value(Kind.CONSTANT, value.layout.with_axis(axis, ()).with_size(axis, end - start), tensor=made)
