"""ATen operators in ONNX: one small function each. What has none is decomposed by PyTorch into what has."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from edgeco.export.writer import TYPES, GraphWriter

aten = torch.ops.aten


@dataclass(frozen=True)
class Ref:
    """A tensor of the ONNX graph: its name, shape (the traced batch stands in it) and type."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Call:
    """One operator to write: the writer, arguments by schema name (tensors as Ref), its result, the batch, its name."""

    writer: GraphWriter
    args: dict[str, Any]
    result: torch.Tensor
    batch: int
    op: str = ""

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    @property
    def first(self) -> Ref:
        return next(iter(self.args.values()))  # type: ignore[no-any-return]

    def sizes(self, shape: Any = None) -> list[int]:
        """A shape with -1 in place of the batch."""
        return [-1 if n and n % self.batch == 0 else int(n) for n in (self.result.shape if shape is None else shape)]

    def operand(self, value: Any, dtype: torch.dtype) -> str:
        """A tensor or number as an operand of a given type."""
        if not isinstance(value, Ref):
            return self.writer.scalar(value, dtype)
        return value.name if value.dtype == dtype else self.cast(value.name, dtype)

    def cast(self, name: str, dtype: torch.dtype) -> str:
        return self.writer.emit("Cast", name, to=TYPES[dtype])


Translator = Callable[[Call], str]
TABLE: dict[Any, Translator] = {}


def onnx_op(*targets: Any) -> Callable[[Translator], Translator]:
    """Register the translation of ATen operators (all overloads of a packet)."""

    def register(function: Translator) -> Translator:
        for target in targets:
            TABLE[target] = function
        return function

    return register


def _same_name(target: Any, op: str) -> None:
    TABLE[target] = lambda c: c.writer.emit(op, c.operand(c.first, c.result.dtype))


for _target, _op in {
    aten.relu: "Relu", aten.sigmoid: "Sigmoid", aten.tanh: "Tanh", aten.exp: "Exp", aten.log: "Log", aten.sqrt: "Sqrt",
    aten.abs: "Abs", aten.neg: "Neg", aten.sign: "Sign", aten.floor: "Floor", aten.ceil: "Ceil", aten.round: "Round",
    aten.erf: "Erf", aten.sin: "Sin", aten.cos: "Cos", aten.tan: "Tan", aten.reciprocal: "Reciprocal",
    aten.atan: "Atan", aten.asin: "Asin", aten.acos: "Acos", aten.sinh: "Sinh", aten.cosh: "Cosh",
    aten.hardswish: "HardSwish", aten.logical_not: "Not", aten.bitwise_not: "Not",
}.items():  # fmt: skip
    _same_name(_target, _op)


@onnx_op(aten.isnan)
def isnan(c: Call) -> str:
    return c.writer.emit("IsNaN", c.first.name)


@onnx_op(aten.trunc)
def trunc(c: Call) -> str:
    return c.writer.emit(
        "Mul", c.writer.emit("Sign", c.first.name), c.writer.emit("Floor", c.writer.emit("Abs", c.first.name))
    )


@onnx_op(aten.fmod)
def fmod(c: Call) -> str:
    return c.writer.emit("Mod", c.first.name, c.operand(c["other"], c.result.dtype), fmod=1)


@onnx_op(aten.remainder)
def remainder(c: Call) -> str:
    w, dtype = c.writer, c.result.dtype
    left, right = c.operand(c["self"], dtype), c.operand(c["other"], dtype)
    whole = w.emit("Floor", w.emit("Div", left, right))
    return w.emit("Sub", left, w.emit("Mul", whole, right))


def _binary(op: str, scaled: bool = False) -> Translator:
    def translate(c: Call) -> str:
        left, right = list(c.args.values())[:2]
        dtype = c.result.dtype
        b = c.operand(right, dtype)
        alpha = c.args.get("alpha", 1)
        if scaled and alpha != 1:
            b = c.writer.emit("Mul", b, c.writer.scalar(alpha, dtype))
        return c.writer.emit(op, c.operand(left, dtype), b)

    return translate


for _target, _op in {aten.add: "Add", aten.sub: "Sub"}.items():
    TABLE[_target] = _binary(_op, scaled=True)
for _target, _op in {
    aten.mul: "Mul", aten.maximum: "Max", aten.minimum: "Min", aten.logical_and: "And", aten.logical_or: "Or",
    aten.bitwise_and: "And", aten.bitwise_or: "Or", aten.pow: "Pow", aten.logical_xor: "Xor",
}.items():  # fmt: skip
    TABLE[_target] = _binary(_op)


