"""Resizing: along time by whole factors, up as far as the network strode before; within a frame as it is."""

from __future__ import annotations

from typing import Any

from edgeco.continual.builder import aten
from edgeco.continual.context import Context
from edgeco.continual.registry import rule
from edgeco.continual.rules.framewise import framewise, in_batch, refuse_time
from edgeco.continual.rules.shape import lengthened
from edgeco.continual.value import Kind, Value

_NEAREST = (aten.upsample_nearest1d.vec, aten.upsample_nearest2d.vec)
_EXACT = (aten._upsample_nearest_exact1d.vec, aten._upsample_nearest_exact2d.vec)
_LINEAR = (aten.upsample_linear1d.vec, aten.upsample_bilinear2d.vec)


@rule(
    aten.upsample_nearest1d,
    aten.upsample_nearest2d,
    aten.upsample_nearest3d,
    aten._upsample_nearest_exact1d,
    aten._upsample_nearest_exact2d,
    aten._upsample_nearest_exact3d,
)
def nearest(ctx: Context) -> Value | list[Value]:
    """Resizing by the nearest element."""
    exact = "exact" in ctx.op
    value = ctx.values[0]
    if value.kind is Kind.WINDOW:
        return ctx.window()
    if in_batch(value):
        return framewise(ctx, value)
    time = _time(ctx, value)
    value = _space(ctx, value, time, _EXACT if exact else _NEAREST)
    have, wanted, scale = value.layout.shape[time], ctx.shape[time], _scales(ctx)[time - 2]
    if wanted == have:
        return value
    if wanted % have == 0 and scale in (None, wanted // have):
        return repeated(ctx, value, wanted // have)
    step = have // wanted
    if wanted < have and (have == wanted * step if scale is None else scale == 1 / step):
        front = step // 2 if exact else 0
        ready = ctx.ready(value)
        cut = ctx.strided(ready.time.cut(front, step - 1 - front, step))
        ctx.note(cut, f"one element of {step}")
        return ctx.stream(ctx.builder.node(ready), ready.layout.with_size(time, wanted), cut)
    ctx.refuse(
        f"it resizes time from {have} elements to {wanted}, so that an element's sources depend on its place",
        "Resize time by a whole factor, and cut or pad to the length that is wanted.",
    )


@rule(
    aten.upsample_linear1d,
    aten.upsample_bilinear2d,
    aten.upsample_trilinear3d,
    aten.upsample_bicubic2d,
    aten._upsample_bilinear2d_aa,
)
def interpolated(ctx: Context) -> Value | list[Value]:
    """Resizing by interpolation: along time between an element and the next, an element late."""
    value = ctx.values[0]
    if value.kind is Kind.WINDOW:
        return ctx.window()
    if in_batch(value):
        return framewise(ctx, value)
    time = _time(ctx, value)
    have, wanted = value.layout.shape[time], ctx.shape[time]
    if "linear" not in ctx.op or "_aa" in ctx.op:
        refuse_time(ctx)
    value = _space(ctx, value, time, _LINEAR)
    if wanted == have:
        return value
    if have == 1:
        return lengthened(ctx, value, wanted)
    factor = wanted // have
    if ctx.args["align_corners"] or wanted % have or _scales(ctx)[time - 2] not in (None, factor):
        ctx.refuse(
            "it weighs an element of time by its place in the clip",
            "Interpolate time by a whole factor with align_corners=False.",
        )
    check_factor(ctx, value, factor)
    if ctx.exact in ("rounds", "clip"):
        return ctx.window("interpolation at the clip's own ends")
    return _between(ctx, ctx.ready(value), factor)


def _between(ctx: Context, value: Value, factor: int) -> Value:
    """Between the newest element and the one before it: element q of a group lies (q + 1/2) / factor - 1/2 off its own.

    The first that needs the newest is number factor // 2, so that the steps begin with it.
    """
    builder = ctx.builder
    choices = []
    for turn in range(factor):
        q = (turn + factor // 2) % factor
        share = (q + 0.5) / factor + (0.5 if q < factor // 2 else -0.5)  # of the newest
        new, old = (builder.past(value, age, turn > 0, "first") for age in (0, 1))
        parts = [builder.call(aten.mul.Tensor, node, part) for node, part in ((new, share), (old, 1 - share)) if part]
        choices.append(parts[0] if len(parts) == 1 else builder.call(aten.add.Tensor, *parts))
    timeline = value.time.interpolated(factor)
    ctx.note(timeline, f"{factor} elements between each and the one before it, in turn")
    assert value.layout.time is not None
    layout = value.layout.with_size(value.layout.time, timeline.length)
    return ctx.stream(builder.turns(choices, value.time), layout, timeline)


@rule(aten.repeat_interleave.self_int)
def repeat_interleave(ctx: Context) -> Value | list[Value]:
    """Every element of an axis several times in a row."""
    value, times, axis = ctx.values[0], ctx.args["repeats"], ctx.args["dim"]
    if value.kind is Kind.WINDOW:
        return ctx.window()
    if axis is None:
        ctx.refuse("it flattens time and batch", "Give it the axis whose elements it repeats.")
    axis %= value.layout.rank
    if axis == value.layout.batch or (axis == value.layout.time and value.layout.pure_time is None):
        ctx.refuse("it repeats rows of the batch", "Each row is a stream of its own: keep axis 0 as it is.")
    if axis == value.layout.time:
        return repeated(ctx, value, times)
    ready = ctx.ready(value)
    layout = value.layout.with_axis(axis, ()).with_size(axis, ctx.shape[axis])
    at = ready.layout.step_axis(axis)
    assert at is not None
    node = ctx.builder.call(aten.stack.default, [ctx.builder.node(ready)] * times, at + 1)
    return ctx.stream(ctx.builder.call(aten.reshape.default, node, layout.step.sizes()), layout, ready.time)


def repeated(ctx: Context, value: Value, factor: int) -> Value | list[Value]:
    """Every element of time several times: computed once, read back in the steps that follow."""
    if value.time.length == 1:
        return lengthened(ctx, value, factor)
    check_factor(ctx, value, factor)
    if ctx.exact in ("rounds", "clip") and factor > 1:
        return ctx.window("elements repeated within the clip")
    ready = ctx.ready(value)
    node = ctx.builder.held(ready, factor)
    timeline = ready.time.upsampled(factor)
    ctx.note(timeline, f"every element {factor} times, read back in the steps between")
    assert value.layout.time is not None
    return ctx.stream(node, value.layout.with_size(value.layout.time, timeline.length), timeline)


def check_factor(ctx: Context, value: Value, factor: int) -> None:
    """Refuse to upsample in time what was not strided as much before."""
    rate = value.time.rate
    if rate % factor:
        every = "every frame" if rate == 1 else f"every {rate} frames"
        ctx.refuse(
            f"it makes {factor} elements of time of each, and what it gets already has one for {every}: a step would "
            "have to give several answers",
            "Upsample time only by what the network strided it by before, or repeat its answers outside.",
        )


def _time(ctx: Context, value: Value) -> int:
    """The axis of time, if it is one of those resized."""
    time = value.layout.pure_time
    if time is None or time < 2:
        refuse_time(ctx)
    return time


def _scales(ctx: Context) -> list[float | None]:
    """The factor given per resized axis, None where a size was given."""
    given = ctx.args.get("scale_factors")
    if given is None:
        given = [ctx.args[name] for name in ("scales", "scales_d", "scales_h", "scales_w") if name in ctx.args]
    return list(given) or [None] * (len(ctx.shape) - 2)


def _space(ctx: Context, value: Value, time: int, ops: tuple[Any, ...]) -> Value:
    """The same within the frame alone."""
    scales = _scales(ctx)
    axes = [i for i in range(2, len(ctx.shape)) if i != time]
    if all(value.layout.shape[i] == ctx.shape[i] and scales[i - 2] in (None, 1.0) for i in axes):
        return value
    ready = ctx.ready(value)
    factors = [scales[i - 2] for i in axes]
    known = None if None in factors else factors
    sizes = [ctx.shape[i] for i in axes] if known is None else None
    corners = [ctx.args["align_corners"]] if "align_corners" in ctx.args else []
    node = ctx.builder.call(ops[len(axes) - 1], ctx.builder.node(ready), sizes, *corners, known)
    layout = value.layout
    for i in axes:
        layout = layout.with_size(i, ctx.shape[i])
    return ctx.stream(node, layout, ready.time)
