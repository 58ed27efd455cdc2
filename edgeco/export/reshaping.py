"""Reductions, pooling, resizing and the operators that move numbers about, in ONNX."""

from __future__ import annotations

import math
from typing import Any

import torch

from edgeco.export.operators import TABLE, Call, Ref, aten, onnx_op, spread
from edgeco.export.writer import GraphWriter


def _reduction(op: str) -> Any:
    def translate(c: Call) -> str:
        dims = c.args.get("dim")
        rank = len(c.first.shape)
        listed = list(range(rank)) if dims in (None, []) else list(dims) if isinstance(dims, (list, tuple)) else [dims]
        name = c.operand(c.first, c.result.dtype)
        return c.writer.emit(
            op, name, c.writer.ints([d % rank for d in listed]), keepdims=int(bool(c.args.get("keepdim", False)))
        )

    return translate


def _mean(c: Call) -> str:
    """Over a whole frame it is global pooling, which engines keep in their own layout."""
    rank, dims = len(c.first.shape), c.args.get("dim")
    given = {d % rank for d in dims} if isinstance(dims, (list, tuple)) else set()
    if c.args.get("keepdim") and rank > 2 and given == set(range(2, rank)) and c.first.dtype == c.result.dtype:
        return c.writer.emit("GlobalAveragePool", c.first.name)
    return str(_reduction("ReduceMean")(c))


TABLE[aten.mean] = _mean
TABLE[aten.sum] = _reduction("ReduceSum")
TABLE[aten.amax] = _reduction("ReduceMax")
TABLE[aten.amin] = _reduction("ReduceMin")


@onnx_op(aten.var, aten.std)
def variance(c: Call) -> str:
    correction = c.args.get("correction", int(bool(c.args.get("unbiased", True))))
    found = variance_of(c.writer, c.first, c.args.get("dim"), correction, bool(c.args.get("keepdim", False)))
    return c.writer.emit("Sqrt", found) if "std" in c.op else found


def variance_of(w: GraphWriter, source: Ref, dims: Any, correction: float | None, keep: bool) -> str:
    """The variance over some axes, or all; without a correction that of a sample."""
    rank = len(source.shape)
    given = [dims] if isinstance(dims, int) else dims or range(rank)
    axes = sorted(d % rank for d in given)
    count = math.prod(source.shape[a] for a in axes)
    named = w.ints(axes)
    centred = w.emit("Sub", source.name, w.emit("ReduceMean", source.name, named, keepdims=1))
    total = w.emit("ReduceSum", w.emit("Mul", centred, centred), named, keepdims=int(keep))
    return w.emit("Div", total, w.scalar(float(count - (1 if correction is None else correction)), source.dtype))


@onnx_op(aten.prod)
def prod(c: Call) -> str:
    return str(_reduction("ReduceProd")(c))


@onnx_op(aten.reshape, aten.view, aten._unsafe_view, aten.flatten, aten.unflatten, aten.unsqueeze, aten.squeeze)
def reshape(c: Call) -> str:
    if tuple(c.result.shape) == c.first.shape:
        return c.first.name
    return c.writer.reshape(c.first.name, c.sizes())


@onnx_op(aten.permute)
def permute(c: Call) -> str:
    rank = len(c.first.shape)
    order = [d % rank for d in c["dims"]]
    return c.first.name if order == sorted(order) else c.writer.emit("Transpose", c.first.name, perm=order)


@onnx_op(aten.transpose, aten.t)
def transpose(c: Call) -> str:
    rank = len(c.first.shape)
    order = list(range(rank))
    a, b = c.args.get("dim0", 0) % rank, c.args.get("dim1", rank - 1) % rank
    order[a], order[b] = order[b], order[a]
    return c.writer.emit("Transpose", c.first.name, perm=order)


@onnx_op(aten.expand)
def expand(c: Call) -> str:
    if tuple(c.result.shape) == c.first.shape:
        return c.first.name
    sizes = [1 if n and n % c.batch == 0 else int(n) for n in c.result.shape]
    return c.writer.emit("Expand", c.first.name, c.writer.ints(sizes))


@onnx_op(aten.cat)
def cat(c: Call) -> str:
    parts = [t.name for t in c["tensors"]]
    return parts[0] if len(parts) == 1 else c.writer.emit("Concat", *parts, axis=c["dim"])


@onnx_op(aten.slice)
def slice_(c: Call) -> str:
    if tuple(c.result.shape) == c.first.shape:
        return c.first.name
    axis = c["dim"] % len(c.first.shape)
    start = 0 if c["start"] is None else c["start"]
    end = c.first.shape[axis] if c["end"] is None else min(c["end"], c.first.shape[axis])
    ints = c.writer.ints
    return c.writer.emit("Slice", c.first.name, ints([start]), ints([end]), ints([axis]), ints([c["step"]]))


@onnx_op(aten.select)
def select(c: Call) -> str:
    axis = c["dim"] % len(c.first.shape)
    index = c["index"] % c.first.shape[axis]
    ints = c.writer.ints
    part = c.writer.emit("Slice", c.first.name, ints([index]), ints([index + 1]), ints([axis]))
    return c.writer.reshape(part, c.sizes())


@onnx_op(aten.flip)
def flip(c: Call) -> str:
    rank, ints = len(c.first.shape), c.writer.ints
    axes = [d % rank for d in c["dims"]]
    ends = ints([-(2**31)] * len(axes))
    return c.writer.emit("Slice", c.first.name, ints([-1] * len(axes)), ends, ints(axes), ints([-1] * len(axes)))