def _comparison(op: str, negate: bool = False) -> Translator:
    def translate(c: Call) -> str:
        left, right = list(c.args.values())[:2]
        dtype = torch.promote_types(left.dtype, right.dtype) if isinstance(right, Ref) else left.dtype
        name = c.writer.emit(op, c.operand(left, dtype), c.operand(right, dtype))
        return c.writer.emit("Not", name) if negate else name

    return translate


for _target, (_op, _negate) in {
    aten.gt: ("Greater", False), aten.ge: ("GreaterOrEqual", False), aten.lt: ("Less", False),
    aten.le: ("LessOrEqual", False), aten.eq: ("Equal", False), aten.ne: ("Equal", True),
}.items():  # fmt: skip
    TABLE[_target] = _comparison(_op, _negate)


@onnx_op(aten.div)
def divide(c: Call) -> str:
    left, right = c["self"], c["other"]
    dtype = c.result.dtype
    name = c.writer.emit("Div", c.operand(left, dtype), c.operand(right, dtype))
    mode = c.args.get("rounding_mode")
    if mode == "floor":
        return c.writer.emit("Floor", name)
    if mode == "trunc":
        return c.writer.emit("Mul", c.writer.emit("Sign", name), c.writer.emit("Floor", c.writer.emit("Abs", name)))
    return name


@onnx_op(aten.rsub)
def reversed_subtract(c: Call) -> str:
    dtype = c.result.dtype
    a = c["self"].name
    scaled = a if c["alpha"] == 1 else c.writer.emit("Mul", a, c.writer.scalar(c["alpha"], dtype))
    return c.writer.emit("Sub", c.operand(c["other"], dtype), scaled)


@onnx_op(aten.rsqrt)
def rsqrt(c: Call) -> str:
    return c.writer.emit("Reciprocal", c.writer.emit("Sqrt", c.first.name))


@onnx_op(aten.square)
def square(c: Call) -> str:
    return c.writer.emit("Mul", c.first.name, c.first.name)


@onnx_op(aten.silu)
def silu(c: Call) -> str:
    return c.writer.emit("Mul", c.first.name, c.writer.emit("Sigmoid", c.first.name))


@onnx_op(aten.mish)
def mish(c: Call) -> str:
    return c.writer.emit("Mul", c.first.name, c.writer.emit("Tanh", c.writer.emit("Softplus", c.first.name)))


@onnx_op(aten.gelu)
def gelu(c: Call) -> str:
    x, w, dtype = c.first.name, c.writer, c.result.dtype
    if c["approximate"] == "tanh":
        cube = w.emit("Mul", w.emit("Mul", x, x), x)
        inner = w.emit("Add", x, w.emit("Mul", cube, w.scalar(0.044715, dtype)))
        bend = w.emit("Tanh", w.emit("Mul", inner, w.scalar(math.sqrt(2 / math.pi), dtype)))
    else:
        bend = w.emit("Erf", w.emit("Mul", x, w.scalar(math.sqrt(0.5), dtype)))
    half = w.emit("Mul", x, w.scalar(0.5, dtype))
    return w.emit("Mul", half, w.emit("Add", bend, w.scalar(1.0, dtype)))


@onnx_op(aten.elu)
def elu(c: Call) -> str:
    w, dtype = c.writer, c.result.dtype
    x = c.first.name
    bent = x if c["input_scale"] == 1 else w.emit("Mul", x, w.scalar(c["input_scale"], dtype))
    below = w.emit("Mul", w.emit("Elu", bent), w.scalar(c["alpha"] * c["scale"], dtype))
    above = x if c["scale"] == 1 else w.emit("Mul", x, w.scalar(c["scale"], dtype))
    return w.emit("Where", w.emit("Greater", x, w.scalar(0.0, dtype)), above, below)


@onnx_op(aten.softplus)
def softplus(c: Call) -> str:
    w, dtype, beta = c.writer, c.result.dtype, c["beta"]
    if beta == 1:
        return w.emit("Softplus", c.first.name)
    scaled = w.emit("Softplus", w.emit("Mul", c.first.name, w.scalar(beta, dtype)))
    return w.emit("Mul", scaled, w.scalar(1 / beta, dtype))


@onnx_op(aten.log1p)
def log1p(c: Call) -> str:
    return c.writer.emit("Log", c.writer.emit("Add", c.first.name, c.writer.scalar(1.0, c.result.dtype)))


@onnx_op(aten.expm1)
def expm1(c: Call) -> str:
    return c.writer.emit("Sub", c.writer.emit("Exp", c.first.name), c.writer.scalar(1.0, c.result.dtype))


@onnx_op(aten.hardsigmoid)
def hardsigmoid(c: Call) -> str:
    return c.writer.emit("HardSigmoid", c.first.name, alpha=1 / 6, beta=0.5)


