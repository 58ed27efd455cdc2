"""What the fake TensorRT knows of ONNX models, and how its plans look: the real head, then JSON, then the model."""

from __future__ import annotations

import json
import struct
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnxruntime

KINDS = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16"}


def sides(data: bytes) -> tuple[list[tuple[str, tuple[int, ...], str]], list[tuple[str, tuple[int, ...], str]]]:
    """Inputs and outputs: name, shape with -1 where it is open, type."""
    graph = onnx.load_from_string(data).graph

    def read(values: Any) -> list[tuple[str, tuple[int, ...], str]]:
        found = []
        for value in values:
            kind = value.type.tensor_type
            shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
            found.append((value.name, shape, KINDS[kind.elem_type]))
        return found

    return read(graph.input), read(graph.output)


def results(data: bytes) -> list[list[str]]:
    """The names of what each node makes."""
    return [list(node.output) for node in onnx.load_from_string(data).graph.node]


def refused(data: bytes, ceiling: int) -> list[str]:
    """Why the parser does not take a model."""
    model = onnx.load_from_string(data)
    opset = max(entry.version for entry in model.opset_import if entry.domain == "")
    reasons = [f"opset {opset} is beyond {ceiling}"] if opset > ceiling else []
    raw = {value.name for value in model.graph.input if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8}
    for node in model.graph.node:
        if raw & set(node.input) and node.op_type != "Cast":
            reasons.append(f"{node.op_type} does not take UINT8, which must be cast at once")
        if node.op_type in ("Loop", "Scan", "ScatterND"):
            reasons.append(f"{node.op_type} has no place in a step")
    reasons += quantised_wrongly(model.graph)
    reasons += [f"{name} is INT64" for side in sides(data) for name, _, kind in side if kind == "int64"]
    return reasons


def quantised_wrongly(graph: onnx.GraphProto) -> list[str]:
    """Codes that are not symmetric int8, or read by another node than DequantizeLinear, or per channel and moving."""
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    codes, reasons = set[str](), []
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero = constants[node.input[2]]
        if zero.dtype != np.int8 or zero.any():
            reasons.append(f"{node.name}: only symmetric int8 quantisation is supported")
        if constants[node.input[1]].size > 1 and node.input[0] not in constants:
            reasons.append(f"{node.name}: activations are quantised per tensor")
        codes.add(node.output[0] if node.op_type == "QuantizeLinear" else node.input[0])
    reasons += [f"{n.name} reads INT8" for n in graph.node if n.op_type != "DequantizeLinear" and codes & set(n.input)]
    return reasons


def quantises(data: bytes) -> bool:
    return any(n.op_type in ("QuantizeLinear", "DequantizeLinear") for n in onnx.load_from_string(data).graph.node)


def halves(data: bytes) -> bool:
    """Whether weights or casts are FP16."""
    graph = onnx.load_from_string(data).graph
    half = onnx.TensorProto.FLOAT16
    casts = [a.i for node in graph.node if node.op_type == "Cast" for a in node.attribute if a.name == "to"]
    return half in casts or any(weight.data_type == half for weight in graph.initializer)


def typed_half(data: bytes) -> set[str]:
    return {name for side in sides(data) for name, _, kind in side if kind == "float16"}


def pack(version: tuple[int, ...], meta: dict[str, Any], model: bytes) -> bytes:
    head = b"ftrt" + struct.pack("<I", 0) + bytes(16) + bytes((*version[:3], 0))
    text = json.dumps(meta).encode()
    return head + struct.pack("<I", len(text)) + text + model


def unpack(plan: bytes, version: tuple[int, ...]) -> Program | str:
    if plan[:4] != b"ftrt":
        return "magic tag does not match"
    if tuple(plan[24:27]) != version[:3]:
        return f"the plan is of version {tuple(plan[24:27])}, this is {version[:3]}"
    size = struct.unpack_from("<I", plan, 28)[0]
    return Program(json.loads(plan[32 : 32 + size]), plan[32 + size :])


class Program:
    """A model made static."""

    def __init__(self, meta: dict[str, Any], model: bytes) -> None:
        self.meta = meta
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        # As the product's own engine is told, so that both compute the same bits.
        options.add_session_config_entry("session.x64quantprecision", "1")
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"]
        )
        self._taken, self._given = sides(model)
        self.nodes = [node.name or node.op_type for node in onnx.load_from_string(model).graph.node]
        self._kinds = {name: kind for name, _, kind in (*self._taken, *self._given)}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        known = {name: tuple(self.meta["shapes"][name]) for name, _, _ in self._taken}
        zeros = {name: np.zeros(shape, self._kinds[name]) for name, shape in known.items()}
        names = [name for name, _, _ in self._given]
        return known | {n: v.shape for n, v in zip(names, self._session.run(names, zeros), strict=True)}

    def stored(self, name: str) -> np.dtype[Any]:
        if name in self.meta["widened"]:
            return np.dtype("float32")
        return np.dtype("float16" if name in self.meta["half"] else self._kinds[name])

    def span(self, name: str, address: int) -> tuple[int, int]:
        return address, address + int(np.prod(self.shapes[name])) * self.stored(name).itemsize

    def clash(self, addresses: dict[str, int]) -> str | None:
        """Why these addresses will not do."""
        missing = self.shapes.keys() - addresses.keys()
        if missing:
            return f"{sorted(missing)} have no address"
        for name, _, _ in self._given:
            start, end = self.span(name, addresses[name])
            for other, address in addresses.items():
                low, high = self.span(other, address)
                if other != name and start < high and low < end:
                    return f"{name} and {other} share memory"
        return None

    def run(self, addresses: dict[str, int], gpu: Any) -> None:
        feeds = {}
        for name, _, kind in self._taken:
            start, end = self.span(name, addresses[name])
            held = gpu.view(start, end - start).view(self.stored(name)).reshape(self.shapes[name])
            feeds[name] = held.astype(kind)
        names = [name for name, _, _ in self._given]
        for name, value in zip(names, self._session.run(names, feeds), strict=True):
            start, end = self.span(name, addresses[name])
            with np.errstate(over="ignore"):
                gpu.view(start, end - start)[:] = np.frombuffer(value.astype(self.stored(name)).tobytes(), np.uint8)
