"""Attention: within a frame as it is; over time by the keys and values of the past, or on a live window."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from edgeco.continual.builder import aten
from edgeco.continual.context import Context
from edgeco.continual.registry import rule
from edgeco.continual.rules.pointwise import time_offset
from edgeco.continual.value import Kind, Value
from edgeco.graph.timeline import Exactness, Timeline, merged, worst

HIDDEN = -1e4
"""A score lowered by as much is hidden: its exponential is zero."""


@rule(aten.scaled_dot_product_attention)
def attention(ctx: Context) -> Value | list[Value]:
    """softmax(Q K^T) V.

    Where the clip network takes one query, or each query sees a bounded past alone, a step asks the newest query of the
    keys and values kept: exact. Where each of a clip's queries sees all of the clip, the newest still sees the window
    that ends at it: causal (DeepCoT, arXiv:2511.17693), and exact=True recomputes the whole window instead.
    """
    if _within_frame(ctx):
        return _framewise(ctx)
    sight = _sight(ctx)
    if sight is None:
        return ctx.window("attention over time")
    if ctx.exact == "clip" or (not sight.bounded and ctx.exact is not None):
        return ctx.window("attention over time, every query of it")
    return _newest_query(ctx, sight)


def _within_frame(ctx: Context) -> bool:
    streams = [v for v in ctx.values if v.kind is Kind.STREAM]
    leading = all(v.layout.time is None or v.layout.time < v.layout.rank - 2 for v in streams)
    alike = len(streams) == len(ctx.values) and time_offset(streams) is not None
    return leading and alike and ctx.args["attn_mask"] is None


def _framewise(ctx: Context) -> Value:
    streams = ctx.values
    timeline = ctx.together(streams)
    node = ctx.emit({}, {id(v): ctx.builder.at(v, timeline.delay) for v in streams})
    query, value = ctx.args["query"], ctx.args["value"]
    layout = query.layout.with_axis(query.layout.rank - 1, value.layout.axes[-1])
    return ctx.stream(node, layout, timeline)


@dataclass(frozen=True)
class _Sight:
    """What a query sees of the past.

    Attributes:
        span: keys seen, the newest included.
        early: a query sees whatever there is yet, rather than waiting for `span` keys.
        bounded: every query of the clip network sees no more than that, and the same of each age.
        bias: what is added to the scores, (…, 1, span), oldest key first; None for nothing.
    """

    span: int
    early: bool = False
    bounded: bool = False
    bias: Tensor | None = None


def _sight(ctx: Context) -> _Sight | None:
    """What the newest query sees; None where queries and keys are not elements of the same time."""
    query, key, value, mask = (ctx.args[name] for name in ("query", "key", "value", "attn_mask"))
    if any(v.kind is not Kind.STREAM or v.layout.pure_time != v.layout.rank - 2 for v in (query, key, value)):
        return None
    length = key.time.length
    same = {(v.time.length, v.time.rate) for v in (query, key, value)}
    if len(same) > 1 or length == 1 or ctx.args["enable_gqa"]:
        return None
    if mask is None:
        return _Sight(length, early=bool(ctx.args["is_causal"]))
    if mask.tensor is None or mask.tensor.shape[-2:] != (length, length):
        return None
    return _seen(_additive(mask.tensor, ctx.builder.dtype))


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, -torch.inf)


def _seen(mask: Tensor) -> _Sight:
    """Read a mask (…, queries, keys): by its last row, and whether the other rows say the same of each age."""
    length = mask.shape[-1]
    last = mask[..., -1:, :]
    hidden = (last <= HIDDEN).all(dim=tuple(range(mask.ndim - 1)))
    span = length - int(hidden.to(torch.int8).cumprod(0).sum())
    rows, columns = torch.tril_indices(length, length)
    alike = bool((mask[..., rows, columns] == last[..., 0, length - 1 - (rows - columns)]).all())
    ahead = torch.ones(length, length, dtype=torch.bool).triu(1)
    causal = bool((mask[..., ahead] <= HIDDEN).all())
    bias = last[..., length - span :]
    return _Sight(span, causal, causal and alike and span < length, bias if bool((bias != 0).any()) else None)


def _newest_query(ctx: Context, sight: _Sight) -> Value:
    query, key, value = (ctx.ready(ctx.args[name]) for name in ("query", "key", "value"))
    timeline = _timeline([query, key, value], sight)
    builder, delay, span = ctx.builder, timeline.delay, sight.span
    complete = delay + timeline.rate * (span - 1)  # windows are numbered by their first element
    asked = builder.call(aten.unsqueeze.default, builder.at(query, delay), query.layout.rank - 2)
    bias = None if sight.bias is None else builder.weight(sight.bias.to(builder.dtype), "bias")
    if sight.early:
        # What lies before the first key has no share: its score is hidden, and its value, times zero, must be finite.
        key, value = (replace(v, timeline=replace(v.time, border=0.0)) for v in (key, value))
        hidden = _before_the_first(ctx, key, complete, span)
        bias = hidden if bias is None else builder.call(aten.add.Tensor, hidden, bias)
    keys, values = (builder.window(v, complete, span) for v in (key, value))
    node = builder.call(aten.scaled_dot_product_attention.default, asked, keys, values, bias, scale=ctx.args["scale"])
    node = builder.call(aten.squeeze.dim, node, query.layout.rank - 2)
    grade: Exactness = "unpadded" if sight.bounded else "causal"
    timeline = replace(timeline, exactness=worst(timeline.exactness, grade))
    ctx.note(timeline, f"the newest query sees the last {span} keys", grade)
    return ctx.stream(node, query.layout.with_axis(query.layout.rank - 1, value.layout.axes[-1]), timeline)


def _timeline(streams: list[Value], sight: _Sight) -> Timeline:
    """Element j looks back over `span` keys; the first to see as many as it should is the first defined."""
    delay = max(v.time.delay for v in streams)
    timeline = merged([v.time for v in streams], delay, streams[0].time.length)
    back = timeline.rate * (sight.span - 1)
    late = 0 if sight.early else back
    return replace(timeline, past=timeline.past + back, starts_at=timeline.starts_at + late)


def _before_the_first(ctx: Context, key: Value, complete: int, span: int) -> fx.Node:
    """Minus infinity for keys before the first, (…, 1, span): a history of ones, zero before it, tells which."""
    builder, layout = ctx.builder, key.layout
    for axis in range(layout.rank):
        if axis not in (layout.batch, layout.time):
            layout = layout.with_axis(axis, ())
    rows: list[Any] = list(layout.step.shape)
    for axis, size in enumerate(rows):
        if axis == layout.step.batch:
            count, rest = builder.batch_size(), size // builder.batch
            rows[axis] = count if rest == 1 else builder.call(operator.mul, count, rest)
    one = builder.weight(torch.ones([1] * len(rows), dtype=builder.dtype), "one")
    ones = Value(Kind.STREAM, layout, builder.call(aten.expand.default, one, rows), key.timeline)
    real = builder.call(aten.transpose.int, builder.window(ones, complete, span), -2, -1)
    zero, hidden = (builder.weight(torch.tensor(n, dtype=builder.dtype), "number") for n in (0.0, -torch.inf))
    return builder.call(aten.where.self, builder.call(aten.gt.Scalar, real, 0.0), zero, hidden)
