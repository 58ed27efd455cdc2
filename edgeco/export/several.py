"""ATen operators with several results in ONNX."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch

from edgeco.export.layers import adaptive_parts
from edgeco.export.reshaping import variance_of
from edgeco.export.writer import GraphWriter

aten = torch.ops.aten

Several = Callable[[GraphWriter, dict[str, Any]], list[str]]


def _extreme(reduce: str, arg: str) -> Several:
    def write(w: GraphWriter, given: dict[str, Any]) -> list[str]:
        source, axis, keep = given["self"], given["dim"], int(bool(given["keepdim"]))
        axis %= len(source.shape)
        values = w.emit(reduce, source.name, w.ints([axis]), keepdims=keep)
        return [values, w.emit(arg, source.name, axis=axis, keepdims=keep)]

    return write


def _topk(w: GraphWriter, given: dict[str, Any]) -> list[str]:
    source = given["self"]
    return w.emit_several(
        "TopK", 2, source.name, w.ints([given["k"]]), axis=given["dim"] % len(source.shape),
        largest=int(given["largest"]), sorted=1,
    )  # fmt: skip


def _sort(w: GraphWriter, given: dict[str, Any]) -> list[str]:
    source, axis = given["self"], given["dim"] % len(given["self"].shape)
    return w.emit_several(
        "TopK", 2, source.name, w.ints([source.shape[axis]]), axis=axis, largest=int(given["descending"]), sorted=1
    )


def _median(w: GraphWriter, given: dict[str, Any]) -> list[str]:
    """The lower one of two, as PyTorch has it."""
    source, axis = given["self"], given["dim"] % len(given["self"].shape)
    below = (source.shape[axis] + 1) // 2
    sorted_ = w.emit_several("TopK", 2, source.name, w.ints([below]), axis=axis, largest=0, sorted=1)
    place = w.ints([below - 1]) if given["keepdim"] else w.index(below - 1)
    return [w.emit("Gather", name, place, axis=axis) for name in sorted_]


def _adaptive_max(w: GraphWriter, given: dict[str, Any]) -> list[str]:
    """The values alone; each element is the maximum of its own part of the axis, axis by axis."""
    source, name = given["self"], given["self"].name
    sizes = given["output_size"]
    for axis, wanted in enumerate(sizes, start=len(source.shape) - len(sizes)):
        if source.shape[axis] == wanted:
            continue
        parts = [
            w.emit("Slice", name, w.ints([first]), w.ints([end]), w.ints([axis]))
            for first, end in adaptive_parts(source.shape[axis], wanted)
        ]
        name = w.emit("Concat", *[w.emit("ReduceMax", part, w.ints([axis]), keepdims=1) for part in parts], axis=axis)
    return [name]


def _moments(root: bool) -> Several:
    def write(w: GraphWriter, given: dict[str, Any]) -> list[str]:
        source, dims, keep = given["self"], given["dim"], bool(given["keepdim"])
        spread = variance_of(w, source, dims, given["correction"], keep)
        axes = w.ints(dims or range(len(source.shape)))
        return [w.emit("Sqrt", spread) if root else spread, w.emit("ReduceMean", source.name, axes, keepdims=int(keep))]

    return write


def _cut(w: GraphWriter, given: dict[str, Any]) -> list[str]:
    """Parts of equal size (the last may be shorter), or of the sizes given."""
    source, axis = given["self"], given["dim"] % len(given["self"].shape)
    whole = source.shape[axis]
    if "split_sizes" in given:
        sizes = list(given["split_sizes"])
    else:
        size = given["split_size"] if "split_size" in given else -(-whole // given["chunks"])
        sizes = [min(size, whole - at) for at in range(0, whole, size)]
    ends = list(accumulate(sizes))
    return [
        w.emit("Slice", source.name, w.ints([end - size]), w.ints([end]), w.ints([axis]))
        for size, end in zip(sizes, ends, strict=True)
    ]


SEVERAL: dict[object, Several] = {
    aten.max.dim: _extreme("ReduceMax", "ArgMax"),
    aten.min.dim: _extreme("ReduceMin", "ArgMin"),
    aten.topk.default: _topk,
    aten.sort.default: _sort,
    aten.std_mean.correction: _moments(root=True),
    aten.var_mean.correction: _moments(root=False),
    aten.median.dim: _median,
    aten.adaptive_max_pool1d.default: _adaptive_max,
    aten.adaptive_max_pool2d.default: _adaptive_max,
    aten.adaptive_max_pool3d.default: _adaptive_max,
    aten.chunk.default: _cut,
    aten.split.Tensor: _cut,
    aten.split_with_sizes.default: _cut,
}
"""By overload: what writes it, and returns the names of its results."""
