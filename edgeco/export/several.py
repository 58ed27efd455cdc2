"""ATen operators with several results in ONNX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

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


SEVERAL: dict[object, Several] = {
    aten.max.dim: _extreme("ReduceMax", "ArgMax"),
    aten.min.dim: _extreme("ReduceMin", "ArgMin"),
    aten.topk.default: _topk,
    aten.sort.default: _sort,
}
"""By overload: what writes it, and returns the names of its results."""
