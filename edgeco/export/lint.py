"""What a version of TensorRT would say to a graph, told without a GPU: operators, opset and the rules of Q and DQ.

The rules are a table. Each has the versions that it holds for and its source: NVIDIA's documentation of the ONNX parser
("operators.md" of the onnx-tensorrt repository, by release), the developer guide's chapter on explicit quantisation,
and the release notes. A graph that passes may still be refused; one that fails will be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from edgeco.errors import ConversionError

Version = tuple[int, ...]
EVER: Version = (99,)

OPSETS: tuple[tuple[Version, int], ...] = (((10, 14), 22), ((10, 0), 20), ((8, 5), 17))
"""The newest opset that the parser reads, by the first version that does. Source: operators.md of each release."""

SINCE: dict[str, Version] = {
    "LayerNormalization": (8, 6), "GroupNormalization": (8, 6), "Attention": (10, 14), "RMSNormalization": (10, 14),
    "RotaryEmbedding": (10, 14), "TensorScatter": (10, 15),
}  # fmt: skip
"""Operators that came later than 8.5. Source: operators.md of each release."""

NEVER = ("Loop", "Scan", "If", "ScatterND", "ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul")
"""Operators that are not read, or that a step must not have: they copy whole states, or wait for the host."""

STATIC: dict[str, tuple[tuple[int, ...], Version]] = {
    "CumSum": ((1,), (10, 8)), "Slice": ((3, 4), EVER), "Pad": ((3,), EVER), "Resize": ((1, 2), EVER),
}  # fmt: skip
"""Inputs that must be constants, below which version. Source: operators.md, and the release notes of 10.8."""


@dataclass(frozen=True)
class Finding:
    """What would be refused: by which rule, at which node or tensor, why."""

    rule: str
    where: str
    why: str


@dataclass(frozen=True)
class Rule:
    """A check with the versions for which it holds, from the first up to before the second, and its source."""

    name: str
    check: Callable[[_Model, Version], Iterator[tuple[str, str]]]
    source: str
    first: Version = (8, 5)
    before: Version = EVER


class _Model:
    """A complete model, as the rules look at it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.body = model, model.graph
        self.opset = max((e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), default=0)
        self.constants = {tensor.name: tensor for tensor in self.body.initializer}
        self.maker = {name: node for node in self.body.node for name in node.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.body.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.types = {v.name: v.type.tensor_type.elem_type for v in (*self.body.input, *self.body.output)}

    def nodes(self, *kinds: str) -> Iterator[NodeProto]:
        return (node for node in self.body.node if node.op_type in kinds)


Found = Iterator[tuple[str, str]]


def _opset(model: _Model, version: Version) -> Found:
    limit = next((opset for since, opset in OPSETS if version >= since), 0)
    if model.opset > limit:
        yield "the model", f"it is of opset {model.opset}, and {limit} is read"


def _operators(model: _Model, version: Version) -> Found:
    for node in model.body.node:
        since = SINCE.get(node.op_type)
        if node.op_type in NEVER:
            yield node.output[0], f"{node.op_type} has no place in a step"
        elif since is not None and version < since:
            yield node.output[0], f"{node.op_type} is read from {'.'.join(map(str, since))} on"


def _static(model: _Model, version: Version) -> Found:
    for kind, (places, before) in STATIC.items():
        for node in model.nodes(kind) if version < before else ():
            for place in places:
                if len(node.input) > place and node.input[place] and node.input[place] not in model.constants:
                    yield node.output[0], f"input {place} of {kind} must be a constant"


def _bytes(model: _Model, version: Version) -> Found:
    for value in model.body.input:
        if value.type.tensor_type.elem_type == TensorProto.UINT8:
            for node in model.readers.get(value.name, []):
                if node.op_type != "Cast":
                    yield value.name, f"bytes are taken at a cast alone, not by {node.op_type}"


def _ends(model: _Model, version: Version) -> Found:
    for name, kind in model.types.items():
        if kind == TensorProto.INT64:
            yield name, "INT64 at the ends is narrowed by some versions and not by others"


def _zeros(model: _Model, version: Version) -> Found:
    for node in model.nodes("QuantizeLinear", "DequantizeLinear"):
        zero = model.constants.get(node.input[2]) if len(node.input) > 2 else None
        if zero is None:
            yield node.output[0], "the type of its codes is not given by a constant zero point"
        elif zero.data_type != TensorProto.INT8:
            yield node.output[0], "its codes are not int8"
        elif np.any(numpy_helper.to_array(zero)):
            yield node.output[0], "its zero point is not 0"


def _scales(model: _Model, version: Version) -> Found:
    for node in model.nodes("QuantizeLinear", "DequantizeLinear"):
        scale = model.constants.get(node.input[1])
        if scale is None:
            yield node.output[0], "its scale is no constant"
            continue
        numbers = numpy_helper.to_array(scale)
        if not (np.isfinite(numbers).all() and (numbers > 0).all()):
            yield node.output[0], "a scale is not above 0"
        if numbers.size > 1 and node.input[0] not in model.constants:
            yield node.output[0], "a scale per channel is for weights alone"


def _pairs(model: _Model, version: Version) -> Found:
    codes = {node.output[0] for node in model.nodes("QuantizeLinear")}
    codes |= {v.name for v in model.body.input if v.type.tensor_type.elem_type == TensorProto.INT8}
    codes |= {name for name, tensor in model.constants.items() if tensor.data_type == TensorProto.INT8 and tensor.dims}
    for name in sorted(codes):
        for node in model.readers.get(name, []):
            place = list(node.input).index(name)
            if node.op_type != "DequantizeLinear" and not (node.op_type == "QuantizeLinear" and place == 2):
                yield name, f"codes are read by {node.op_type}, and a DequantizeLinear alone may"


WEIGHT_AXES = {"Conv": 0, "ConvTranspose": 1}
"""By operator the axis of the weight that counts output channels."""


def _weight_axes(model: _Model, version: Version) -> Found:
    for node in model.nodes(*WEIGHT_AXES):
        real = model.maker.get(node.input[1])
        if real is None or real.op_type != "DequantizeLinear" or real.input[1] not in model.constants:
            continue
        axis = next((a.i for a in real.attribute if a.name == "axis"), 1)
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        if numpy_helper.to_array(model.constants[real.input[1]]).size == 1:
            continue
        if axis != WEIGHT_AXES[node.op_type]:
            yield node.output[0], f"the scales of its weights lie along axis {axis}, not {WEIGHT_AXES[node.op_type]}"
        elif groups > 1 and node.op_type == "ConvTranspose":
            yield node.output[0], "a transposed convolution in groups has no scale for each output channel"


def _typed_scales(model: _Model, version: Version) -> Found:
    for node in model.nodes("QuantizeLinear", "DequantizeLinear"):
        scale = model.constants.get(node.input[1])
        if scale is not None and scale.data_type == TensorProto.FLOAT16 and model.opset < 19:
            yield node.output[0], f"a scale in FP16 is not valid in opset {model.opset}, but from 19 on"


_GUIDE = "TensorRT developer guide, 'Working with quantized types'"
RULES: tuple[Rule, ...] = (
    Rule("opset", _opset, "onnx-tensorrt operators.md"),
    Rule("operators", _operators, "onnx-tensorrt operators.md"),
    Rule("constants", _static, "onnx-tensorrt operators.md; release notes of 10.8"),
    Rule("bytes", _bytes, "developer guide, 'I/O formats': UINT8 is for network ends, and cast at once"),
    Rule("ends", _ends, "onnx-tensorrt, 'INT64 weights are cast down to INT32' (8.x); release notes of 10.0"),
    Rule("zero points", _zeros, f"{_GUIDE}: quantisation is symmetric"),
    Rule("scales", _scales, f"{_GUIDE}: per tensor for activations, per channel for weights; build-time constants"),
    Rule("pairs", _pairs, f"{_GUIDE}: INT8 tensors come from Q or an input, and go to DQ"),
    Rule("weight axes", _weight_axes, f"{_GUIDE}: per-channel scales go along the output channels"),
    Rule("typed scales", _typed_scales, "ONNX operators: QuantizeLinear-19, DequantizeLinear-19"),
)
"""Every rule. Each finding names its rule, and so its source."""


def lint(model: onnx.ModelProto | bytes, version: str) -> list[Finding]:
    """What a version of TensorRT would refuse of a complete model.

    Args:
        model: the model, weights included.
        version: as ``10.3.0``.

    Example::

        assert not lint(exported.model(), "8.6.1")
    """
    given = onnx.ModelProto.FromString(model) if isinstance(model, bytes) else model
    seen, numbers = _Model(given), tuple(int(part) for part in version.split(".")[:3])
    return [
        Finding(rule.name, where, why)
        for rule in RULES
        if rule.first <= numbers < rule.before
        for where, why in rule.check(seen, numbers)
    ]


def check_lint(model: onnx.ModelProto | bytes, version: str, name: str) -> None:
    """Raises ConversionError if a version of TensorRT would refuse a form."""
    found = lint(model, version)
    if found:
        first = found[0]
        raise ConversionError(
            f"The form {name} breaks a rule of TensorRT {version} ({first.rule}) at {first.where!r}: {first.why}. "
            "Build without this form, or report this network."
        )
