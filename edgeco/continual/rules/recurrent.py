"""Recurrent layers: one cell per step, their state carried from step to step.

A stream never begins anew, so that an answer rests on the whole recording, as the clip network's would if it were given
all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import fx

from edgeco.continual.builder import StepBuilder, aten
from edgeco.continual.context import Context
from edgeco.continual.registry import rule
from edgeco.continual.value import Kind, Value
from edgeco.graph.layout import Layout, marked, plain
from edgeco.graph.timeline import Timeline, worst


@dataclass(frozen=True)
class Gates:
    """Weights of one layer, and how a step multiplies by them."""

    builder: StepBuilder
    weights: list[Value]
    biased: bool

    def given(self, x: fx.Node) -> fx.Node:
        """W x + b, for all gates."""
        return self._linear(x, 0)

    def kept(self, before: fx.Node) -> fx.Node:
        """U h + c, for all gates."""
        return self._linear(before, 1)

    def projected(self, hidden: fx.Node) -> fx.Node:
        """The smaller output of a cell with a projection."""
        own = self.weights[4 if self.biased else 2 :]
        if not own:
            return hidden
        return self.builder.call(aten.linear.default, hidden, self.builder.node(own[0]), None)

    def size(self, op: str) -> int:
        """Numbers of one gate."""
        return self.weights[0].layout.shape[0] // {"lstm": 4, "gru": 3}.get(op.split(".")[1], 1)

    def _linear(self, x: fx.Node, which: int) -> fx.Node:
        bias = self.builder.node(self.weights[2 + which]) if self.biased else None
        return self.builder.call(aten.linear.default, x, self.builder.node(self.weights[which]), bias)

    def part(self, gates: fx.Node, number: int, size: int) -> fx.Node:
        """One gate of those that lie side by side."""
        return self.builder.call(aten.slice.Tensor, gates, 1, number * size, (number + 1) * size)

    def add(self, a: fx.Node, b: fx.Node) -> fx.Node:
        return self.builder.call(aten.add.Tensor, a, b)

    def mul(self, a: fx.Node, b: fx.Node) -> fx.Node:
        return self.builder.call(aten.mul.Tensor, a, b)

    def sigmoid(self, x: fx.Node) -> fx.Node:
        return self.builder.call(aten.sigmoid.default, x)

    def tanh(self, x: fx.Node) -> fx.Node:
        return self.builder.call(aten.tanh.default, x)


Cell = Callable[[Gates, fx.Node, list[fx.Node], int], list[fx.Node]]
"""From the input, the states before and the size of a gate to the states after; the first state is the output."""


@rule(aten.rnn_tanh.input)
def rnn_tanh(ctx: Context) -> Value | list[Value]:
    """Elman's cell with tanh."""
    return _recurrent(ctx, lambda g, x, s, _: [g.tanh(g.add(g.given(x), g.kept(s[0])))], [ctx.args["hx"]])


@rule(aten.rnn_relu.input)
def rnn_relu(ctx: Context) -> Value | list[Value]:
    """Elman's cell with relu."""

    def cell(g: Gates, x: fx.Node, states: list[fx.Node], _: int) -> list[fx.Node]:
        return [g.builder.call(aten.relu.default, g.add(g.given(x), g.kept(states[0])))]

    return _recurrent(ctx, cell, [ctx.args["hx"]])


@rule(aten.gru.input)
def gru(ctx: Context) -> Value | list[Value]:
    """The gated recurrent unit, its reset gate applied after the product: n = tanh(W x + b + r (U h + c))."""

    def cell(g: Gates, x: fx.Node, states: list[fx.Node], size: int) -> list[fx.Node]:
        given, kept, before = g.given(x), g.kept(states[0]), states[0]
        reset, update = (g.sigmoid(g.add(g.part(given, i, size), g.part(kept, i, size))) for i in (0, 1))
        new = g.tanh(g.add(g.part(given, 2, size), g.mul(reset, g.part(kept, 2, size))))
        # (1 - z) n + z h
        return [g.add(new, g.mul(update, g.builder.call(aten.sub.Tensor, before, new)))]

    return _recurrent(ctx, cell, [ctx.args["hx"]])


@rule(aten.lstm.input)
def lstm(ctx: Context) -> Value | list[Value]:
    """Long short-term memory, with or without a projection of its output."""

    def cell(g: Gates, x: fx.Node, states: list[fx.Node], size: int) -> list[fx.Node]:
        gates = g.add(g.given(x), g.kept(states[0]))
        into, forget, out = (g.sigmoid(g.part(gates, i, size)) for i in (0, 1, 3))
        memory = g.add(g.mul(forget, states[1]), g.mul(into, g.tanh(g.part(gates, 2, size))))
        return [g.projected(g.mul(out, g.tanh(memory))), memory]

    return _recurrent(ctx, cell, list(ctx.args["hx"]))


@rule(aten.rnn_tanh.data, aten.rnn_relu.data, aten.gru.data, aten.lstm.data)
def packed(ctx: Context) -> Value | list[Value]:
    """Packed sequences hold clips of several lengths, which a stream does not have."""
    ctx.refuse("it takes packed sequences", "Give it the padded tensor: a stream has no end to mark.")


