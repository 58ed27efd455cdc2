"""Convolutions: a kernel of k taps in time becomes k convolutions without time, over elements of k ages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, fx

from edgeco.continual.builder import StepBuilder, aten
from edgeco.continual.context import Context
from edgeco.continual.registry import rule
from edgeco.continual.rules.framewise import framewise, in_batch
from edgeco.continual.value import Kind, Value
from edgeco.graph.layout import plain
from edgeco.graph.timeline import Border, Timeline

_CONV = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}


@rule(aten.conv1d, aten.conv2d, aten.conv3d)
def convolution(ctx: Context) -> Value | list[Value]:
    """Convolution over any axes."""
    value, weight = ctx.args["input"], ctx.args["weight"]
    if value.kind is Kind.WINDOW:
        return ctx.window()
    if weight.tensor is None or (ctx.args["bias"] is not None and ctx.args["bias"].tensor is None):
        ctx.refuse("its kernel is computed from the input", "Convolve with parameters, or multiply and sum explicitly.")
    time = value.layout.time
    if in_batch(value):
        return framewise(ctx, value)
    if value.layout.pure_time is None or time == 1 or value.layout.rank != weight.layout.rank:
        return ctx.window("a convolution whose channels hold time")
    if ctx.exact == "clip" and _pads_time(ctx, weight.tensor, time):
        return ctx.window("padding in time, of the clip's own ends")
    return _over_time(ctx, value, weight.tensor, time)


def _pads_time(ctx: Context, weight: Tensor, axis: int) -> bool:
    before, after = _padding(ctx.args["padding"], weight, spread(ctx.args["dilation"], weight.ndim - 2))
    return bool(before[axis - 2] or after[axis - 2])


def _over_time(ctx: Context, value: Value, weight: Tensor, axis: int) -> Value:
    spatial = weight.ndim - 2
    at = axis - 2
    stride, dilation = spread(ctx.args["stride"], spatial), spread(ctx.args["dilation"], spatial)
    before, after = _padding(ctx.args["padding"], weight, dilation)
    pads = (before[at], after[at])
    often = ctx.shape[axis] == 1 and not any(pads)  # a summary of the clip may be had at every step
    taps = Taps(weight.shape[axis], 1 if often else stride[at], dilation[at], pads)
    value, ages, timeline = aligned(ctx, value, taps, 0.0 if any(taps.pads) else None, ctx.shape[axis])
    border = 0.0 if any(taps.pads) else value.time.border
    elements = [ctx.builder.past(value, age, False, border) for age in ages]
    rest = [i for i in range(spatial) if i != at]
    asymmetric = [i for i in rest if before[i] != after[i]]
    if asymmetric:
        elements = [_pad(ctx.builder, e, [before[i] for i in rest], [after[i] for i in rest]) for e in elements]
        before = [0] * spatial
    node = _taps(
        ctx,
        elements,
        weight,
        axis,
        {
            "stride": [stride[i] for i in rest],
            "padding": [before[i] for i in rest],
            "dilation": [dilation[i] for i in rest],
        },
    )
    if taps.size > 1 or taps.stride > 1:
        ctx.note(timeline, taps.text)
    layout = value.layout.with_axis(1, plain([ctx.shape[1]]).axes[0])
    for i, size in enumerate(ctx.shape[2:], start=2):
        layout = layout.with_size(i, size)
    return ctx.stream(node, layout, timeline)


@dataclass(frozen=True)
class Taps:
    """A window over time: its size, stride and dilation, and the padding before and after all elements.

    `slack` more elements may be missing after the last, where the number of results is rounded up.
    """

    size: int
    stride: int = 1
    dilation: int = 1
    pads: tuple[int, int] = (0, 0)
    slack: int = 0

    @property
    def bordered(self) -> bool:
        """Whether elements outside are ever read."""
        return any(self.pads) or self.slack > 0

    @property
    def reach(self) -> int:
        """Elements from the oldest tap to the newest."""
        return self.dilation * (self.size - 1)

    @property
    def text(self) -> str:
        """In words, for the report."""
        more = f", {self.dilation} apart" if self.dilation > 1 and self.size > 1 else ""
        more += f", every {self.stride} elements" if self.stride > 1 else ""
        return f"{self.size} tap{'s' if self.size > 1 else ''}{more}"


def aligned(
    ctx: Context, value: Value, taps: Taps, border: Border | None, length: int
) -> tuple[Value, list[int], Timeline]:
    """Ages of the elements that the taps read, oldest first, and the timeline of the result.

    Explicit padding of another value than the operator's own is read as real elements first.

    Args:
        border: what the operator pads with; None if it does not.
        length: elements of the result in the clip network.
    """
    if border is not None and value.time.border is not None and value.time.border != border:
        value = ctx.ready(value)
    time = value.time
    delay = max(time.delay + time.rate * (taps.reach - taps.pads[0]), time.computable)
    newest = time.age(delay)[0]
    ages = [newest + taps.pads[0] - taps.dilation * i for i in range(taps.size)]
    pads = (taps.pads[0], taps.pads[1] + taps.slack)
    made = time.tapped(taps.size, pads, delay, stride=taps.stride, dilation=taps.dilation)
    if not any(taps.pads) and (length - 1) * taps.stride + taps.reach < time.length:
        made = replace(made, exactness=time.exactness)  # the slack is not used on this clip
    return value, ages, replace(ctx.strided(made), length=length)


def spread(value: Any, count: int) -> list[int]:
    """An option per axis, where one number may stand for all."""
    listed = list(value) if isinstance(value, (list, tuple)) else [value]
    return listed * count if len(listed) == 1 else listed


def _padding(padding: Any, weight: Tensor, dilation: list[int]) -> tuple[list[int], list[int]]:
    """Padding before and after each axis; "same" puts the odd one after."""
    sizes = weight.shape[2:]
    if padding == "valid":
        return [0] * len(sizes), [0] * len(sizes)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, sizes, strict=True)]
        return [t // 2 for t in total], [t - t // 2 for t in total]
    listed = spread(padding, len(sizes))
    return listed, list(listed)


def _pad(builder: StepBuilder, node: fx.Node, before: list[int], after: list[int]) -> fx.Node:
    pads = [n for pair in reversed(list(zip(before, after, strict=True))) for n in pair]
    return builder.call(aten.constant_pad_nd.default, node, pads, 0.0)


def _taps(ctx: Context, elements: list[fx.Node], weight: Tensor, axis: int, space: dict[str, list[int]]) -> fx.Node:
    """The sum over taps: depthwise ones added up, dense ones as one convolution over concatenated channels."""
    builder, bias, groups = ctx.builder, ctx.args["bias"], ctx.args["groups"]
    bias_node = builder.weight(bias.tensor, "bias") if bias is not None else None
    kernel = [size for i, size in enumerate(weight.shape[2:]) if i != axis - 2]
    channels = weight.shape[0]
    trivial = all(k == 1 for k in kernel) and all(s == 1 for s in space["stride"]) and not any(space["padding"])
    if trivial and groups == channels and weight.shape[1] == 1:
        return _scaled(builder, elements, weight, axis, bias_node)
    if groups == 1 and len(elements) > 1:
        joined = builder.call(aten.cat.default, elements, 1)
        fused = builder.weight(weight, "taps", lambda w: w.movedim(axis, 1).flatten(1, 2))
        return _conv(builder, joined, fused, bias_node, space, groups)
    total: fx.Node | None = None
    for i, element in enumerate(elements):
        tap = builder.weight(weight, f"tap{i}", lambda w, i=i: w.select(axis, i))  # type: ignore[misc]
        part = _conv(builder, element, tap, bias_node if i == 0 else None, space, groups)
        total = part if total is None else builder.call(aten.add.Tensor, total, part)
    assert total is not None
    return total


def _conv(
    builder: StepBuilder, node: fx.Node, weight: fx.Node, bias: fx.Node | None, space: dict[str, list[int]], groups: int
) -> fx.Node:
    rank = len(space["stride"])
    if rank:
        return builder.call(
            _CONV[rank], node, weight, bias, space["stride"], space["padding"], space["dilation"], groups
        )
    if groups == 1:
        return builder.call(aten.linear.default, node, weight, bias)
    line = builder.call(aten.unsqueeze.default, node, -1)
    kernel = builder.call(aten.unsqueeze.default, weight, -1)
    return builder.call(
        aten.squeeze.dim, builder.call(aten.conv1d.default, line, kernel, bias, [1], [0], [1], groups), -1
    )


def _scaled(builder: StepBuilder, elements: list[fx.Node], weight: Tensor, axis: int, bias: fx.Node | None) -> fx.Node:
    """Depthwise in time alone: a multiply and an add per tap and element."""
    rank = weight.ndim - 3

    def column(w: Tensor) -> Tensor:
        return w.reshape(-1, *[1] * rank)

    total: fx.Node | None = None
    for i, element in enumerate(elements):
        scale = builder.weight(weight, f"scale{i}", lambda w, i=i: column(w.select(axis, i)))  # type: ignore[misc]
        part = builder.call(aten.mul.Tensor, element, scale)
        total = part if total is None else builder.call(aten.add.Tensor, total, part)
    assert total is not None
    if bias is None:
        return total
    owner = builder.tensors[str(bias.target)]
    return builder.call(aten.add.Tensor, total, builder.weight(owner, "shift", column))


__all__ = ["Taps", "aligned", "convolution", "spread"]
