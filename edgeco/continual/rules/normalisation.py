"""Normalisation: by stored statistics it is a scale and a shift; by statistics over time it needs a live window."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from edgeco.continual.builder import aten
from edgeco.continual.context import Context
from edgeco.continual.registry import rule
from edgeco.continual.rules.framewise import framewise, in_batch
from edgeco.continual.value import Kind, Value


def scale_and_shift(
    weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Batch norm in evaluation as ``x * scale + shift``, per channel, computed in double precision."""
    scale = 1.0 / torch.sqrt(variance.double() + eps)
    if weight is not None:
        scale = scale * weight.double()
    shift = -mean.double() * scale
    if bias is not None:
        shift = shift + bias.double()
    return scale.to(mean.dtype), shift.to(mean.dtype)


@rule(aten._native_batch_norm_legit_no_training)
def functional_batch_norm(ctx: Context) -> Value | list[Value]:
    """Batch norm by its stored statistics, as a functional graph spells it: with two more, empty results."""
    made = batch_norm(ctx)
    return made if isinstance(made, list) else [made]


@rule(aten.batch_norm)
def batch_norm(ctx: Context) -> Value | list[Value]:
    """Batch norm by its stored statistics."""
    if ctx.args.get("training") or ctx.args["running_mean"] is None:
        batch_norm_in_training(ctx)
    value = ctx.args["input"]
    if value.kind is Kind.WINDOW or value.layout.time == 1:
        return ctx.window("a batch norm whose channels hold time")
    known: list[Any] = [
        ctx.args[k].tensor if ctx.args[k] is not None else None
        for k in ("weight", "bias", "running_mean", "running_var")
    ]
    weight, bias, mean, variance = known
    scale, shift = scale_and_shift(weight, bias, mean, variance, ctx.args["eps"])
    ready = ctx.ready(value)
    shape = [-1] + [1] * (value.layout.step.rank - 2)
    builder = ctx.builder
    node = builder.call(aten.mul.Tensor, ready.node, builder.weight(scale.reshape(shape), "scale"))
    node = builder.call(aten.add.Tensor, node, builder.weight(shift.reshape(shape), "shift"))
    return ctx.stream(node, value.layout, ready.time)


@rule(
    aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_functional,
    aten.native_batch_norm,
    aten._batch_norm_with_update_functional,
)
def batch_norm_in_training(ctx: Context) -> NoReturn:
    """Batch norm by the statistics of the batch."""
    ctx.refuse(
        "it normalises by the statistics of the batch",
        "Set track_running_stats=True, so that stored statistics are used.",
    )


@rule(aten.layer_norm, aten.rms_norm)
def layer_norm(ctx: Context) -> Value | list[Value]:
    """Norm over the last axes."""
    value = ctx.args["input"]
    first = value.layout.rank - len(ctx.args["normalized_shape"])
    time = value.layout.time
    if value.kind is Kind.WINDOW or (time is not None and time >= first):
        return ctx.window("a norm over time")
    ready = ctx.ready(value)
    return ctx.stream(ctx.emit({}, {id(value): ctx.builder.node(ready)}), value.layout, ready.time)


@rule(aten.group_norm, aten.instance_norm)
def group_norm(ctx: Context) -> Value | list[Value]:
    """Norm over groups of channels and all other axes: of one frame if time lies in the batch, else of the window."""
    value = ctx.args["input"]
    if value.kind is Kind.STREAM and in_batch(value):
        return framewise(ctx, value)
    return ctx.window("a norm over time")
