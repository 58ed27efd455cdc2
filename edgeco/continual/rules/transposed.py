"""Transposed convolutions: with a stride in time another part of the kernel for every remainder of the step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, fx

from edgeco.continual.builder import aten
from edgeco.continual.context import Context
from edgeco.continual.registry import rule
from edgeco.continual.rules.convolution import spread
from edgeco.continual.rules.framewise import framewise, in_batch, refuse_time
from edgeco.continual.rules.resizing import check_factor
from edgeco.continual.value import Kind, Value
from edgeco.graph.layout import plain

_CONV = {1: aten.conv_transpose1d.default, 2: aten.conv_transpose2d.input}


@rule(aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d)
def transposed_convolution(ctx: Context) -> Value | list[Value]:
    """Transposed convolution over any axes."""
    value, weight, bias = ctx.args["input"], ctx.args["weight"], ctx.args["bias"]
    if value.kind is Kind.WINDOW:
        return ctx.window()
    if weight.tensor is None or (bias is not None and bias.tensor is None):
        ctx.refuse("its kernel is computed from the input", "Convolve with parameters, or multiply and sum explicitly.")
    if in_batch(value):
        return framewise(ctx, value)
    time = value.layout.pure_time
    if time is None or time < 2 or value.layout.rank != weight.layout.rank:
        refuse_time(ctx)
    options = _Options.of(ctx, weight.tensor, time)
    if (ctx.exact == "clip" and options.bordered) or (ctx.exact in ("rounds", "clip") and options.stride > 1):
        return ctx.window("a transposed convolution within the clip")
    check_factor(ctx, value, options.stride)
    return _over_time(ctx, ctx.ready(value), options, weight.tensor, time)


@dataclass(frozen=True)
class _Options:
    """What a transposed convolution does along time."""

    taps: int
    stride: int
    dilation: int
    crop: int
    more: int

    @staticmethod
    def of(ctx: Context, weight: Tensor, time: int) -> _Options:
        names = ("stride", "dilation", "padding", "output_padding")
        given = [spread(ctx.args[name], weight.ndim - 2)[time - 2] for name in names]
        return _Options(weight.shape[time], *given)

    @property
    def reach(self) -> int:
        return self.dilation * (self.taps - 1)

    @property
    def bordered(self) -> bool:
        """Whether elements outside are ever read."""
        return self.reach >= self.stride or self.reach + self.more - self.crop >= self.stride

    def parts(self, remainder: int) -> list[tuple[int, int]]:
        """Ages and taps that meet at the places with this remainder modulo the stride."""
        found = []
        for tap in range(self.taps):
            age, rest = divmod(self.dilation * tap - remainder, self.stride)
            if rest == 0 and age >= 0:
                found.append((age, tap))
        return found


def _over_time(ctx: Context, value: Value, options: _Options, weight: Tensor, axis: int) -> Value:
    builder = ctx.builder
    border = 0.0 if options.bordered else None
    layout = value.layout.with_axis(1, plain([ctx.shape[1]]).axes[0])
    for i, size in enumerate(ctx.shape[2:], start=2):
        layout = layout.with_size(i, size)
    apply = _tap(ctx, weight, axis)
    choices = []
    for remainder in range(options.stride):
        total: fx.Node | None = None
        for age, tap in options.parts(remainder):
            part = apply(builder.past(value, age, remainder > 0, border), tap, total is None)
            total = part if total is None else builder.call(aten.add.Tensor, total, part)
        choices.append(total if total is not None else _bias_alone(ctx, weight, layout.step.shape))
    timeline = value.time.transposed(options.stride, options.reach, options.crop, options.more)
    more = f", in {options.stride} steps in turn" if options.stride > 1 else ""
    ctx.note(timeline, f"{options.taps} tap{'s' if options.taps > 1 else ''}, transposed{more}")
    return ctx.stream(builder.turns(choices, value.time), layout, timeline)


def _tap(ctx: Context, weight: Tensor, axis: int) -> Callable[[fx.Node, int, bool], fx.Node]:
    """What multiplies an element by one tap, and adds the bias if it is the first."""
    builder, bias, groups = ctx.builder, ctx.args["bias"], ctx.args["groups"]
    rest = [i for i in range(weight.ndim - 2) if i != axis - 2]
    stride, padding, more, dilation = (
        [spread(ctx.args[name], weight.ndim - 2)[i] for i in rest]
        for name in ("stride", "padding", "output_padding", "dilation")
    )

    def apply(element: fx.Node, tap: int, first: bool) -> fx.Node:
        added = builder.weight(bias.tensor, "bias") if bias is not None and first else None
        if not rest and groups == 1:
            return builder.call(
                aten.linear.default,
                element,
                builder.weight(weight, f"tap{tap}", lambda w: w.select(axis, tap).T),
                added,
            )
        if rest:
            kernel = builder.weight(weight, f"tap{tap}", lambda w: w.select(axis, tap))
            return builder.call(_CONV[len(rest)], element, kernel, added, stride, padding, more, groups, dilation)
        kernel = builder.weight(weight, f"tap{tap}", lambda w: w.select(axis, tap).unsqueeze(-1))
        line = builder.call(aten.unsqueeze.default, element, -1)
        made = builder.call(_CONV[1], line, kernel, added, [1], [0], [0], groups, [1])
        return builder.call(aten.squeeze.dim, made, -1)

    return apply


def _bias_alone(ctx: Context, weight: Tensor, shape: tuple[int, ...]) -> fx.Node:
    """What stands at a place that no tap reaches: the bias, for every row."""
    builder, bias = ctx.builder, ctx.args["bias"]
    flat = [1, -1, *[1] * (len(shape) - 2)]
    column = (
        builder.weight(weight, "nothing", lambda w: w.new_zeros(shape[1]).reshape(flat))
        if bias is None
        else builder.weight(bias.tensor, "alone", lambda b: b.reshape(flat))
    )
    return builder.call(aten.expand.default, column, [builder.batch_size(), *shape[1:]])
