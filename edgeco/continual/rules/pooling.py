"""Pooling: first within the frame, then over time, so that a history keeps pooled elements only."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from edgeco.continual.builder import aten
from edgeco.continual.context import Context
from edgeco.continual.registry import rule
from edgeco.continual.rules.convolution import aligned_taps
from edgeco.continual.rules.framewise import framewise, in_batch
from edgeco.continual.rules.reduction import over_time, windowed
from edgeco.continual.value import Kind, Value
from edgeco.graph.layout import Layout

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


def _spread(value: Any, count: int) -> list[int]:
    listed = list(value) if isinstance(value, (list, tuple)) else [value]
    return listed * count if len(listed) == 1 else listed


def _options(ctx: Context, rank: int) -> Pool:
    kernel = _spread(ctx.args["kernel_size"], rank)
    stride = ctx.args.get("stride")
    return Pool(
        kernel=kernel,
        stride=_spread(stride, rank) if stride not in (None, []) else kernel,
        padding=_spread(ctx.args.get("padding", 0), rank),
        dilation=_spread(ctx.args.get("dilation", 1), rank),
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
    if in_batch(value):
        return _in_frame(ctx, value, options, kind)
    time, first = value.layout.pure_time, value.layout.rank - rank
    if time is None or time < first:
        return ctx.window("pooling whose channels hold time")
    at = time - first
    length = _size(ctx)[time]
    whole = length == 1 and options.kernel[at] == value.time.length and not options.padding[at]
    if not whole:
        _check_time(ctx, options, at, length)
    if options.divisor is not None and options.kernel[at] > 1:
        ctx.refuse("divisor_override together with a window in time", "Scale the result instead.")
    frames = _space(ctx, value, options.without(at), kind)
    if whole:
        return over_time(ctx, frames, kind)
    return _sliding(ctx, frames, options.kernel[at], options.padding[at], length, kind)


def _size(ctx: Context) -> tuple[int, ...]:
    value = ctx.node.meta["val"]
    return tuple((value[0] if isinstance(value, (tuple, list)) else value).shape)


def _check_time(ctx: Context, options: Pool, at: int, length: int) -> None:
    if options.stride[at] > 1 and length > 1:
        ctx.refuse(f"stride {options.stride[at]} in time", "Give stride 1 for the time axis.")
    if options.dilation[at] > 1 and options.kernel[at] > 1:
        ctx.refuse(f"dilation {options.dilation[at]} in time", "Use dilation 1 in time.")
    if options.padding[at] and not options.count_include_pad:
        ctx.refuse("count_include_pad=False with padding in time", "Leave the padding in time out, or count it.")


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


def _sliding(ctx: Context, value: Value, taps: int, front: int, length: int, kind: str) -> Value:
    """Pooling over the newest `taps` elements."""
    if taps == 1 and not front:
        return value
    border = None if not front else -math.inf if kind == "max" else 0.0
    value, ages, delay = aligned_taps(ctx, value, taps, front, border)
    timeline = value.time.tapped(taps, front, length, delay)
    border = value.time.border if border is None else border
    if ages[-1] == 0 and taps >= RING_FROM:
        node = windowed(ctx, value, taps, kind, border)
    else:
        node = _combine(ctx, [ctx.builder.past(value, age, border) for age in ages], kind)
    ctx.note(timeline, f"{kind} of {taps} elements")
    assert value.layout.time is not None
    return ctx.stream(node, value.layout.with_size(value.layout.time, length), timeline)


def _combine(ctx: Context, elements: list[Any], kind: str) -> Any:
    op = aten.maximum.default if kind == "max" else aten.add.Tensor
    total = elements[0]
    for element in elements[1:]:
        total = ctx.builder.call(op, total, element)
    return total if kind == "max" else ctx.builder.call(aten.mul.Tensor, total, 1.0 / len(elements))


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
    if time is not None and length not in (1, value.time.length):
        ctx.refuse(f"pooling {value.time.length} elements of time to {length}", "Pool time to 1, or keep its length.")
    space = [i for i in range(first, value.layout.rank) if i != time]
    frames = _adapt_frame(ctx, value, space, kind)
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
