"""Linear layers and products of matrices: exact where time is not summed over, a live window where it is."""

from __future__ import annotations

from torch import fx

from edgeco.continual.builder import aten
from edgeco.continual.context import Context
from edgeco.continual.registry import rule
from edgeco.continual.rules.pointwise import time_offset
from edgeco.continual.value import Kind, Value
from edgeco.graph.layout import Axis, Layout


@rule(aten.linear)
def linear(ctx: Context) -> Value | list[Value]:
    """Linear layer over the last axis."""
    value = ctx.args["input"]
    time = value.layout.time
    if value.kind is Kind.WINDOW or time == value.layout.rank - 1:
        return ctx.window("a linear layer over time")
    if ctx.args["weight"].tensor is None:
        ctx.refuse("its weight is computed from the input", "Use matmul.")
    ready = ctx.ready(value)
    layout = value.layout.with_axis(value.layout.rank - 1, ()).with_size(value.layout.rank - 1, ctx.shape[-1])
    return ctx.stream(ctx.emit({}, {id(value): ctx.builder.node(ready)}), layout, ready.time)


@rule(aten.matmul, aten.bmm, aten.mm)
def matmul(ctx: Context) -> Value | list[Value]:
    """(…, i, k) by (…, k, j): time may be an i, a j or one of the leading axes, but not the k."""
    left, right = list(ctx.args.values())[:2]
    return _labelled(ctx, *_matmul_labels(left.layout.rank, right.layout.rank))


@rule(aten.einsum)
def einsum(ctx: Context) -> Value | list[Value]:
    """Any sum of products: the time letter may stay or be absent, but not be summed."""
    equation = ctx.args["equation"].replace(" ", "")
    operands: list[Value] = ctx.args["tensors"]
    if any(v.kind is Kind.WINDOW for v in operands) or "->" not in equation or "." in equation:
        return ctx.window()
    sides, result = equation.split("->")
    return _labelled(ctx, sides.split(","), result, operands)


def _matmul_labels(left: int, right: int) -> tuple[list[str], str]:
    """Letters of matmul's operands: leading axes aligned from the right, then i, k and j."""
    lead = max(left, right, 2) - 2
    shared = "abcdefgh"[:lead]
    a = ("" if left < 2 else shared[lead - (left - 2) :] + "i") + "k"
    b = ("" if right < 2 else shared[lead - (right - 2) :]) + "k" + ("" if right < 2 else "j")
    return [a, b], shared + ("i" if left > 1 else "") + ("j" if right > 1 else "")


def _labelled(
    ctx: Context, letters: list[str], result: str, operands: list[Value] | None = None
) -> Value | list[Value]:
    values = operands or list(ctx.args.values())[: len(letters)]
    if any(v.kind is Kind.WINDOW for v in values):
        return ctx.window()
    streams = [v for v in values if v.kind is Kind.STREAM]
    marks = {
        word[v.layout.time]
        for v, word in zip(values, letters, strict=True)
        if v.kind is Kind.STREAM and v.layout.time is not None
    }
    mark = next(iter(marks), None)
    spans = [word for v, word in zip(values, letters, strict=True) if v.kind is Kind.CONSTANT and mark and mark in word]
    unequal = len({v.time.length for v in streams}) > 1
    pure = all(v.layout.time is None or v.layout.pure_time is not None for v in streams)
    if (
        len(marks) > 1
        or spans
        or unequal
        or (mark is not None and mark not in result)
        or not (pure or _leading(streams))
    ):
        return ctx.window("a product that sums over time")
    timeline = ctx.together(streams)
    delay = timeline.delay
    nodes = [ctx.builder.at(v, delay) if v.kind is Kind.STREAM else ctx.builder.node(v) for v in values]
    layout = _result_layout(values, letters, result, ctx)
    node = _emit(ctx, nodes, values, letters, result, mark if pure else None)
    return ctx.stream(node, layout, timeline)


def _leading(streams: list[Value]) -> bool:
    return time_offset(streams) is not None and all(v.layout.time in (None, 0) for v in streams)


def _result_layout(values: list[Value], letters: list[str], result: str, ctx: Context) -> Layout:
    axes: list[Axis] = []
    for letter, size in zip(result, ctx.shape, strict=True):
        found: Axis = ()
        for value, word in zip(values, letters, strict=True):
            if letter in word and value.layout.shape[word.index(letter)] == size:
                axis = value.layout.axes[word.index(letter)]
                if not found or any(f.role != "plain" for f in axis):
                    found = axis
        axes.append(found)
    return Layout(tuple(axes))


def _emit(
    ctx: Context, nodes: list[fx.Node], values: list[Value], letters: list[str], result: str, mark: str | None
) -> fx.Node:
    """Emit on step values.

    Time that is a leading axis of every operand is simply gone; else it becomes an axis of one.
    """
    target_is_einsum = "einsum" in str(ctx.node.target)
    if target_is_einsum:
        words = [
            w.replace(mark, "") if mark and v.kind is Kind.STREAM else w for w, v in zip(letters, values, strict=True)
        ]
        equation = ",".join(words) + "->" + (result.replace(mark, "") if mark else result)
        return ctx.builder.call(aten.einsum.default, equation, nodes)
    call = ctx.builder.call
    if mark in (None, "i", "j"):
        kept = [
            call(aten.unsqueeze.default, n, w.index(mark)) if mark and mark in w and v.kind is Kind.STREAM else n
            for n, w, v in zip(nodes, letters, values, strict=True)
        ]
        node = call(aten.matmul.default, *kept)
        return call(aten.squeeze.dim, node, result.index(mark)) if mark else node
    squeezed = [
        call(aten.squeeze.dim, n, w.index(mark)) if mark in w and v.kind is Kind.CONSTANT else n
        for n, w, v in zip(nodes, letters, values, strict=True)
    ]
    return call(aten.matmul.default, *squeezed)


@rule(aten.addmm)
def addmm(ctx: Context) -> Value | list[Value]:
    """bias + mat1 @ mat2, with a constant bias and matrix, as a linear layer is written by hand."""
    value, matrix = ctx.args["mat1"], ctx.args["mat2"]
    if (
        value.kind is Kind.WINDOW
        or matrix.kind is not Kind.CONSTANT
        or value.layout.time == 1
        or ctx.args["self"].kind is not Kind.CONSTANT
    ):
        return ctx.window("a product that sums over time")
    ready = ctx.ready(value)
    layout = Layout((value.layout.axes[0], *[()])).with_size(1, ctx.shape[1])
    return ctx.stream(ctx.emit({}, {id(value): ctx.builder.node(ready)}), layout, ready.time)
