"""Operators that treat every element alone: all that PyTorch tags pointwise, by class and not by a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import fx

from edgeco.continual.builder import aten
from edgeco.continual.context import Context
from edgeco.continual.registry import rule
from edgeco.continual.rules.counting import positions
from edgeco.continual.value import Kind, Value
from edgeco.graph.layout import Axis, Layout, plain
from edgeco.graph.timeline import Border


def pointwise(ctx: Context) -> Value | list[Value]:
    """Align the streams by element, drop time from what is broadcast over it, and emit the operator once."""
    values = ctx.values
    streams = [v for v in values if v.kind is Kind.STREAM]
    if any(v.kind is Kind.WINDOW for v in values):
        return ctx.window()
    offset = time_offset(streams)
    if offset is None or not all(_broadcasts(v, offset) for v in values):
        if not _counted(ctx, streams, offset):
            return ctx.window("a table indexed by the position in the clip; edgeco.RecyclingPositionalEncoding streams")
        return pointwise(ctx)
    if ctx.uneven(streams):
        return ctx.window("each element meets the summary of its own clip")
    lazy = _through_border(ctx, streams, offset)
    if lazy is not None:
        return lazy
    streams = with_summaries(ctx, streams)
    timeline = ctx.together(streams)
    renumbered = dict(zip([id(v) for v in values if v.kind is Kind.STREAM], streams, strict=True))
    nodes = {id(v): without_time(ctx, renumbered.get(id(v), v), offset, timeline.delay) for v in values}
    made = ctx.stream(ctx.emit({}, nodes), broadcast_layout(values, ctx.shape), timeline)
    return replace(made, joined=_joined_alike(ctx, values))


def _joined_alike(ctx: Context, values: Sequence[Value]) -> tuple[int, tuple[Value, ...]] | None:
    """What becomes of the parts of a concatenation: those that are constants and stay so, such as a class token."""
    whole = next((v for v in values if v.joined is not None), None)
    if whole is None or whole.joined is None or any(v.tensor is None for v in values if v is not whole):
        return None
    axis, parts = whole.joined
    if whole.layout.rank != len(ctx.shape) or whole.layout.shape[axis] != ctx.shape[axis]:
        return None
    made, at = [], 0
    for part in parts:
        size = part.layout.shape[axis]
        lazy = replace(part, node=None, tensor=None, joined=None)
        made.append(lazy if part.tensor is None else _part_alike(ctx, whole, part, axis - len(ctx.shape), at))
        at += size
    return axis, tuple(made)


def _part_alike(ctx: Context, whole: Value, part: Value, axis: int, at: int) -> Value:
    """The operator on a constant part of a concatenation; `axis` counts from the right."""
    size = part.layout.shape[axis]

    def own(value: object) -> object:
        if not isinstance(value, Value):
            return value
        if value is whole:
            return part.tensor
        assert value.tensor is not None
        spans = value.tensor.ndim >= -axis and value.tensor.shape[axis] > 1
        return value.tensor.narrow(axis, at, size) if spans else value.tensor

    made = _call(ctx, {name: own(value) for name, value in ctx.args.items()})
    return Value(Kind.CONSTANT, plain(made.shape), tensor=made)


def _counted(ctx: Context, streams: Sequence[Value], offset: int | None) -> bool:
    """Whether tables indexed by position met a running value, and count the recording's elements from now on."""
    running = [v for v in streams if v.time.running and v.time.length > 1]
    if not running or offset is None:
        return False
    for name, value in ctx.args.items():
        if isinstance(value, Value) and not _broadcasts(value, offset):
            counted = positions(ctx, value, value.layout.rank - offset, running[0])
            if counted is None:
                ctx.refuse(
                    "it takes a running sum or extreme together with a table indexed by the position in the clip",
                    "Use a table that grows evenly (torch.arange), or summarise a window by a pool.",
                )
            ctx.args[name] = counted
    return True


def time_offset(streams: Sequence[Value]) -> int | None:
    """Distance of time's axis from the right, common to all streams; 0 if none shows it; None if they disagree."""
    offsets = {v.layout.rank - v.layout.time for v in streams if v.layout.time is not None}
    structure = {v.layout.axes[v.layout.time] for v in streams if v.layout.time is not None and v.time.length > 1}
    if len(offsets) > 1 or len(structure) > 1:
        return None
    return offsets.pop() if offsets else 0


def _broadcasts(value: Value, offset: int) -> bool:
    """Whether the operand is the same at every position of time, or is a stream along it."""
    axis = value.layout.rank - offset
    if not offset or axis < 0 or value.layout.time == axis:
        return True
    if value.layout.shape[axis] == 1:
        return True
    return value.tensor is not None and bool((value.tensor == value.tensor.narrow(axis, 0, 1)).all())


