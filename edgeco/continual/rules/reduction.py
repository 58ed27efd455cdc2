"""Sums, means, minima and maxima: over time by a ring of the window's elements, over other axes as they are."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from torch import fx

from edgeco.continual.builder import aten
from edgeco.continual.context import Context
from edgeco.continual.registry import rule
from edgeco.continual.value import Kind, Value
from edgeco.graph.layout import Factor, Layout
from edgeco.graph.timeline import Border

_KINDS = {"mean": "mean", "sum": "sum", "amax": "max", "amin": "min"}


@rule(aten.mean, aten.sum, aten.amax, aten.amin)
def separable(ctx: Context) -> Value | list[Value]:
    """Reductions that may take the other axes first and time last, so that little is kept."""
    value: Value = next(iter(ctx.args.values()))
    if value.kind is Kind.WINDOW:
        return ctx.window()
    dims = _dims(ctx.args.get("dim"), value.layout.rank)
    keep = bool(ctx.args.get("keepdim", False))
    time = value.layout.time
    refuse_batch(ctx, value, dims)
    if time not in dims:
        return _elsewhere(ctx, value, dims, keep)
    if value.layout.pure_time is None:
        return ctx.window("a reduction over an axis that time is merged into")
    others = [d for d in dims if d != time]
    if others:
        value = _elsewhere(ctx, value, others, True)
    name = str(ctx.node.target).split(".")[1]
    result = over_time(ctx, value, _KINDS[name])
    gone = [d for d in dims if not keep]
    layout = value.layout.with_axis(time, (Factor(1, "time"),)).drop(gone)
    node = ctx.builder.call(aten.reshape.default, result.node, layout.step.sizes()) if gone and others else result.node
    return ctx.stream(node, layout, result.time)  # type: ignore[arg-type]


@rule(
    aten.var, aten.std, aten.var_mean, aten.std_mean, aten.prod, aten.max, aten.min, aten.argmax, aten.argmin,
    aten.any, aten.all, aten.logsumexp, aten.norm, aten.linalg_vector_norm, aten.median,
)  # fmt: skip
def other(ctx: Context) -> Value | list[Value]:
    """Reductions with no short form over time: there they run on a live window."""
    value: Value = next(iter(ctx.args.values()))
    dims = _dims(ctx.args.get("dim"), value.layout.rank)
    if value.kind is Kind.STREAM:
        refuse_batch(ctx, value, dims)
    if value.kind is Kind.WINDOW or value.layout.time in dims or not isinstance(ctx.node.meta["val"], tuple | list):
        if value.kind is Kind.STREAM and value.layout.time not in dims:
            return _elsewhere(ctx, value, dims, bool(ctx.args.get("keepdim", False)))
        return ctx.window()
    ready = ctx.ready(value)
    axis = [value.layout.step_axis(d) for d in dims]
    given = ctx.args["dim"]
    node = ctx.emit({"dim": axis if isinstance(given, list) else axis[0]}, {id(value): ctx.builder.node(ready)})
    layout = _reduced(value, dims, bool(ctx.args.get("keepdim", False)))
    return [
        ctx.stream(ctx.builder.call(operator.getitem, node, i), layout, ready.time)
        for i in range(len(ctx.node.meta["val"]))
    ]


def refuse_batch(ctx: Context, value: Value, dims: Sequence[int]) -> None:
    """Rows of a batch are different streams: no operator may mix them."""
    if value.layout.batch in dims:
        ctx.refuse(
            "it mixes the rows of the batch", "Each row is a stream of its own: keep axis 0 out of the operator."
        )


def _dims(dim: int | Sequence[int] | None, rank: int) -> list[int]:
    if dim is None or dim == []:
        return list(range(rank))
    listed = [dim] if isinstance(dim, int) else dim
    return sorted(int(d) % rank for d in listed)


def _reduced(value: Value, dims: Sequence[int], keep: bool) -> Layout:
    layout = value.layout
    for d in dims:
        layout = layout.with_axis(d, ())
    return layout if keep else layout.drop(dims)


def _elsewhere(ctx: Context, value: Value, dims: Sequence[int], keep: bool) -> Value:
    """The reduction over axes that are not time."""
    ready = ctx.ready(value)
    axes = [value.layout.step_axis(d) for d in dims]
    changes: dict[str, object] = {"keepdim": keep}
    if "dim" in ctx.args:
        changes["dim"] = axes if isinstance(ctx.args["dim"], (list, tuple)) or ctx.args["dim"] is None else axes[0]
    node = ctx.emit({k: v for k, v in changes.items() if k in ctx.args}, {id(value): ctx.builder.node(ready)})
    return ctx.stream(node, _reduced(value, dims, keep), ready.time)


def over_time(ctx: Context, value: Value, kind: str) -> Value:
    """The reduction of a whole clip's elements (or of ``window`` of them) over time; keeps a time axis of one."""
    time = value.time
    length = ctx.pool_window or time.length
    if time.computable > time.delay:
        value = ctx.ready(value)
        time = value.time
    result = time.windowed(length, time.computable + time.rate * (length - 1))
    node = windowed(ctx, value, length, kind, None)
    if length > 1:
        ctx.note(result, f"{kind} of the last {length} elements")
    axis = value.layout.time
    layout = value.layout if axis is None else value.layout.with_axis(axis, (Factor(1, "time"),))
    return ctx.stream(node, layout, result)


def windowed(ctx: Context, value: Value, length: int, kind: str, border: Border | None) -> fx.Node:
    """Mean, sum, max or min of the newest `length` elements, kept in a ring (their order does not matter)."""
    builder = ctx.builder
    if length == 1:
        return builder.node(value)
    past = builder.ring(value, length - 1, border)
    new = builder.newest(value, "ring", length - 1, border)
    if kind in ("mean", "sum"):
        total = builder.call(aten.add.Tensor, builder.call(aten.sum.dim_IntList, past, [0]), new)
        node = builder.call(aten.mul.Tensor, total, 1.0 / length) if kind == "mean" else total
    else:
        extreme, pair = (aten.amax, aten.maximum) if kind == "max" else (aten.amin, aten.minimum)
        node = builder.call(pair.default, builder.call(extreme.default, past, [0]), new)
    return builder.unstored(node, value)
