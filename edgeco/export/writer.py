"""Collects the nodes and weights of an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.float64: TensorProto.DOUBLE,
    torch.float16: TensorProto.FLOAT16,
    torch.uint8: TensorProto.UINT8,
    torch.int8: TensorProto.INT8,
    torch.int32: TensorProto.INT32,
    torch.int64: TensorProto.INT64,
    torch.bool: TensorProto.BOOL,
}


class GraphWriter:
    """An ONNX graph under construction; every method that emits returns the name of its result.

    Args:
        weights: where weights are put, for several graphs that share them.
    """

    def __init__(self, weights: dict[str, np.ndarray[Any, Any]] | None = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights = {} if weights is None else weights
        self.small: dict[str, onnx.TensorProto] = {}
        self._count = 0

    def name(self, stem: str) -> str:
        """A fresh tensor name."""
        self._count += 1
        return f"{stem}_{self._count}"

    def emit(self, op: str, *inputs: str, result: str | None = None, **attributes: Any) -> str:
        """Emit one node; attributes of None are left out. Returns its result."""
        return self._emit(op, inputs, [result or self.name(op.lower())], attributes)[0]

    def emit_several(self, op: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Emit one node of several results."""
        return self._emit(op, inputs, [self.name(op.lower()) for _ in range(count)], attributes)

    def _emit(self, op: str, inputs: Sequence[str], names: list[str], attributes: dict[str, Any]) -> list[str]:
        kept = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(helper.make_node(op, list(inputs), names, name=f"n{len(self.nodes):04d}_{op}", **kept))
        return names

    def ints(self, values: Sequence[int]) -> str:
        """A constant list of integers: shapes, axes, pads."""
        return self._constant("i", np.asarray(values, dtype=np.int64))

    def index(self, value: int) -> str:
        """A constant index without axes."""
        return self._constant("i", np.asarray(value, dtype=np.int64))

    def scalar(self, value: float | bool, dtype: torch.dtype) -> str:
        """A constant number of a tensor's type."""
        array = np.asarray(value, dtype=helper.tensor_dtype_to_np_dtype(TYPES[dtype]))
        return self._constant("c", array)

    def _constant(self, stem: str, array: np.ndarray[Any, Any]) -> str:
        key = f"{stem}_{array.dtype}_{'x'.join(map(str, array.shape))}_{array.tobytes().hex()}"
        if key not in self.small:
            self.small[key] = onnx.numpy_helper.from_array(array, f"{stem}{len(self.small):03d}")
        return str(self.small[key].name)

    def weight(self, name: str, tensor: torch.Tensor) -> str:
        """A weight, kept beside the graph; truths as whole numbers, for safetensors' readers take none."""
        if tensor.dtype == torch.bool:
            return self.emit("Cast", self.weight(name, tensor.to(torch.int8)), to=TYPES[torch.bool])
        self.weights[name] = np.ascontiguousarray(tensor.detach().cpu().numpy())
        return name

    def reshape(self, name: str, sizes: Sequence[int]) -> str:
        """Reshape to sizes of which one may be -1."""
        return self.emit("Reshape", name, self.ints(sizes))

    def join_reshapes(self, results: Sequence[str]) -> None:
        """Let a Reshape of a Reshape read what the first one reads; what nothing reads any more goes."""
        made = {node.output[0]: node for node in self.nodes if node.op_type == "Reshape"}
        for node in made.values():
            node.input[0] = made[node.input[0]].input[0] if node.input[0] in made else node.input[0]
        read = {name for node in self.nodes for name in node.input} | set(results)
        self.nodes = [node for node in self.nodes if node.op_type != "Reshape" or node.output[0] in read]
        used = {name for node in self.nodes for name in node.input}
        self.small = {key: tensor for key, tensor in self.small.items() if tensor.name in used}
