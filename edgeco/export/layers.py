"""Convolutions, products of matrices, norms and attention in ONNX."""

from __future__ import annotations

import math

import torch

from edgeco.export.operators import Call, Ref, aten, onnx_op, spread


def _convolution(c: Call) -> str:
    kernel = c["weight"].shape[2:]
    inputs = [c["input"].name, c["weight"].name] + ([c["bias"].name] if c["bias"] is not None else [])
    padding = spread(c["padding"], len(kernel))
    return c.writer.emit(
        "Conv", *inputs, kernel_shape=list(kernel), strides=spread(c["stride"], len(kernel)), pads=padding + padding,
        dilations=spread(c["dilation"], len(kernel)), group=c["groups"],
    )  # fmt: skip


@onnx_op(aten.conv1d, aten.conv2d, aten.conv3d)
def convolution(c: Call) -> str:
    padding = c["padding"]
    if isinstance(padding, str):  # resolved before a kernel reaches time; here all axes are space
        kernel, dilation = c["weight"].shape[2:], spread(c["dilation"], len(c["weight"].shape) - 2)
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
    padding = spread(c["padding"], count)
    return c.writer.emit(
        "ConvTranspose", *inputs, kernel_shape=list(kernel), strides=spread(c["stride"], count),
        pads=padding + padding, dilations=spread(c["dilation"], count), group=c["groups"],
        output_padding=spread(c["output_padding"], count),
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
    variance = w.emit("ReduceMean", w.emit("Mul", centred, centred), axis, keepdims=1)
    normed = w.emit("Div", centred, w.emit("Sqrt", w.emit("Add", variance, w.scalar(c["eps"], dtype))))
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


def adaptive_parts(size: int, wanted: int) -> list[tuple[int, int]]:
    """First and end of the part of an axis that each element of an adaptive pooling is of."""
    return [(i * size // wanted, -(-(i + 1) * size // wanted)) for i in range(wanted)]


@onnx_op(aten.adaptive_avg_pool1d, aten.adaptive_avg_pool2d, aten.adaptive_avg_pool3d, aten._adaptive_avg_pool2d)
def adaptive_average(c: Call) -> str:
    """Products with a matrix of shares per axis: the parts may overlap and be of unequal size."""
    w, name, sizes = c.writer, c.first.name, c["output_size"]
    rank = len(c.first.shape)
    for axis, wanted in enumerate(sizes, start=rank - len(sizes)):
        size = c.first.shape[axis]
        if size == wanted:
            continue
        shares = torch.zeros(size, wanted, dtype=c.result.dtype)
        for i, (first, end) in enumerate(adaptive_parts(size, wanted)):
            shares[first:end, i] = 1 / (end - first)
        weight = w.weight(f"shares_{size}_{wanted}_{str(c.result.dtype)[6:]}", shares)
        order = [*(i for i in range(rank) if i != axis), axis]
        name = w.emit("Transpose", name, perm=order) if axis < rank - 1 else name
        name = w.emit("MatMul", name, weight)
        back = [order.index(i) for i in range(rank)]
        name = w.emit("Transpose", name, perm=back) if axis < rank - 1 else name
    return name
