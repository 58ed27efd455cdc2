"""A loop over time as one iteration a step: what an iteration reads of the one before is carried from step to step.

As with recurrent layers a stream never begins anew: an answer rests on the whole recording, as the clip network's would
if it were given all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import getitem
from typing import Any

import torch
from torch import fx

from edgeco.continual.builder import StepBuilder, aten
from edgeco.continual.context import Note
from edgeco.continual.value import Kind, Value
from edgeco.errors import EdgecoError, UnsupportedOperator
from edgeco.graph.frames import Frames
from edgeco.graph.layout import Factor, Layout, marked
from edgeco.graph.loops import Loop
from edgeco.graph.rolling import Body, Carry, Element, Exit
from edgeco.graph.timeline import Timeline, merged, worst
from edgeco.graph.trace import where

_ROUNDS = 4
"""Times an iteration is converted at most until the axes of what it carries are known."""


class NotRolled(Exception):
    """A loop stays as it is, or is to be looked for without some of its frames.

    `why` is for the report, None where those frames are none of a stream's.
    """

    def __init__(self, loop: Loop, why: str | None = None, frames: Sequence[Frames] = ()) -> None:
        self.loop, self.why, self.frames = loop, why, frames or loop.frames
        super().__init__(why)


Operator = Callable[[fx.Node], "Value | list[Value]"]


class Rolled:
    """One loop at conversion.

    Args:
        builder: the step graph under construction.
        values: what is known of each node; those of the iteration are added.
        convert_node: converts one node.
        node: the loop's node.
    """

    def __init__(
        self, builder: StepBuilder, values: dict[fx.Node, Value | list[Value]], convert_node: Operator, node: fx.Node
    ) -> None:
        self.builder, self.values, self.convert_node, self.node = builder, values, convert_node, node
        self.body: Body = node.meta["body"]
        self.reads: list[fx.Node] = []
        self.flags: dict[Any, fx.Node] = {}

    def convert(self, report: list[Note]) -> list[Value]:
        """The loop's results, each a stream of one element per iteration.

        Raises:
            NotRolled: it does not run over time, or its iteration cannot be run once a step.
        """
        sources, inputs = (list(nodes) for nodes in self.node.args)  # type: ignore[arg-type]
        time = self._elements([self.values[n] for n in sources])
        for node in inputs:
            value = self.values[node]
            if not isinstance(value, Value) or value.kind is not Kind.CONSTANT:
                self._give_up("every iteration reads a value that itself changes with time")
            self.values[self.body.inputs[node]] = value
        notes = len(report)
        try:
            self._iterate(time)
            results = [self._result(leaving, time) for leaving in self.body.exits]
        except EdgecoError as error:
            raise NotRolled(self.body.loop, f"its iteration cannot be run alone: {error}") from error
        del report[notes:]
        if self.body.carries:
            exactness = worst(*(v.time.exactness for v in results))
            form = "one iteration of the loop a step, its state carried from the start of the recording"
            report.append(Note("loop", where(self.node), exactness, form, time.delay))
        return results

    def _give_up(self, why: str | None = None) -> None:
        raise NotRolled(self.body.loop, why)

    # -- what an iteration takes -------------------------------------------------------------------------------

    def _elements(self, sources: list[Value | list[Value]]) -> Timeline:
        """Give the iteration its own element of every source, all at one delay; returns their common timeline."""
        loop, length = self.body.loop, self.body.loop.length
        parts: list[tuple[Value, Timeline, Element]] = []
        others = []
        for value, element in zip(sources, self.body.elements, strict=True):
            if not isinstance(value, Value) or not _streams(value, element.dim) or value.time.length < length:
                others.append(loop.frames[element.number])
                continue
            time = value.time.cut(element.first, value.time.length - element.first - length)
            parts.append((value, time, element))
        if others:
            raise NotRolled(loop, frames=others)
        if len({time.rate for _, time, _ in parts}) > 1:
            self._give_up("it takes elements of unequal rates")
        delay = max(time.computable for _, time, _ in parts)
        whole = merged([time for _, time, _ in parts], delay, length)
        for value, time, element in parts:
            cut = replace(value, timeline=time, joined=None)
            layout = value.layout.with_size(element.dim, 1) if element.kept else value.layout.drop([element.dim])
            own = replace(time.aged(delay), length=1)
            self.values[element.node] = Value(Kind.STREAM, layout, self.builder.at(cut, delay), own)
        return whole

    # -- one iteration -----------------------------------------------------------------------------------------

    def _iterate(self, time: Timeline) -> None:
        """Convert the iteration, until what it carries has the axes that were given to it."""
        layouts = [marked(tuple(c.node.meta["val"].shape), self.builder.batch) for c in self.body.carries]
        for _ in range(_ROUNDS):
            states = [self._state(c, layout, time) for c, layout in zip(self.body.carries, layouts, strict=True)]
            for node in self.body.graph.nodes:
                if node.op == "call_function":
                    self.values[node] = self.convert_node(node)
            made = [self._made(carry.new, time) for carry in self.body.carries]
            if [value.layout for value in made] == layouts:
                for carry, state, value in zip(self.body.carries, states, made, strict=True):
                    self._become(carry, state, value, time)
                return
            layouts = [value.layout for value in made]
            for read, _ in states:
                self.builder.forget(read)
        self._give_up("the axes of what it carries change from iteration to iteration")

    def _state(self, carry: Carry, layout: Layout, time: Timeline) -> tuple[fx.Node, fx.Node | None]:
        """What an iteration reads of an earlier one, and what is added to its state, less which it is kept."""
        dtype = carry.node.meta["val"].dtype
        if layout.batch is None or dtype != self.builder.dtype:
            self._give_up("it carries something that is no floating-point number of its own for every row")
        number, start = self._start(carry, layout)
        own = replace(
            time,
            length=1,
            past=time.past + time.rate * (time.length - 1),
            exactness=worst(time.exactness, "unpadded"),
        )
        read = self.builder.carried(layout.step, own, number, carry.age)
        value = Value(Kind.STREAM, layout, timeline=own)
        node = self.builder.restored(read, value)
        node = node if start is None else self.builder.call(aten.add.Tensor, node, start)
        self.values[carry.node] = replace(value, node=node)
        return read, start

    def _start(self, carry: Carry, layout: Layout) -> tuple[float, fx.Node | None]:
        """What is before the first iteration: as a number, else as a node in the axes of the state."""
        if not isinstance(carry.start, fx.Node):
            return float(carry.start or 0.0), None
        given = self.values[carry.start]
        assert isinstance(given, Value)
        if given.uniform is not None:
            return given.uniform, None
        rank, rows = given.layout.rank, layout.step.shape[layout.step.batch or 0] // self.builder.batch
        finite = given.tensor is None or bool(torch.isfinite(given.tensor).all())
        if rank != layout.rank or not finite or (rows > 1 and given.tensor is not None):
            self._give_up("what it starts from has not the shape of what it carries")
        node = self.builder.node(given)
        if layout.pure_time is not None:
            node = self.builder.call(aten.squeeze.dim, node, layout.pure_time)
        return 0.0, node

    def _made(self, node: fx.Node, time: Timeline) -> Value:
        """A value of the iteration as a stream of its own at the loop's delay."""
        value = self.values[node]
        if not isinstance(value, Value) or value.kind is Kind.CONSTANT or value.time.rate != time.rate:
            self._give_up("its iteration makes something that does not change from step to step")
        assert isinstance(value, Value)
        if value.time.computable != time.delay or (value.kind is Kind.WINDOW and value.layout.time is not None):
            self._give_up("its iteration looks at other elements than its own")
        return Value(Kind.STREAM, value.layout, self.builder.at(value, time.delay), value.time.aged(time.delay))

    def _become(self, carry: Carry, state: tuple[fx.Node, fx.Node | None], value: Value, time: Timeline) -> None:
        """Settle what a state becomes."""
        read, start = state
        node = self.builder.node(self._beginning(value, carry.first, time))
        node = node if start is None else self.builder.call(aten.sub.Tensor, node, start)
        kept = replace(value, node=node, kind=Kind.STREAM)
        self.builder.carry(read, self.builder.stored(kept, flat=False))

    def _beginning(self, value: Value, first: Any, time: Timeline) -> Value:
        """A value of the iteration with that of the first in its place where the recording begins."""
        if first is None:
            return value
        layout, builder = value.layout.step, self.builder
        begun = self._flag(layout, time)
        other: Any = first
        if isinstance(first, fx.Node):
            given = self.values[first]
            assert isinstance(given, Value)
            if given.kind is not Kind.CONSTANT:
                given = self._made(first, time)
            elif given.layout.rank != value.layout.rank and given.uniform is None:
                self._give_up("its first iteration makes something of another shape")
            other = builder.node(given) if given.uniform is None else given.uniform
            if given.kind is Kind.STREAM and given.layout.step.shape != layout.shape:
                self._give_up("its first iteration makes something of another shape")
        if not isinstance(other, fx.Node):
            other = builder.weight(torch.tensor([float(other)], dtype=builder.dtype))
        node = builder.call(aten.where.self, begun, builder.node(value), other)
        return replace(value, node=node)

    def _flag(self, layout: Layout, time: Timeline) -> fx.Node:
        """Whether this is not the first iteration, for every row, in the axes of a value."""
        batch = layout.batch
        assert batch is not None
        key = layout.axes[batch]
        if key not in self.flags:
            read = self.builder.carried(Layout((key, (Factor(1),))), time)
            again = self.builder.call(aten.mul.Tensor, read, 0.0)
            self.builder.carry(read, self.builder.call(aten.add.Tensor, again, 1.0))
            self.flags[key] = self.builder.call(aten.gt.Scalar, read, 0.5)
        sizes = [-1 if i == batch else 1 for i in range(layout.rank)]
        return self.builder.call(aten.reshape.default, self.flags[key], sizes)

    # -- what leaves it ----------------------------------------------------------------------------------------

    def _result(self, leaving: Exit, time: Timeline) -> Value:
        """A result of every iteration as a stream with an axis of time."""
        value = self._beginning(self._made(leaving.value, time), leaving.first, time)
        layout = value.layout
        own = replace(value.time, length=time.length, room=time.room, starts_at=time.starts_at)
        frame: tuple[Factor, ...] = (Factor(time.length, "time"),)
        if leaving.form == "cat":
            layout = layout.with_axis(leaving.dim, frame)
        else:
            plain = layout if layout.pure_time is None else layout.with_axis(layout.pure_time, ())
            layout = plain.insert(leaving.dim, frame)
        node = self.builder.node(value)
        if layout.step.shape != value.layout.step.shape:
            node = self.builder.call(aten.reshape.default, node, layout.step.sizes())
        return Value(Kind.STREAM, layout, node, own)


