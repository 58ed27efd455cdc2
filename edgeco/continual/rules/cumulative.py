"""Running sums, products and extremes: one state a step, from the start of the recording on, which never fades."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from torch import fx

from edgeco.continual.builder import StepBuilder, aten
from edgeco.continual.context import Context
from edgeco.continual.registry import rule
from edgeco.continual.rules.axiswise import along
from edgeco.continual.value import Kind, Value
from edgeco.graph.timeline import worst

Combine = Callable[[StepBuilder, fx.Node, fx.Node], fx.Node]
"""From what was before and the newest element to what is now."""


@rule(aten.cumsum)
def running_sum(ctx: Context) -> Value | list[Value]:
    """The sum of all elements so far."""
    return _running(ctx, 0.0, lambda b, s, x: b.call(aten.add.Tensor, s, x))


@rule(aten.cumprod)
def running_product(ctx: Context) -> Value | list[Value]:
    """The product of all elements so far."""
    return _running(ctx, 1.0, lambda b, s, x: b.call(aten.mul.Tensor, s, x))


@rule(aten.cummax)
def running_maximum(ctx: Context) -> Value | list[Value]:
    """The greatest of all elements so far, values only."""
    return _extreme(ctx, -math.inf, lambda b, s, x: b.call(aten.maximum.default, s, x))


@rule(aten.cummin)
def running_minimum(ctx: Context) -> Value | list[Value]:
    """The least of all elements so far, values only."""
    return _extreme(ctx, math.inf, lambda b, s, x: b.call(aten.minimum.default, s, x))


@rule(aten.logcumsumexp)
def running_logarithm(ctx: Context) -> Value | list[Value]:
    """The logarithm of the sum of the exponentials of all elements so far: max + log(1 + exp(-|difference|))."""

    def combine(b: StepBuilder, s: fx.Node, x: fx.Node) -> fx.Node:
        apart = b.call(aten.abs.default, b.call(aten.sub.Tensor, s, x))
        more = b.call(aten.log1p.default, b.call(aten.exp.default, b.call(aten.neg.default, apart)))
        return b.call(aten.add.Tensor, b.call(aten.maximum.default, s, x), more)

    return _running(ctx, -math.inf, combine)


def _extreme(ctx: Context, nothing: float, combine: Combine) -> Value | list[Value]:
    """Where the index is not asked for."""
    value: Value = ctx.args["self"]
    if value.kind is Kind.STREAM and value.layout.time == ctx.args["dim"] % value.layout.rank:
        if any(user.args[1] == 1 for user in ctx.node.users):
            ctx.refuse("its indices count within the clip", "Use the values only.")
        if ctx.exact != "clip":
            made = _running(ctx, nothing, combine)
            return made if isinstance(made, list) else [made]
    return _running(ctx, nothing, combine)


def _running(ctx: Context, nothing: float, combine: Combine) -> Value | list[Value]:
    """The state after the newest element; before the first it is `nothing`, which changes no element."""
    value: Value = ctx.args["self"]
    if value.kind is Kind.WINDOW or value.layout.time != ctx.args["dim"] % value.layout.rank:
        return along(ctx, over_time="")
    if ctx.exact == "clip":
        return ctx.window("a running value that starts anew in every window")
    if value.layout.pure_time is None:
        ctx.refuse("it runs over an axis that time is merged into", "Run it before merging time into another axis.")
    ready = ctx.ready(value)
    builder, layout = ctx.builder, ready.layout
    if builder.node(ready) in builder.types:
        ctx.refuse("it runs over whole numbers or truth values", "Give it floating-point numbers, by x.float().")
    kept = builder.carried(layout.step, ready.time, nothing)
    new = combine(builder, builder.restored(kept, ready), builder.node(ready))
    builder.carry(kept, builder.stored(ctx.stream(new, layout, ready.time), flat=False))
    time = replace(
        ready.time,
        past=ready.time.past + ready.time.rate * (ready.time.length - 1),
        running=True,
        exactness=worst(ready.time.exactness, "unpadded"),
    )
    ctx.note(time, "carried from the start of the recording on; it never fades")
    return ctx.stream(new, layout, time)
