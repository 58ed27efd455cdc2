"""What a plan is compiled from and how: all that makes one plan another, in one record that can be sent and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

import msgspec

from edgeco.bundle.protobuf import BYTES, read_fields
from edgeco.engines.tensorrt.graph_io import GraphIo

Precision = Literal["fp32", "fp16", "int8"]
LEVEL = 3
"""TensorRT's own default of 0 to 5, taken where neither the user nor the device's profile says another; higher ones try
more kernels, for up to hours."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a user may choose of a compilation.

    Attributes:
        precision: None for the best that the bundle and the installed version have.
        workspace: bytes of GPU memory a layer may use for itself; None for what suits the GPU.
        level: optimisation level, 0 to 5; None for what suits the device.
        tactics: names of tactic sources; None for TensorRT's own choice.
    """

    precision: Precision | None = None
    workspace: int | None = None
    level: int | None = None
    tactics: tuple[str, ...] | None = None


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One compilation.

    Attributes:
        precision: of the numbers inside; fp32 is exact, without TF32; int8 lets what is not quantised be FP16.
        strong: whether the types are those that the graph says.
        int8: whether the graph quantises, which a weakly typed network must be told.
        shapes: of every input, rows included.
        half: inputs and outputs that are FP16 although the graph says FP32.
        full: results that are to be computed in FP32 beside others in FP16.
    """

    precision: Precision
    strong: bool
    int8: bool
    shapes: dict[str, tuple[int, ...]]
    half: tuple[str, ...]
    workspace: int
    level: int
    tactics: tuple[str, ...] | None = None
    full: tuple[str, ...] = ()


def plan_key(onnx: bytes, order: Order, version: str, gpu: str, capability: tuple[int, int]) -> str:
    """Names a plan by what it computes and where. How hard TensorRT was to try is not in it: a plan that took an hour
    once serves every later run."""
    named = msgspec.structs.replace(order, workspace=0, level=0, tactics=None)
    record = [hashlib.sha256(onnx).hexdigest(), named, version, gpu, list(capability)]
    return hashlib.sha256(msgspec.json.encode(record, order="sorted")).hexdigest()[:32]


def network_key(orders: Mapping[bytes, Order], version: str, gpu: str, capability: tuple[int, int]) -> str:
    """Names the graphs of a network on a GPU, for any number of rows."""
    keys = [
        plan_key(onnx, msgspec.structs.replace(order, shapes={}), version, gpu, capability)
        for onnx, order in orders.items()
    ]
    return hashlib.sha256("".join(keys).encode()).hexdigest()[:32]


def quantises(onnx: bytes) -> bool:
    """Whether a graph has Q/DQ nodes."""
    for model_field in read_fields(memoryview(onnx)):
        if model_field.number != 7 or model_field.wire != BYTES:
            continue
        for node in read_fields(model_field.message):
            if node.number == 1 and any(f.number == 4 and bytes(f.message) in _Q for f in read_fields(node.message)):
                return True
    return False


_Q = (b"QuantizeLinear", b"DequantizeLinear")


def make_order(
    onnx: bytes, io: GraphIo, rows: int, precision: Precision, strong: bool, half: frozenset[str], options: Options,
    memory: int,
) -> Order:  # fmt: skip
    """The order for a graph and a number of rows; ``memory`` is the GPU's, in bytes."""
    # A board shares its memory with everything else: what a build takes there, the robot has not.
    workspace = options.workspace or (1 << 30 if memory > 10 << 30 else 512 << 20)
    named = {tensor.name for tensor in (*io.inputs, *io.outputs)}
    return Order(
        precision=precision,
        strong=strong,
        int8=quantises(onnx),
        shapes={tensor.name: tensor.sized(rows) for tensor in io.inputs},
        half=tuple(sorted(half & named)),
        workspace=workspace,
        level=LEVEL if options.level is None else options.level,
        tactics=options.tactics,
    )
