"""Operators that pick, cut, join and write parts of axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgeco.graph.channels.axes import Axis, Value, joined, still
from edgeco.graph.channels.call import Call, aten
from edgeco.graph.channels.labels import NOTHING, Array
from edgeco.graph.channels.rules.registry import channel_rule

_PICKED = "the network's code picks a fixed index of it"


@channel_rule(aten.slice, aten.narrow)
def slice_(call: Call) -> Value:
    """A part of an axis."""
    value = call.args["self"]
    dim = call.args["dim"] % len(value)
    part = _part(call, value[dim].size)
    _bound(call, value[dim], part)
    return tuple(axis.picked(part) if i == dim else axis for i, axis in enumerate(value))


def _part(call: Call, size: int) -> slice:
    """Start, end and step of a slice, as Python counts them."""
    start = call.args["start"] or 0
    end = start + call.args["length"] if "length" in call.args else call.args["end"]
    return slice(*slice(start, end, call.args.get("step", 1)).indices(size))


def _bound(call: Call, axis: Axis, part: slice) -> None:
    if part.step != 1:
        call.pin(axis, "the network's code takes every so manieth of it")
        return
    behind = isinstance(call.args["start"], int) and call.args["start"] < 0
    if behind and call.node.name in call.findings.rigid:
        call.pin(axis.picked(slice(part.start, axis.size)), "the network's code cuts it at a fixed place")
        return
    call.cut(axis, (part.start, part.stop))


@channel_rule(aten.select, aten.unbind)
def select(call: Call) -> Value | list[Value | None]:
    """One index of an axis, or each by itself."""
    value = call.args["self"]
    dim = call.args["dim"] % len(value)
    call.pin(value[dim], _PICKED)
    made = tuple(axis for i, axis in enumerate(value) if i != dim)
    return [made] * value[dim].size if isinstance(call.node.meta["val"], (tuple, list)) else made


@channel_rule(aten.split, aten.split_with_sizes, aten.chunk, aten.tensor_split, aten.unsafe_split, aten.unsafe_chunk)
def split(call: Call) -> list[Value | None]:
    """An axis cut into parts: equal ones lose equal places."""
    value = call.args["self"]
    dim = call.args.get("dim", 0) % len(value)
    sizes = [shape[dim] for shape in call.shapes if shape is not None]
    ends = np.cumsum(sizes).tolist()
    call.cut(value[dim], ends)
    parts: list[Value | None] = []
    for end, size in zip(ends, sizes, strict=True):
        part = value[dim].picked(slice(end - size, end))
        parts.append(tuple(part if i == dim else axis for i, axis in enumerate(value)))
    return parts


@channel_rule(aten.cat, aten.concat, aten.concatenate)
def cat(call: Call) -> Value:
    """Axes end to end."""
    values: Sequence[Value] = [v for v in call.args["tensors"] if len(v) == len(call.shape)]
    dim = call.args["dim"] % len(call.shape)
    return tuple(
        _end_to_end([v[i] for v in values]) if i == dim else call.unite([v[i] for v in values])
        for i in range(len(call.shape))
    )


def _end_to_end(axes: Sequence[Axis]) -> Axis:
    sources = frozenset[tuple[str, int]]().union(*(axis.sources for axis in axes))
    return Axis(joined([axis.labels for axis in axes]), all(axis.silent for axis in axes), sources)


@channel_rule(aten.stack)
def stack(call: Call) -> Value:
    """Values side by side along a new axis, of which none falls."""
    values = call.args["tensors"]
    dim = call.args["dim"] % len(call.shape)
    together = [call.unite([v[i] for v in values]) for i in range(len(call.shape) - 1)]
    return (*together[:dim], still(len(values)), *together[dim:])


@channel_rule(aten.slice_scatter)
def slice_scatter(call: Call) -> Value:
    """A part of an axis overwritten."""
    value, source = call.args["self"], call.args["src"]
    dim = call.args["dim"] % len(value)
    part = _part(call, value[dim].size)
    _bound(call, value[dim], part)
    return _written(call, value, source, dim, np.arange(value[dim].size)[part])


@channel_rule(aten.select_scatter)
def select_scatter(call: Call) -> Value:
    """One index of an axis overwritten."""
    value, dim = call.args["self"], call.args["dim"] % len(call.args["self"])
    call.pin(value[dim], _PICKED)
    source = (*call.args["src"][:dim], still(1), *call.args["src"][dim:])
    return _written(call, value, source, dim, np.array([call.args["index"] % value[dim].size]))


def _written(call: Call, value: Value, source: Value, dim: int, places: Array) -> Value:
    made = []
    for i, (axis, new) in enumerate(zip(value, source, strict=True)):
        if i != dim:
            made.append(call.unite([axis, new]))
            continue
        columns = max(axis.labels.shape[1], new.labels.shape[1])
        labels = np.full((axis.size, columns), NOTHING)
        labels[:, : axis.labels.shape[1]] = axis.labels
        labels[places] = NOTHING
        labels[places, : new.labels.shape[1]] = new.labels
        made.append(replace(axis, labels=labels, silent=axis.silent and new.silent))
    return tuple(made)


@channel_rule(aten.index_select)
def index_select(call: Call) -> Value:
    """Indices of an axis by their numbers."""
    value, dim = call.args["self"], call.args["dim"] % len(call.args["self"])
    call.pin(value[dim], _PICKED)
    return tuple(still(call.shape[i]) if i == dim else axis for i, axis in enumerate(value))


@channel_rule(aten.embedding)
def embedding(call: Call) -> Value:
    """Rows of a table by their numbers."""
    weight, indices = call.args["weight"], call.args["indices"]
    call.pin(weight[0], _PICKED)
    call.produce(weight[1].sources)
    return (*indices, replace(weight[1], sources=frozenset()))


@channel_rule(aten.index)
def index(call: Call) -> Value | list[Value | None]:
    """Indices of some axes by numbers; the other axes are as they were."""
    value, given = call.args["self"], list(call.args["indices"])
    given += [None] * (len(value) - len(given))
    named = [i for i, item in enumerate(given) if item is not None]
    if named != list(range(named[0], named[-1] + 1)):
        return call.unknown()
    call.pin([value[i] for i in named], _PICKED)
    for item in given:
        if item is not None:
            call.pin(item)
    new = len(call.shape) - (len(value) - len(named))
    middle = [still(n) for n in call.shape[named[0] : named[0] + new]]
    return (*value[: named[0]], *middle, *value[named[-1] + 1 :])
