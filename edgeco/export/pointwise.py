"""Operators that take each element by itself, in ONNX."""

from __future__ import annotations

import math
from typing import Any

import torch

from edgeco.export.operators import TABLE, Call, Ref, Translator, aten, onnx_op


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
