"""Operators along given axes: summaries of them, orders on them, pools and resizing of places."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from edgeco.graph.channels.axes import Axis, Value, joined, still
from edgeco.graph.channels.call import Call, aten
from edgeco.graph.channels.rules.pointwise import pointwise
from edgeco.graph.channels.rules.registry import channel_rule, existing


def _dims(call: Call, rank: int) -> list[int]:
    """The axes an operator works along; all if it names none."""
    given: Any = call.args.get("dim", call.args.get("axis"))
    if given is None or (isinstance(given, (list, tuple)) and not given):
        return list(range(rank))
    return [d % rank for d in (given if isinstance(given, (list, tuple)) else [given])] if rank else []


def _reduced(call: Call, value: Value, dims: list[int]) -> Value:
    if call.args.get("keepdim"):
        return tuple(still(1) if i in dims else axis for i, axis in enumerate(value))
    return tuple(axis for i, axis in enumerate(value) if i not in dims)


@channel_rule(*existing(("sum", "nansum", "linalg_vector_norm", "norm")))
def total(call: Call) -> Value:
    """Sums, and lengths of vectors: what is zero does not count."""
    value = call.values[0]
    dims = _dims(call, len(value))
    for i in dims:
        if not value[i].silent:
            call.summarise(value[i], "a sum over it counts what is removed")
    return _reduced(call, value, dims)


@channel_rule(*existing(("mean", "amax", "amin", "var", "std", "prod", "logsumexp", "max", "min", "median", "any")))
def summary(call: Call) -> Value | list[Value | None]:
    """Means and extremes: of fewer indices they are others."""
    value = call.values[0]
    others = [other for other in call.values[1:] if other]
    if others:  # the greater of two values
        return pointwise(call)
    dims = _dims(call, len(value))
    for i in dims:
        call.summarise(value[i], "a summary is taken over it")
    made = _reduced(call, value, dims)
    if "logsumexp" in str(call.node.target):  # the only one of them that makes something of nothing
        made = tuple(axis.loud() for axis in made)
    return made if isinstance(call.node.meta["val"], Tensor) else [made for _ in call.node.meta["val"]]


@channel_rule(
    *existing(
        (
            *("softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum", "cumprod", "logcumsumexp", "flip"),
            *("cummax", "cummin", "sort", "topk", "argsort", "argmax", "argmin", "roll", "gather", "renorm"),
        )
    )
)
def along(call: Call) -> Value | list[Value | None]:
    """Operators whose order or extent along an axis matters: that axis stays."""
    value = call.values[0]
    given = call.args.get("dim", call.args.get("dims"))
    listed = given if isinstance(given, (list, tuple)) else [given if given is not None else -1]
    dims = [d % len(value) for d in listed]
    for other in call.values[1:]:
        call.pin(other, "indices are picked by it")
    call.pin([value[i] for i in dims], "its indices are ordered or weighed against each other")
    quiet = call.zero_of_zeros() or all(axis.fixed for i, axis in enumerate(value) if i not in dims)

    def shaped(shape: tuple[int, ...]) -> Value:
        full = shape if len(shape) == len(value) else None
        kept = [axis if quiet else axis.loud() for axis in value]
        if full is None:
            return tuple(axis for i, axis in enumerate(kept) if i not in dims)
        return tuple(still(n) if i in dims else kept[i] for i, n in enumerate(full))

    if isinstance(call.node.meta["val"], Tensor):
        return shaped(call.shape)
    return [None if shape is None else shaped(shape) for shape in call.shapes]


@channel_rule(
    *existing(
        (
            *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
            *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d"),
            *("adaptive_max_pool2d", "adaptive_max_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
            *("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices"),
        )
    )
)
def pool(call: Call) -> Value | list[Value | None]:
    """Pools over the last axes."""
    value = call.values[0]
    name = str(getattr(call.node.target, "overloadpacket", ""))
    places = next(d for d in (1, 2, 3) if f"pool{d}d" in name)

    def shaped(shape: tuple[int, ...]) -> Value:
        return (*value[:-places], *(still(n) for n in shape[-places:]))

    call.pin(value[-places:], "it is pooled over")
    if isinstance(call.node.meta["val"], Tensor):
        return shaped(call.shape)
    return [None if shape is None else shaped(shape) for shape in call.shapes]


@channel_rule(
    *existing(
        (
            *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d"),
            *("upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d"),
            *("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d"),
        )
    )
)
def resized(call: Call) -> Value:
    """Resizing of places."""
    value = call.values[0]
    call.pin(value[2:])
    return (*value[:2], *(still(n) for n in call.shape[2:]))


@channel_rule(*existing(("reflection_pad1d", "reflection_pad2d", "reflection_pad3d")))
@channel_rule(*existing(("replication_pad1d", "replication_pad2d", "replication_pad3d")))
def mirrored(call: Call) -> Value:
    """Padding by what is there, of the last axes."""
    value = call.values[0]
    moved = len(call.args["padding"]) // 2
    call.pin(value[-moved:])
    return (*value[:-moved], *(still(n) for n in call.shape[-moved:]))


@channel_rule(aten.pad, aten.constant_pad_nd)
def padded(call: Call) -> Value:
    """Padding: what is put beside an axis of channels stays."""
    value, amounts = call.args["self"], list(call.args["pad"])
    mode, filled = call.args.get("mode", "constant"), call.args.get("value")
    made: list[Axis] = list(value)
    for n in range(len(amounts) // 2):
        i = len(value) - 1 - n
        before, after = amounts[2 * n], amounts[2 * n + 1]
        if not before and not after:
            continue
        if mode != "constant" or min(before, after) < 0 or value[i].fixed:
            call.pin(value[i], "it is padded, or cut, by fixed numbers")
            made[i] = still(call.shape[i])
            continue
        made[i] = replace(value[i], labels=joined([still(before).labels, value[i].labels, still(after).labels]))
    return tuple(axis.loud() for axis in made) if filled else tuple(made)


@channel_rule(aten.glu)
def gated(call: Call) -> Value:
    """One half gated by the other: both lose the same indices."""
    value, dim = call.args["self"], call.args["dim"] % len(call.args["self"])
    half = value[dim].size // 2
    call.tie(value[dim].labels, half)
    return tuple(axis.picked(slice(0, half)) if i == dim else axis for i, axis in enumerate(value))


@channel_rule(aten.repeat_interleave)
def repeated(call: Call) -> Value | list[Value | None]:
    """Every index so many times."""
    value, dim, times = call.args["self"], call.args.get("dim"), call.args.get("repeats")
    if dim is None or not isinstance(times, int):
        return call.unknown()
    dim %= len(value)
    labels = value[dim].labels.repeat(times, axis=0)
    return tuple(replace(axis, labels=labels) if i == dim else axis for i, axis in enumerate(value))
