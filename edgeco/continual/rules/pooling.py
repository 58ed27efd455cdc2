"""Pooling: first within the frame, then over time, so that a history keeps pooled elements only."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from edgeco.continual.builder import aten
from edgeco.continual.context import Context
from edgeco.continual.registry import rule
from edgeco.continual.rules.convolution import Taps, aligned, spread
from edgeco.continual.rules.framewise import framewise, in_batch
from edgeco.continual.rules.reduction import over_time, windowed
from edgeco.continual.value import Kind, Value
from edgeco.graph.layout import Layout
from edgeco.graph.timeline import Border, Timeline

_AVG = {1: aten.avg_pool1d.default, 2: aten.avg_pool2d.default}
_MAX = {1: aten.max_pool1d.default, 2: aten.max_pool2d.default}
_ADAPTIVE_AVG = {1: aten.adaptive_avg_pool1d.default, 2: aten.adaptive_avg_pool2d.default}

RING_FROM = 5
"""Taps from which a ring (one copy a step) is cheaper than as many slot inputs."""


@dataclass(frozen=True)
class Pool:
    """A pooling operator's options, one entry per pooled axis."""

    kernel: list[int]
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    ceil_mode: bool
    count_include_pad: bool
    divisor: int | None

    def without(self, axis: int) -> Pool:
        """The options of the other axes."""
        rest = [i for i in range(len(self.kernel)) if i != axis]
        kernel, stride, padding, dilation = (
            [x[i] for i in rest] for x in (self.kernel, self.stride, self.padding, self.dilation)
        )
        return Pool(kernel, stride, padding, dilation, self.ceil_mode, self.count_include_pad, self.divisor)

    @property
    def idle(self) -> bool:
        return all(n == 1 for n in self.kernel + self.stride) and not any(self.padding)


def _pooled_axes(op: str) -> int:
    """How many axes an operator pools, by its name: 2 for ``aten.max_pool2d_with_indices``."""
    found = re.search(r"pool(\d)d", op)
    assert found is not None
    return int(found[1])


def _options(ctx: Context, rank: int) -> Pool:
    kernel = spread(ctx.args["kernel_size"], rank)
    stride = ctx.args.get("stride")
    return Pool(
        kernel=kernel,
        stride=spread(stride, rank) if stride not in (None, []) else kernel,
        padding=spread(ctx.args.get("padding", 0), rank),
        dilation=spread(ctx.args.get("dilation", 1), rank),
        ceil_mode=bool(ctx.args.get("ceil_mode", False)),
        count_include_pad=bool(ctx.args.get("count_include_pad", True)),
        divisor=ctx.args.get("divisor_override"),
    )


@rule(aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d)
def average(ctx: Context) -> Value | list[Value]:
    """Average pooling."""
    return _pool(ctx, "mean")


@rule(aten.max_pool1d, aten.max_pool2d, aten.max_pool3d)
def maximum(ctx: Context) -> Value | list[Value]:
    """Max pooling: what lies outside is minus infinity, not zero."""
    return _pool(ctx, "max")


@rule(aten.max_pool2d_with_indices, aten.max_pool3d_with_indices)
def maximum_with_indices(ctx: Context) -> Value | list[Value]:
    """Max pooling whose indices nobody reads."""
    if any(user.args[1] == 1 for user in ctx.node.users):
        ctx.refuse("its indices count within the clip", "Use the pooled values only.")
    made = _pool(ctx, "max")
    return made if isinstance(made, list) else [made]


def _pool(ctx: Context, kind: str) -> Value | list[Value]:
    value = ctx.values[0]
    rank = _pooled_axes(ctx.op)
    options = _options(ctx, rank)
    if value.kind is Kind.WINDOW:
        return ctx.window()
    if value.layout.rank != rank + 2:
        ctx.refuse("it pools a tensor that lacks the axis of the batch or of channels", "Give it both, by unsqueeze.")
    if in_batch(value):
        return _in_frame(ctx, value, options, kind)
    time, first = value.layout.pure_time, value.layout.rank - rank
    if time is None or time < first:
        return ctx.window("pooling whose channels hold time")
    at = time - first
    length = _size(ctx)[time]
    if ctx.exact == "clip" and (options.padding[at] or options.ceil_mode):
        return ctx.window("padding in time, of the clip's own ends")
    whole = length == 1 and options.kernel[at] == value.time.length and not options.padding[at]
    if options.divisor is not None and options.kernel[at] > 1:
        ctx.refuse("divisor_override together with a window in time", "Scale the result instead.")
    frames = _space(ctx, value, options.without(at), kind)
    return over_time(ctx, frames, kind) if whole else _sliding(ctx, frames, options, at, length, kind)


