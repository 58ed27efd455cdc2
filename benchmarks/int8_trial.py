"""What INT8 costs and saves in ONNX Runtime on this processor: a temporal convolution of a step, spelled in every way.

A step of a convolution over three frames of 64 channels, 28 x 28, is three products with 1 x 1 weights: of the new
frame and of two old ones, which are kept as numbers or as codes. The spellings differ in type (signed, with zero in the
middle; or unsigned, where a ReLU came before), in whether the frames are multiplied one by one or gathered into one
product, and in whether ONNX Runtime fuses Q, DQ and convolution: of signed codes it does so only where it is told to.
A depthwise convolution of 3 x 3 x 3 is the other kind of work.

``python benchmarks/int8_trial.py --threads 1``; all forms are timed in turn, so that a busy machine is busy for all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
CHANNELS, SIDE, TAPS = 64, 28, 3
SHAPE = (1, CHANNELS, SIDE, SIDE)
TYPES = {"float32": TensorProto.FLOAT, "int8": TensorProto.INT8, "uint8": TensorProto.UINT8}
SCALE, WEIGHT_SCALE = 0.05, 0.01
TOP = 128.0
"""Beyond which no product and no sum of three comes with these numbers."""


class Spelling:
    """A graph in the making: frames come in one type, the result goes out in the same.

    Args:
        kind: of frames and result: float32, int8 or uint8.
        depthwise: whether every channel is by itself.
    """

    def __init__(self, kind: str, depthwise: bool = False) -> None:
        self.kind, self.depthwise = kind, depthwise
        self.nodes: list[NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        rng = np.random.default_rng(0)
        shape = (TAPS, CHANNELS, 1, 3, 3) if depthwise else (TAPS, CHANNELS, CHANNELS, 1, 1)
        self.codes = rng.integers(-100, 100, shape).astype(np.int8)
        self.bias = rng.standard_normal(CHANNELS).astype(np.float32)

    def constant(self, array: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def grid(self, scale: float, zero: int = 0) -> list[str]:
        kind = np.uint8 if self.kind == "uint8" else np.int8
        return [self.constant(np.float32(scale)), self.constant(np.array(zero, kind))]

    def real(self, codes: str) -> str:
        """The numbers of a frame's codes."""
        return self.node("DequantizeLinear", [codes, *self.grid(SCALE)])

    def rounded(self, product: str) -> str:
        """A product on a grid of its own, which is what lets ONNX Runtime fuse it; it may be negative."""
        grid = self.grid(2 * TOP / 255, 128 if self.kind == "uint8" else 0)
        return self.node("DequantizeLinear", [self.node("QuantizeLinear", [product, *grid]), *grid])

    def finished(self, result: str) -> bytes:
        """The ReLU and the codes of the result: where those are unsigned the lowest of them does the ReLU's work."""
        if self.kind == "float32":
            return self.model(self.node("Relu", [result]))
        if self.kind == "uint8":
            return self.model(self.node("QuantizeLinear", [result, *self.grid(TOP / 255)]))
        return self.model(self.node("QuantizeLinear", [self.node("Relu", [result]), *self.grid(TOP / 127)]))

    def convolution(self, given: str, codes: Array, bias: bool) -> str:
        group = CHANNELS if self.depthwise else 1
        pads = {"pads": [1, 1, 1, 1]} if self.depthwise else {}
        if self.kind == "float32":
            more = [self.constant(self.bias)] if bias else []
            weight = self.constant(codes.astype(np.float32) * np.float32(WEIGHT_SCALE))
            return self.node("Conv", [given, weight, *more], group=group, **pads)
        scales = np.full(CHANNELS, WEIGHT_SCALE, np.float32)
        weight = self._coded_constant(codes, scales)
        whole = np.rint(self.bias / (SCALE * WEIGHT_SCALE)).astype(np.int32)
        more = [self._coded_constant(whole, scales * np.float32(SCALE))] if bias else []
        return self.node("Conv", [given, weight, *more], group=group, **pads)

    def _coded_constant(self, codes: Array, scales: Array) -> str:
        zeros = np.zeros(len(scales), codes.dtype)
        return self.node("DequantizeLinear", [self.constant(a) for a in (codes, scales, zeros)], axis=0)

    def model(self, result: str) -> bytes:
        kind = TYPES[self.kind]
        frames = [helper.make_tensor_value_info(f"x{tap}", kind, SHAPE) for tap in range(TAPS)]
        out = helper.make_tensor_value_info(result, kind, SHAPE)
        graph = helper.make_graph(self.nodes, "trial", frames, [out], self.constants)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        onnx.checker.check_model(made, full_check=True)
        return bytes(made.SerializeToString())