def with_summaries(ctx: Context, streams: Sequence[Value]) -> list[Value]:
    """Streams renumbered where a summary of the whole clip meets the elements it summarises.

    In the clip network every element then depends on the whole clip. Streamed, an element sees the summary of the
    window that ends at it: causal. A summary that comes less often is held until the next.
    """
    length = max(v.time.length for v in streams)
    if length == 1 or all(v.time.length == length for v in streams):
        return list(streams)
    rate = next(v.time.rate for v in streams if v.time.length == length)
    found = []
    for value in streams:
        node, time = value.node, value.time
        if time.length != length:
            if time.rate > rate and time.rate % rate == 0:
                factor = time.rate // rate
                node, time = ctx.builder.held(value, factor), replace(time.upsampled(factor), length=1)
            time = time.summary(rate * (length - 1))
        found.append(Value(value.kind, value.layout, node, time))
    timeline = ctx.together(found)
    ctx.note(timeline, f"each element sees the {length}-element window that ends at it", "causal")
    return [Value(v.kind, v.layout, v.node, replace(v.time, exactness="causal")) for v in found]


def without_time(ctx: Context, value: Value, offset: int, delay: int) -> fx.Node:
    """The step node of an operand at `delay`, with the axis that broadcasts over time taken out."""
    builder = ctx.builder
    node = builder.at(value, delay) if value.kind is Kind.STREAM else builder.node(value)
    axis = value.layout.rank - offset
    if not offset or axis < 0 or value.layout.time == axis:
        return node
    step_axis = value.layout.step_axis(axis) if value.kind is Kind.STREAM else axis
    assert step_axis is not None
    if value.layout.shape[axis] == 1:
        return builder.call(aten.squeeze.dim, node, step_axis) if _pure(ctx, offset) else node
    if not _pure(ctx, offset):
        return builder.call(aten.slice.Tensor, node, step_axis, 0, 1)
    return builder.call(aten.select.int, node, step_axis, 0)


def _pure(ctx: Context, offset: int) -> bool:
    """Whether time has its axis for itself in the result (an axis merged with the batch stays)."""
    return any(
        v.kind is Kind.STREAM and v.layout.pure_time is not None and v.layout.rank - v.layout.pure_time == offset
        for v in ctx.values
    )


def broadcast_layout(values: Sequence[Value], shape: Sequence[int]) -> Layout:
    """The layout of the result: per axis that of the operand that spans it, one with batch or time before others."""
    axes: list[Axis] = []
    rank = len(shape)
    for i, size in enumerate(shape):
        best: Axis = ()
        for value in values:
            own = i - rank + value.layout.rank
            if own < 0 or value.layout.shape[own] != size:
                continue
            axis = value.layout.axes[own]
            if not best or sum(f.role != "plain" for f in axis) > sum(f.role != "plain" for f in best):
                best = axis
        axes.append(best)
    return Layout(tuple(axes))


def _through_border(ctx: Context, streams: Sequence[Value], offset: int) -> Value | None:
    """Explicit padding seen through the operator: relu of zeros is zeros, so nothing need be read late."""
    if len(streams) != 1 or streams[0].time.border is None or streams[0].layout.rank != len(ctx.shape):
        return None
    others = [v for v in ctx.values if v is not streams[0]]
    if streams[0].time.border == "first":  # what is done to every element alike is done to copies of the first
        own = {id(streams[0]): ctx.builder.node(streams[0])} | {id(v): without_time(ctx, v, offset, 0) for v in others}
        return ctx.stream(ctx.emit({}, own), broadcast_layout(ctx.values, ctx.shape), streams[0].time)
    if any(v.uniform is None for v in others):
        return None
    try:
        scalars = {name: _scalar(v, streams[0].time.border) for name, v in ctx.args.items()}
        border = float(_call(ctx, scalars))
    except (TypeError, RuntimeError, ValueError):
        return None
    value = streams[0]
    nodes = {id(v): ctx.builder.weight(v.tensor.flatten()[:1].reshape(())) for v in others if v.tensor is not None}
    nodes[id(value)] = ctx.builder.node(value)
    return ctx.stream(ctx.emit({}, nodes), value.layout, replace(value.time, border=border))


def _scalar(value: object, border: Border) -> object:
    if not isinstance(value, Value):
        return value
    filled = border if value.kind is Kind.STREAM else value.uniform
    return torch.tensor(filled, dtype=torch.float64)


def _call(ctx: Context, scalars: dict[str, object]) -> torch.Tensor:
    schema = ctx.node.target._schema  # type: ignore[union-attr]
    named = {a.name for a in schema.arguments if a.kwarg_only}
    positional = [v for k, v in scalars.items() if k not in named]
    result: torch.Tensor = ctx.node.target(*positional, **{k: v for k, v in scalars.items() if k in named})  # type: ignore[operator]
    return result


@rule(aten.clone, aten.alias, aten.detach, aten.contiguous, aten.lift_fresh_copy, aten.lift_fresh)
def identity(ctx: Context) -> Value:
    """Copies and views of the same numbers."""
    value: Value = next(iter(ctx.args.values()))
    return value


@rule(aten.dropout, aten.feature_dropout, aten.alpha_dropout, aten.feature_alpha_dropout)
def dropout(ctx: Context) -> Value | list[Value]:
    """Nothing in evaluation, which is the only mode a network is traced in."""
    if ctx.args.get("train"):
        ctx.refuse(
            "it drops values at run time", "Call it with training=self.training, so that evaluation keeps all values."
        )
    return identity(ctx)


@rule(aten._to_copy, aten.to)
def cast(ctx: Context) -> Value | list[Value]:
    """A change of type is pointwise; one of device is not the step network's business."""
    return pointwise(ctx)