def _size(ctx: Context) -> tuple[int, ...]:
    value = ctx.node.meta["val"]
    return tuple((value[0] if isinstance(value, (tuple, list)) else value).shape)


def _in_frame(ctx: Context, value: Value, options: Pool, kind: str) -> Value:
    """Pooling of a value whose time lies in the batch axis."""
    if isinstance(ctx.node.meta["val"], (tuple, list)):  # max pooling that also returns indices
        ready = ctx.ready(value)
        node = ctx.builder.call(
            aten.max_pool2d.default,
            ready.node,
            options.kernel,
            options.stride,
            options.padding,
            options.dilation,
            options.ceil_mode,
        )
        layout = value.layout
        for i in range(1, value.layout.rank):
            layout = layout.with_size(i, _size(ctx)[i])
        return ctx.stream(node, layout, ready.time)
    return framewise(ctx, value)


def _space(ctx: Context, value: Value, options: Pool, kind: str) -> Value:
    """The pooling of each frame by itself."""
    if options.idle:
        return value
    ready = ctx.ready(value)
    rank = len(options.kernel)
    if kind == "max":
        node = ctx.builder.call(
            _MAX[rank], ready.node, options.kernel, options.stride, options.padding, options.dilation, options.ceil_mode
        )
    else:
        more = [options.divisor] if rank == 2 else []
        node = ctx.builder.call(
            _AVG[rank], ready.node, options.kernel, options.stride, options.padding, options.ceil_mode,
            options.count_include_pad, *more,
        )  # fmt: skip
    return ctx.stream(node, _frame_layout(ctx, value), ready.time)


def _frame_layout(ctx: Context, value: Value) -> Layout:
    """The value's layout with the sizes of the result, but for time."""
    layout = value.layout
    for i, size in enumerate(_size(ctx)):
        if i != layout.time:
            layout = layout.with_size(i, size) if layout.shape[i] != size else layout
    return layout


def _sliding(ctx: Context, value: Value, options: Pool, at: int, length: int, kind: str) -> Value:
    """Pooling over a few of the newest elements."""
    taps = _taps(ctx, value, options, at, length)
    if (taps.size, taps.stride) == (1, 1) and not taps.bordered:
        return value
    if kind == "mean" and taps.bordered and (taps.slack or not options.count_include_pad):
        return _mean_of_real(ctx, ctx.ready(value), taps, length)
    made, timeline = _over(ctx, value, taps, length, kind)
    ctx.note(timeline, f"{kind} of {taps.text.replace('tap', 'element')}")
    assert value.layout.time is not None
    return ctx.stream(made, value.layout.with_size(value.layout.time, length), timeline)


def _taps(ctx: Context, value: Value, options: Pool, at: int, length: int) -> Taps:
    """The window over time; where the length is rounded up, the last window reaches beyond the padding."""
    size, padding, dilation = options.kernel[at], options.padding[at], options.dilation[at]
    stride = options.stride[at] if length > 1 or padding else 1  # a summary of the clip may be had at every step
    if dilation * (size - 1) >= value.time.length + 2 * padding:
        ctx.refuse(f"its window of {size} elements is longer than what it pools", "Pool over no more than there is.")
    slack = min(stride - 1, dilation * (size - 1) - padding) if options.ceil_mode else 0
    if slack and padding and options.count_include_pad and "avg" in ctx.op:
        ctx.refuse("ceil_mode together with counted padding in time", "Leave one of them out.")
    return Taps(size, stride, dilation, (padding, padding), slack)


def _over(ctx: Context, value: Value, taps: Taps, length: int, kind: str) -> tuple[fx.Node, Timeline]:
    """Mean, sum or max of the elements that the taps read."""
    border: Border | None = (-math.inf if kind == "max" else 0.0) if taps.bordered else None
    value, ages, timeline = aligned(ctx, value, taps, border, length)
    border = value.time.border if border is None else border
    if ages[-1] == 0 and taps.size >= RING_FROM and taps.dilation == 1:
        return windowed(ctx, value, taps.size, kind, border), timeline
    elements = [ctx.builder.past(value, age, False, border) for age in ages]
    total = elements[0]
    for element in elements[1:]:
        total = ctx.builder.call(aten.maximum.default if kind == "max" else aten.add.Tensor, total, element)
    scaled = kind == "mean" and len(elements) > 1
    return ctx.builder.call(aten.mul.Tensor, total, 1.0 / len(elements)) if scaled else total, timeline