def _streams(value: Value, dim: int) -> bool:
    """Whether an axis of a value counts the elements of a stream."""
    return value.kind is Kind.STREAM and value.layout.pure_time == dim and value.time.length > 1


def unrolled(loop: Loop, why: str | None = None) -> list[Note]:
    """What the report says of a loop that stays unrolled, `why` or since its iterations differ."""
    node = loop.differs
    if why is None and node is None:
        return []
    if node is None or why is not None:
        node = loop.families[max(loop.good)][loop.model]
    reason = why or "its iterations differ in more than the element they take"
    return [Note("loop", where(node), "exact", f"all iterations at every step: {reason}", 0)]


def over_time(
    loops: list[Loop], nodes: dict[fx.Node, fx.Node], values: dict[fx.Node, Value | list[Value]]
) -> list[Loop]:
    """Those of several loops that take a stream apart along time.

    Args:
        loops: loops along any axis.
        nodes: each of their graph's nodes in the graph that was converted.
        values: what became of that graph's nodes.
    """
    found = []
    for loop in loops:
        for frames in loop.frames:
            taken = [values.get(source) for source in _sources([nodes[pick] for pick in frames.picks])]
            if loop not in found and any(isinstance(v, Value) and _streams(v, frames.dim) for v in taken):
                found.append(loop)
    return found


def _sources(picks: list[fx.Node]) -> set[fx.Node]:
    """What nodes that take positions take them from; those that are rolled into a loop have gone."""
    several = {n.args[0] if n.target is getitem else n for n in picks}
    return {n.args[0] for n in several if isinstance(n, fx.Node) and isinstance(n.args[0], fx.Node)}


def refuse_backwards(
    loops: list[Loop], nodes: dict[fx.Node, fx.Node], values: dict[fx.Node, Value | list[Value]]
) -> None:
    """Refuse loops from the last element of a stream to its first; arguments as for `over_time`.

    Raises:
        UnsupportedOperator: one of them carries something from element to element.
    """
    for loop in over_time([loop for loop in loops if loop.carries()], nodes, values):
        raise UnsupportedOperator(
            "loop",
            "it runs over the clip from the end, which a stream does not have",
            where(loop.families[min(family for family, _ in loop.carries())][loop.model]),
            "Run it from the start, or use exact=True to recompute it over a live window at every step.",
        )