def per_tap(kind: str, depthwise: bool = False) -> bytes:
    """Every frame multiplied by itself; the three products are added as numbers."""
    made = Spelling(kind, depthwise)
    total = ""
    for tap in range(TAPS):
        given = f"x{tap}" if kind == "float32" else made.real(f"x{tap}")
        product = made.convolution(given, made.codes[tap], bias=tap == 0)
        product = product if kind == "float32" else made.rounded(product)
        total = made.node("Add", [total, product]) if total else product
    return made.finished(total)


def gathered(kind: str) -> bytes:
    """The frames joined along their channels: one product, and no sum after it."""
    made = Spelling(kind)
    joined = made.node("Concat", [f"x{tap}" for tap in range(TAPS)], axis=1)
    given = joined if kind == "float32" else made.real(joined)
    result = made.convolution(given, np.concatenate(list(made.codes), axis=1), bias=True)
    return made.finished(made.rounded(result) if kind == "int8" else result)


FORMS = {
    "dense, FP32, gathered": (gathered("float32"), True),
    "dense, FP32, per tap": (per_tap("float32"), True),
    "dense, signed, gathered, not fused": (gathered("int8"), False),
    "dense, signed, gathered, fused": (gathered("int8"), True),
    "dense, signed, per tap, not fused": (per_tap("int8"), False),
    "dense, signed, per tap, fused": (per_tap("int8"), True),
    "dense, unsigned, per tap, fused": (per_tap("uint8"), True),
    "dense, unsigned, gathered, fused": (gathered("uint8"), True),
    "depthwise, FP32, per tap": (per_tap("float32", depthwise=True), True),
    "depthwise, signed, per tap, not fused": (per_tap("int8", depthwise=True), False),
    "depthwise, signed, per tap, fused": (per_tap("int8", depthwise=True), True),
    "depthwise, unsigned, per tap, fused": (per_tap("uint8", depthwise=True), True),
}
"""By name the graph, and whether ONNX Runtime may fuse it."""


def session(model: bytes, fused: bool, threads: int, written: str = "") -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    signed = onnx.ModelProto.FromString(model).graph.input[0].type.tensor_type.elem_type == TensorProto.INT8
    if fused and signed:
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    else:
        options.add_session_config_entry("session.x64quantprecision", "1")  # as the product's engine has it
    if written:
        options.optimized_model_filepath = written
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def frames(model: bytes) -> dict[str, Array]:
    """The same numbers in every type."""
    rng = np.random.default_rng(1)
    numbers = rng.integers(0, 120, (TAPS, *SHAPE))
    kind = onnx.ModelProto.FromString(model).graph.input[0].type.tensor_type.elem_type
    if kind == TensorProto.FLOAT:
        return {f"x{tap}": (numbers[tap] * SCALE).astype(np.float32) for tap in range(TAPS)}
    return {f"x{tap}": numbers[tap].astype(np.uint8 if kind == TensorProto.UINT8 else np.int8) for tap in range(TAPS)}


def main() -> None:
    """Time all spellings in turn, and check that they compute the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    opened = {name: (session(*form, options.threads), frames(form[0])) for name, form in FORMS.items()}
    answers = {name: own.run(None, given)[0] for name, (own, given) in opened.items()}
    taken: dict[str, list[float]] = {name: [] for name in opened}
    for _ in range(options.rounds):
        for name, (own, given) in opened.items():
            own.run(None, given)
            for _ in range(3):
                start = time.perf_counter()
                own.run(None, given)
                taken[name].append(1e3 * (time.perf_counter() - start))
    print(f"ONNX Runtime {onnxruntime.__version__}, {options.threads} thread(s)")
    for name, times in taken.items():
        exact = answers[f"{name.split(',')[0]}, FP32, per tap"]
        step = 1.0 if "FP32" in name else TOP / (255 if "unsigned" in name else 127)
        off = np.abs(answers[name].astype(np.float32) * step - exact).max() / exact.max()
        fused = kernels(*FORMS[name])
        print(f"{name:38} {median(times):7.3f} ms, least {min(times):.3f}; off by {off:.1e} of the greatest; {fused}")


def kernels(model: bytes, fused: bool) -> str:
    """What ONNX Runtime made of the convolutions."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/fused.onnx"
        session(model, fused, 1, path)
        found = [node.op_type for node in onnx.load(path).graph.node]
    return ", ".join(f"{found.count(op)} {op}" for op in dict.fromkeys(found) if "Conv" in op)


if __name__ == "__main__":
    main()