def _recurrent(ctx: Context, cell: Cell, initial: list[Value]) -> Value | list[Value]:
    value: Value = ctx.args["input"]
    both = bool(ctx.args["bidirectional"])
    if both and value.kind is not Kind.WINDOW and ctx.exact is None:
        ctx.refuse(
            "it is bidirectional: its second half reads the clip from the end, which a stream does not have",
            "Use a unidirectional layer, or exact=True to recompute it over a live window at every step.",
        )
    if value.kind is Kind.WINDOW or both or ctx.exact == "clip" or any(v.kind is not Kind.CONSTANT for v in initial):
        return _window(ctx, cell, initial)
    if value.layout.pure_time != (1 if ctx.args["batch_first"] else 0) or value.layout.rank != 3:
        ctx.refuse(
            "its axis of time is not the one that counts frames, or it lacks a batch",
            "Give it (batch, time, numbers) with batch_first=True, or (time, batch, numbers) without.",
        )
    ready = ctx.ready(value)
    batch = value.layout.batch
    assert batch is not None
    x = ctx.builder.node(ready)
    lasting: list[list[fx.Node]] = []
    for layer, gates in enumerate(_layers(ctx)):
        lasting.append(_layer(ctx, cell, gates, x, initial, layer, ready))
        x = lasting[-1][0]
    time = replace(
        ready.time,
        past=ready.time.past + ready.time.rate * (ready.time.length - 1),
        exactness=worst(ready.time.exactness, "unpadded"),
    )
    ctx.note(time, "one cell a step, its state carried from the start of the recording")
    layout = value.layout.with_axis(2, plain([ctx.node.meta["val"][0].shape[2]]).axes[0])
    return [ctx.stream(x, layout, time), *_finals(ctx, lasting, value.layout.axes[batch], time)]


def _layers(ctx: Context) -> list[Gates]:
    """Every layer's weights, of both directions where there are two."""
    layers = ctx.args["num_layers"] * (2 if ctx.args["bidirectional"] else 1)
    count = len(ctx.args["params"]) // layers
    weights = [ctx.args["params"][i * count : (i + 1) * count] for i in range(layers)]
    return [Gates(ctx.builder, own, bool(ctx.args["has_biases"])) for own in weights]


def _window(ctx: Context, cell: Cell, initial: list[Value]) -> list[Value]:
    """The whole layer over a live window, from its initial state at every step."""
    builder, value = ctx.builder, ctx.args["input"]
    nodes, timeline = ctx.windows("a recurrent layer that starts anew in every window")
    axis = 1 if ctx.args["batch_first"] else 0
    xs = [builder.call(aten.select.int, nodes[id(value)], axis, i) for i in range(value.layout.shape[axis])]
    starts = [nodes.get(id(given)) or builder.node(given) for given in initial]
    lasting = []
    directions = 2 if ctx.args["bidirectional"] else 1
    passed: list[list[fx.Node]] = []
    for number, gates in enumerate(_layers(ctx)):
        states = [builder.call(aten.select.int, start, 0, number) for start in starts]
        backwards = number % directions == 1
        made = []
        for x in reversed(xs) if backwards else xs:
            states = cell(gates, x, states, gates.size(ctx.op))
            made.append(states[0])
        lasting.append(states)
        passed.append(made[::-1] if backwards else made)
        if len(passed) == directions:
            pairs = list(zip(*passed, strict=True))
            xs = [builder.call(aten.cat.default, list(pair), 1) if directions == 2 else pair[0] for pair in pairs]
            passed = []
    results = [builder.call(aten.stack.default, xs, axis)]
    results += [builder.call(aten.stack.default, [states[n] for states in lasting], 0) for n in range(len(initial))]
    layouts = [marked(tuple(result.shape), builder.batch) for result in ctx.node.meta["val"]]
    return [Value(Kind.WINDOW, layout, node, timeline) for layout, node in zip(layouts, results, strict=True)]


def _layer(
    ctx: Context, cell: Cell, gates: Gates, x: fx.Node, initial: list[Value], layer: int, value: Value
) -> list[fx.Node]:
    """One layer: states are kept less their initial contents, so that a history's border of zero stands for these."""
    builder = ctx.builder
    batch = value.layout.batch
    assert batch is not None
    size = gates.size(ctx.op)
    carried = []
    for given in initial:
        layout = Layout((value.layout.axes[batch], plain([given.layout.shape[2]]).axes[0]))
        read = builder.carried(layout, value.time)
        start = None if given.uniform == 0.0 else builder.call(aten.select.int, builder.node(given), 0, layer)
        carried.append((read, start, read if start is None else builder.call(aten.add.Tensor, read, start)))
    made = cell(gates, x, [before for _, _, before in carried], size)
    for (read, start, _), new in zip(carried, made, strict=True):
        builder.carry(read, new if start is None else builder.call(aten.sub.Tensor, new, start))
    return made


def _finals(ctx: Context, lasting: list[list[fx.Node]], rows: tuple[object, ...], time: Timeline) -> list[Value]:
    """What each layer's states are at the end of the clip, (layers, rows, numbers): here of all frames so far."""
    whole = time.windowed(time.length, time.delay + time.rate * (time.length - 1))
    whole = replace(whole, past=0, exactness=time.exactness)
    found = []
    for number in range(len(lasting[0])):
        stacked = ctx.builder.call(aten.stack.default, [states[number] for states in lasting], 0)
        size = ctx.node.meta["val"][1 + number].shape[2]
        layout = Layout((plain([len(lasting)]).axes[0], rows, plain([size]).axes[0]))  # type: ignore[arg-type]
        found.append(Value(Kind.STREAM, layout, stacked, whole))
    return found


__all__ = ["Cell", "Gates", "gru", "lstm", "packed", "rnn_relu", "rnn_tanh"]