@onnx_op(aten.leaky_relu)
def leaky_relu(c: Call) -> str:
    return c.writer.emit("LeakyRelu", c.first.name, alpha=float(c["negative_slope"]))


@onnx_op(aten.prelu)
def prelu(c: Call) -> str:
    slope = c["weight"]
    name = c.writer.reshape(slope.name, [-1] + [1] * (len(c.first.shape) - 2)) if len(c.first.shape) > 2 else slope.name
    return c.writer.emit("PRelu", c.first.name, name)


@onnx_op(aten.relu6)
def relu6(c: Call) -> str:
    dtype = c.result.dtype
    return c.writer.emit("Min", c.writer.emit("Relu", c.first.name), c.writer.scalar(6.0, dtype))


@onnx_op(aten.clamp, aten.hardtanh, aten.clamp_min, aten.clamp_max)
def clip(c: Call) -> str:
    low = c.args.get("min", c.args.get("min_val"))
    high = c.args.get("max", c.args.get("max_val"))
    name, dtype = c.operand(c.first, c.result.dtype), c.result.dtype
    if low is not None:
        name = c.writer.emit("Max", name, c.operand(low, dtype))
    return name if high is None else c.writer.emit("Min", name, c.operand(high, dtype))


@onnx_op(aten.where)
def where(c: Call) -> str:
    dtype = c.result.dtype
    return c.writer.emit("Where", c["condition"].name, c.operand(c["self"], dtype), c.operand(c["other"], dtype))


@onnx_op(aten.clone, aten.alias, aten.detach, aten.contiguous, aten.lift_fresh_copy)
def same(c: Call) -> str:
    return c.first.name


@onnx_op(aten._to_copy, aten.to)
def to_type(c: Call) -> str:
    return c.first.name if c.first.dtype == c.result.dtype else c.cast(c.first.name, c.result.dtype)


def _convolution(c: Call) -> str:
    kernel = c["weight"].shape[2:]
    inputs = [c["input"].name, c["weight"].name] + ([c["bias"].name] if c["bias"] is not None else [])
    padding = _spread(c["padding"], len(kernel))
    return c.writer.emit(
        "Conv", *inputs, kernel_shape=list(kernel), strides=_spread(c["stride"], len(kernel)), pads=padding + padding,
        dilations=_spread(c["dilation"], len(kernel)), group=c["groups"],
    )  # fmt: skip


def _spread(value: Any, count: int) -> list[int]:
    listed = list(value) if isinstance(value, (list, tuple)) else [value]
    return listed * count if len(listed) == 1 else listed