@onnx_op(aten.cumsum)
def cumsum(c: Call) -> str:
    axis = c.writer.index(c["dim"] % len(c.first.shape))
    return c.writer.emit("CumSum", c.operand(c.first, c.result.dtype), axis)


@onnx_op(aten.logsumexp)
def logsumexp(c: Call) -> str:
    return str(_reduction("ReduceLogSumExp")(c))


@onnx_op(aten.repeat)
def repeat(c: Call) -> str:
    return c.writer.emit("Tile", c.first.name, c.writer.ints(c["repeats"]))


@onnx_op(aten.full_like, aten.zeros_like, aten.ones_like)
def full_like(c: Call) -> str:
    number = c.args.get("fill_value", 1.0 if c.op == "ones_like" else 0.0)
    zero = c.writer.emit("Mul", c.operand(c.first, c.result.dtype), c.writer.scalar(0, c.result.dtype))
    return c.writer.emit("Add", zero, c.writer.scalar(number, c.result.dtype))


@onnx_op(aten.pad, aten.constant_pad_nd)
def pad(c: Call) -> str:
    rank, pads = len(c.first.shape), list(c["pad"])
    count = len(pads) // 2
    before, after = [0] * rank, [0] * rank
    for i in range(count):
        before[rank - 1 - i], after[rank - 1 - i] = pads[2 * i], pads[2 * i + 1]
    mode = {"replicate": "edge", "circular": "wrap"}.get(c.args.get("mode", "constant"), c.args.get("mode", "constant"))
    number = [c.writer.scalar(c.args.get("value") or 0.0, c.result.dtype)] if mode == "constant" else []
    return c.writer.emit("Pad", c.first.name, c.writer.ints(before + after), *number, mode=mode)


def _framed(c: Call, count: int, emit: Any) -> str:
    """Pooling of a value that may lack the batch axis that ONNX demands."""
    if len(c.first.shape) == count + 2:
        return str(emit(c.first.name))
    lifted = c.writer.reshape(c.first.name, [1, *c.sizes(c.first.shape)])
    return c.writer.reshape(emit(lifted), c.sizes())


@onnx_op(aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d)
def average_pool(c: Call) -> str:
    count = len(c.first.shape) - 2 if c.args.get("divisor_override") is None else 2
    kernel = spread(c["kernel_size"], count)
    stride = spread(c["stride"], count) if c["stride"] else kernel
    padding = spread(c["padding"], count)
    divisor = c.args.get("divisor_override")
    include = int(c["count_include_pad"])

    def emit(name: str) -> str:
        pooled = c.writer.emit(
            "AveragePool", name, kernel_shape=kernel, strides=stride, pads=padding + padding,
            ceil_mode=int(c["ceil_mode"]), count_include_pad=1 if divisor else include,
        )  # fmt: skip
        area = torch.tensor(kernel).prod().item()
        return pooled if not divisor else c.writer.emit("Mul", pooled, c.writer.scalar(area / divisor, c.result.dtype))

    return _framed(c, len(kernel), emit)


@onnx_op(aten.max_pool1d, aten.max_pool2d, aten.max_pool3d)
def max_pool(c: Call) -> str:
    count = len(c.first.shape) - 2
    kernel = spread(c["kernel_size"], count)
    stride = spread(c["stride"], count) if c["stride"] else kernel
    padding, dilation = spread(c["padding"], count), spread(c["dilation"], count)
    return _framed(
        c,
        count,
        lambda name: c.writer.emit(
            "MaxPool", name, kernel_shape=kernel, strides=stride, pads=padding + padding, dilations=dilation,
            ceil_mode=int(c["ceil_mode"]),
        ),
    )  # fmt: skip


@onnx_op(aten.upsample_nearest1d, aten.upsample_nearest2d, aten.upsample_nearest3d)
def resize_nearest(c: Call) -> str:
    return _resize(c, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")


@onnx_op(aten.upsample_linear1d, aten.upsample_bilinear2d, aten.upsample_trilinear3d)
def resize_linear(c: Call) -> str:
    how = "align_corners" if c["align_corners"] else "half_pixel"
    return _resize(c, mode="linear", coordinate_transformation_mode=how)


def _resize(c: Call, **attributes: Any) -> str:
    scales = [1.0, 1.0] + [o / i for o, i in zip(c.result.shape[2:], c.first.shape[2:], strict=True)]
    name = c.writer.weight(f"scales_{'_'.join(f'{s:.9g}' for s in scales)}", torch.tensor(scales, dtype=torch.float32))
    return c.writer.emit("Resize", c.first.name, "", name, **attributes)


@onnx_op(aten.pixel_shuffle)
def pixel_shuffle(c: Call) -> str:
    return c.writer.emit("DepthToSpace", c.first.name, blocksize=c["upscale_factor"], mode="CRD")


@onnx_op(aten.index_select)
def index_select(c: Call) -> str:
    return c.writer.emit("Gather", c["self"].name, c["index"].name, axis=c["dim"])


@onnx_op(aten.argmax, aten.argmin)
def place_of_extreme(c: Call) -> str:
    op = "ArgMax" if "argmax" in c.op else "ArgMin"
    return c.writer.emit(op, c.first.name, axis=c["dim"] % len(c.first.shape), keepdims=int(c["keepdim"]))


@onnx_op(aten.gather)
def gather(c: Call) -> str:
    return c.writer.emit("GatherElements", c.first.name, c["index"].name, axis=c["dim"] % len(c.first.shape))
