"""Operators that rearrange axes: labels move with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from edgeco.graph.channels.axes import Axis, Value, regrouped, still
from edgeco.graph.channels.call import Call, aten
from edgeco.graph.channels.labels import free
from edgeco.graph.channels.rules.registry import channel_rule, existing
from edgeco.graph.trace import BATCH_PRIMES


@channel_rule(*existing(("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as")))
def reshape(call: Call) -> Value:
    """Axes split and merged."""
    return reshaped(call, call.values[0], call.shape)


def reshaped(call: Call, value: Value, shape: tuple[int, ...]) -> Value:
    """A value in another shape."""
    return regrouped(call.labels, value, shape, f"only whole factors of a split axis fall, in {call.where}")


@channel_rule(*existing(("permute", "transpose", "t", "movedim", "swapaxes", "swapdims", "numpy_T", "mT")))
def permute(call: Call) -> Value:
    """Axes in another order: sizes that all differ tell where each went."""
    value = call.values[0]
    probe = torch.empty(*range(2, len(value) + 2), device="meta")
    rest = {k: v for k, v in call.args.items() if not (isinstance(v, tuple) and v is value)}
    made = call.node.target(probe, *rest.values())  # type: ignore[operator]
    return tuple(value[n - 2] for n in made.shape)


@channel_rule(aten.expand, aten.expand_as, aten.broadcast_to)
def expand(call: Call) -> Value:
    """An axis of one index becomes one of several, which are what they meet."""
    value = call.values[0]
    full = tuple(still(1) for _ in range(len(call.shape) - len(value))) + value
    return tuple(
        a if a.size == n else Axis(call.labels.fresh(n) if small(n) else free(n), silent=False)
        for a, n in zip(full, call.shape, strict=True)
    )


def small(size: int) -> bool:
    """Whether an axis may be one of channels; the traced batch is far larger."""
    return not any(size % batch == 0 for batch in BATCH_PRIMES)


@channel_rule(aten.repeat, aten.tile)
def repeat(call: Call) -> Value:
    """Axes several times over."""
    value, shape = call.values[0], call.shape
    full = tuple(still(1) for _ in range(len(shape) - len(value))) + value
    made = []
    for axis, size in zip(full, shape, strict=True):
        if axis.size == 1 and size > 1:
            made.append(Axis(call.labels.fresh(size) if small(size) else free(size), silent=False))
        else:
            made.append(replace(axis, labels=np.tile(axis.labels, (size // max(axis.size, 1), 1))))
    return tuple(made)


@channel_rule(aten.pixel_shuffle)
def pixel_shuffle(call: Call) -> Value:
    """Channels spread over r x r places each: all of them fall together."""
    value, factor = call.args["self"], call.args["upscale_factor"]
    each = factor * factor
    channels = value[-3]
    first = channels.picked(np.arange(0, channels.size, each))
    call.labels.equate(first.labels.repeat(each, axis=0), channels.labels, f"they become places, in {call.where}")
    return (*value[:-3], first, *(still(n) for n in call.shape[-2:]))


@channel_rule(aten.pixel_unshuffle)
def pixel_unshuffle(call: Call) -> Value:
    """Places that become channels: each channel is r x r of them."""
    value, factor = call.args["self"], call.args["downscale_factor"]
    labels = value[-3].labels.repeat(factor * factor, axis=0)
    return (*value[:-3], replace(value[-3], labels=labels), *(still(n) for n in call.shape[-2:]))


@channel_rule(*existing(("channel_shuffle", "native_channel_shuffle")))
def channel_shuffle(call: Call) -> Value:
    """(g, c / g) channels as (c / g, g)."""
    value, groups = call.values[0], call.args["groups"]
    size, rest = value[1].size, tuple(axis.size for axis in value[2:])
    split = reshaped(call, value, (value[0].size, groups, size // groups, *rest))
    return reshaped(call, (split[0], split[2], split[1], *split[3:]), call.shape)


@channel_rule(aten.unfold)
def unfold(call: Call) -> Value:
    """Overlapping parts of an axis, which stays."""
    value, dim = call.args["self"], call.args["dimension"] % len(call.args["self"])
    call.pin(value[dim], "it is cut into overlapping parts")
    made = [still(n) if i == dim else value[i] for i, n in enumerate(call.shape[:-1])]
    return (*made, still(call.shape[-1]))