def _mean_of_real(ctx: Context, value: Value, taps: Taps, length: int) -> Value:
    """The mean of the elements that are no padding: their sum over their number, kept as a history of ones."""
    builder, layout = ctx.builder, value.layout
    if layout.batch != 0 or len(layout.axes[0]) != 1 or layout.time is None:
        ctx.refuse(
            "a mean that leaves out padding, with rows merged into the batch", "Count the padding, or pool before."
        )
    ones = layout
    for axis in range(1, layout.rank):
        ones = ones if axis == layout.time else ones.with_axis(axis, ()).with_size(axis, 1)
    one = builder.weight(torch.ones([1] * ones.step.rank, dtype=builder.dtype), "one")
    spread = builder.call(aten.expand.default, one, [builder.batch_size(), *ones.step.shape[1:]])
    total, timeline = _over(ctx, value, taps, length, "sum")
    count, _ = _over(ctx, ctx.stream(spread, ones, value.time), taps, length, "sum")
    count = builder.call(aten.clamp_min.default, count, 1.0)  # where nothing is real yet, nothing is valid
    ctx.note(timeline, f"mean of {taps.text.replace('tap', 'element')}, padding left out")
    node = builder.call(aten.div.Tensor, total, count)
    return ctx.stream(node, layout.with_size(layout.time, length), timeline)


@rule(aten.adaptive_avg_pool1d, aten.adaptive_avg_pool2d, aten.adaptive_avg_pool3d)
def adaptive_average(ctx: Context) -> Value | list[Value]:
    """Adaptive average pooling to one element of time, or to as many as there are."""
    return _adaptive(ctx, "mean")


@rule(aten.adaptive_max_pool1d, aten.adaptive_max_pool2d, aten.adaptive_max_pool3d)
def adaptive_maximum(ctx: Context) -> Value | list[Value]:
    """Adaptive max pooling, values only."""
    if any(user.args[1] == 1 for user in ctx.node.users):
        ctx.refuse("its indices count within the clip", "Use the pooled values only.")
    made = _adaptive(ctx, "max")
    return made if isinstance(made, list) else [made]


def _adaptive(ctx: Context, kind: str) -> Value | list[Value]:
    value = ctx.values[0]
    if value.kind is Kind.WINDOW:
        result = ctx.window()
        return result[0] if isinstance(result, list) else result
    rank = _pooled_axes(ctx.op)
    first = value.layout.rank - rank
    time = value.layout.pure_time
    if (time is not None and time < first) or (not in_batch(value) and time is None):
        return ctx.window("pooling whose channels hold time")
    length = None if time is None else _size(ctx)[time]
    several = length not in (None, 1, value.time.length)
    if several and value.time.length % (length or 1):
        return ctx.window(f"{value.time.length} elements of time pooled to {length}")
    space = [i for i in range(first, value.layout.rank) if i != time]
    frames = _adapt_frame(ctx, value, space, kind)
    if several:
        assert time is not None and length is not None
        size = value.time.length // length
        taps = Taps(size, size)
        node, timeline = _over(ctx, frames, taps, length, kind)
        ctx.note(timeline, f"{kind} of {taps.text.replace('tap', 'element')}")
        return ctx.stream(node, frames.layout.with_size(time, length), timeline)
    return over_time(ctx, frames, kind) if length == 1 else frames


def _adapt_frame(ctx: Context, value: Value, axes: list[int], kind: str) -> Value:
    """Adaptive pooling within the frame: to one element a plain reduction, else the operator without time."""
    sizes = [_size(ctx)[i] for i in axes]
    if all(value.layout.shape[i] == n for i, n in zip(axes, sizes, strict=True)):
        return value
    ready = ctx.ready(value)
    steps = [value.layout.step_axis(i) for i in axes]
    if all(n == 1 for n in sizes):
        op = aten.mean.dim if kind == "mean" else aten.amax.default
        node = ctx.builder.call(op, ready.node, steps, True)
    elif kind == "mean" and len(sizes) in _ADAPTIVE_AVG:
        node = ctx.builder.call(_ADAPTIVE_AVG[len(sizes)], ready.node, sizes)
    else:
        node = _adaptive_max(ctx, value, ready, axes, sizes)
    return ctx.stream(node, _frame_layout(ctx, value), ready.time)


def _adaptive_max(ctx: Context, value: Value, ready: Value, axes: list[int], sizes: list[int]) -> Any:
    """Adaptive pooling to sizes that divide the frame is pooling with stride = kernel."""
    shape = [value.layout.shape[i] for i in axes]
    if any(n % size for n, size in zip(shape, sizes, strict=True)) or len(sizes) > 2:
        ctx.refuse(f"adaptive pooling of {tuple(shape)} to {tuple(sizes)}", "Pool to sizes that divide the frame.")
    kernel = [n // size for n, size in zip(shape, sizes, strict=True)]
    return ctx.builder.call(_MAX[len(sizes)], ready.node, kernel, kernel)