@onnx_op(aten.conv1d, aten.conv2d, aten.conv3d)
def convolution(c: Call) -> str:
    padding = c["padding"]
    if isinstance(padding, str):  # resolved before a kernel reaches time; here all axes are space
        kernel, dilation = c["weight"].shape[2:], _spread(c["dilation"], len(c["weight"].shape) - 2)
        total = [0 if padding == "valid" else d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        pads = [0, 0, *(t // 2 for t in total), 0, 0, *(t - t // 2 for t in total)]
        name = c.writer.emit("Pad", c["input"].name, c.writer.ints(pads)) if any(pads) else c["input"].name
        shape = c["input"].shape
        return _convolution(
            Call(c.writer, {**c.args, "input": Ref(name, shape, c.result.dtype), "padding": [0]}, c.result, c.batch)
        )
    return _convolution(c)


@onnx_op(aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d)
def transposed_convolution(c: Call) -> str:
    kernel = c["weight"].shape[2:]
    count = len(kernel)
    inputs = [c["input"].name, c["weight"].name] + ([c["bias"].name] if c["bias"] is not None else [])
    padding = _spread(c["padding"], count)
    return c.writer.emit(
        "ConvTranspose", *inputs, kernel_shape=list(kernel), strides=_spread(c["stride"], count),
        pads=padding + padding, dilations=_spread(c["dilation"], count), group=c["groups"],
        output_padding=_spread(c["output_padding"], count),
    )  # fmt: skip


@onnx_op(aten.linear)
def linear(c: Call) -> str:
    if len(c["input"].shape) == 2:
        bias = [c["bias"].name] if c["bias"] is not None else []
        return c.writer.emit("Gemm", c["input"].name, c["weight"].name, *bias, transB=1)
    turned = c.writer.emit("Transpose", c["weight"].name, perm=[1, 0])
    name = c.writer.emit("MatMul", c["input"].name, turned)
    return name if c["bias"] is None else c.writer.emit("Add", name, c["bias"].name)


@onnx_op(aten.matmul, aten.bmm, aten.mm)
def matmul(c: Call) -> str:
    left, right = list(c.args.values())[:2]
    return c.writer.emit("MatMul", left.name, right.name)


@onnx_op(aten.addmm)
def addmm(c: Call) -> str:
    dtype = c.result.dtype
    product = c.writer.emit("MatMul", c["mat1"].name, c["mat2"].name)
    if c["alpha"] != 1:
        product = c.writer.emit("Mul", product, c.writer.scalar(c["alpha"], dtype))
    added = (
        c["self"].name if c["beta"] == 1 else c.writer.emit("Mul", c["self"].name, c.writer.scalar(c["beta"], dtype))
    )
    return c.writer.emit("Add", product, added)


@onnx_op(aten.softmax, aten._softmax)
def softmax(c: Call) -> str:
    return c.writer.emit("Softmax", c.operand(c.first, c.result.dtype), axis=c["dim"])


@onnx_op(aten.log_softmax, aten._log_softmax)
def log_softmax(c: Call) -> str:
    return c.writer.emit("LogSoftmax", c.operand(c.first, c.result.dtype), axis=c["dim"])


@onnx_op(aten.layer_norm)
def layer_norm(c: Call) -> str:
    shape = list(c["normalized_shape"])
    weight = c["weight"].name if c["weight"] is not None else _ones(c, shape)
    bias = [c["bias"].name] if c["bias"] is not None else []
    return c.writer.emit("LayerNormalization", c["input"].name, weight, *bias, axis=-len(shape), epsilon=c["eps"])


@onnx_op(aten.group_norm, aten.instance_norm)
def group_norm(c: Call) -> str:
    w, dtype, shape = c.writer, c.result.dtype, c.first.shape
    groups = c["num_groups"] if c.op == "group_norm" else shape[1]
    folded = w.reshape(c.first.name, [-1, groups, math.prod(shape[1:]) // groups])
    axis = w.ints([2])
    centred = w.emit("Sub", folded, w.emit("ReduceMean", folded, axis, keepdims=1))
    spread = w.emit("ReduceMean", w.emit("Mul", centred, centred), axis, keepdims=1)
    normed = w.emit("Div", centred, w.emit("Sqrt", w.emit("Add", spread, w.scalar(c["eps"], dtype))))
    name = w.reshape(normed, c.sizes(shape))
    for op, given in (("Mul", c["weight"]), ("Add", c["bias"])):
        if given is not None:
            name = w.emit(op, name, w.reshape(given.name, [shape[1], *[1] * (len(shape) - 2)]))
    return name


@onnx_op(aten.rms_norm)
def rms_norm(c: Call) -> str:
    w, dtype, shape = c.writer, c.result.dtype, list(c["normalized_shape"])
    x = c["input"].name
    axes = w.ints(list(range(len(c["input"].shape) - len(shape), len(c["input"].shape))))
    mean = w.emit("ReduceMean", w.emit("Mul", x, x), axes, keepdims=1)
    eps = torch.finfo(dtype).eps if c["eps"] is None else c["eps"]
    normed = w.emit("Div", x, w.emit("Sqrt", w.emit("Add", mean, w.scalar(eps, dtype))))
    return normed if c["weight"] is None else w.emit("Mul", normed, c["weight"].name)


@onnx_op(aten.scaled_dot_product_attention)
def attention(c: Call) -> str:
    w, dtype = c.writer, c.result.dtype
    query, key, value = c["query"], c["key"], c["value"]
    scale = query.shape[-1] ** -0.5 if c["scale"] is None else c["scale"]
    rank = len(key.shape)
    turned = w.emit("Transpose", key.name, perm=[*range(rank - 2), rank - 1, rank - 2])
    scores = w.emit("MatMul", w.emit("Mul", query.name, w.scalar(scale, dtype)), turned)
    mask = c["attn_mask"]
    if c["is_causal"]:
        size = (query.shape[-2], key.shape[-2])
        lower = torch.zeros(size, dtype=dtype).masked_fill(~torch.ones(size, dtype=torch.bool).tril(), -torch.inf)
        scores = w.emit("Add", scores, w.weight(f"causal_{size[0]}_{size[1]}", lower))
    elif mask is not None and mask.dtype == torch.bool:
        scores = w.emit("Where", mask.name, scores, w.scalar(-float("inf"), dtype))
    elif mask is not None:
        scores = w.emit("Add", scores, c.operand(mask, dtype))
    return w.emit("MatMul", w.emit("Softmax", scores, axis=-1), value.name)


def _ones(c: Call, shape: list[int]) -> str:
    return c.writer.weight(f"ones_{'x'.join(map(str, shape))}", torch.ones(shape, dtype=c.result.dtype))
