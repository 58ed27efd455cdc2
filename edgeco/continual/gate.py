"""The start-up gate inside the graph, for hosts that cannot replace what a history is given before its first step.

Every stream counts its own steps in a state of its own, and a history whose elements count from step `starts_at` takes
its border until then. A choice, not a product with a mask: what an empty past makes of a network may be NaN.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NoReturn

import torch
from torch import fx

from edgeco.continual.convert import StepGraph
from edgeco.continual.history import History
from edgeco.continual.phases import split
from edgeco.errors import ConversionError, UnsupportedOperator
from edgeco.graph.trace import op_name, where

aten = torch.ops.aten

COUNTER = "row_step"
"""Name of the state that counts; where the network strides in time, one per rate and phase, which follow its name."""


def gate(step: StepGraph) -> StepGraph:
    """The same step graph with its start-up inside: no history has a `starts_at` left.

    The counters are floating-point numbers that stand still once all has started, so that they never lose count.

    Raises:
        ConversionError: the network pads in time by copies of its first element, which lie in many places at once.
    """
    for history in step.histories:
        if history.before == "first":
            _refuse_copies(step, history)
    limits = {history.name: _early(history) for history in step.histories}
    if not any(limits.values()):
        return replace(step, histories=[replace(history, starts_at=0) for history in step.histories])
    graph = fx.Graph()
    results = graph.graph_copy(step.module.graph, {})
    assert isinstance(results, tuple)
    outputs, writes = results
    gating = _Gating(graph, step)
    gated = [gating.gated(h, node, limits[h.name]) for h, node in zip(step.histories, writes, strict=True)]
    counters, counts = gating.finish()
    graph.output((tuple(outputs), (*gated, *counts)))
    graph.lint()
    module = fx.GraphModule(step.module, graph, class_name="StepNetwork")
    histories = [*(replace(history, starts_at=0) for history in step.histories), *counters]
    frames = [item.name for item in step.clip.inputs]
    phases, schedule = split(module, frames, [answer.timeline for answer in step.answers], histories)
    period = math.lcm(step.period, *(counter.buffers * counter.rate for counter in counters))
    return replace(step, module=module, histories=histories, period=period, phases=phases, schedule=schedule)


def _refuse_copies(step: StepGraph, history: History) -> NoReturn:
    """Name an operator that reads copies of the first element."""
    read = next(node for node in step.module.graph.nodes if node.target in history.inputs)
    source = _source_behind(read)
    why = (
        "a value padded in time by copies of its first element, and inside the graph of a gated network only the "
        "element that a step writes can be chosen"
    )
    if source is None:
        raise ConversionError(f"An answer is {why}. Pad by zeros, or leave out gated.")
    raise UnsupportedOperator(op_name(source), f"it reads {why}", where(source), "Pad by zeros, or leave out gated.")


def _source_behind(read: fx.Node) -> fx.Node | None:
    """The operator of the clip network for which an element is read, or the nearest behind; None where none is."""
    waiting = list(read.users)
    for node in waiting:  # grows as it goes
        source = node.meta.get("source")
        if isinstance(source, fx.Node):
            return source
        waiting += [user for user in node.users if user not in waiting]
    return None


def _early(history: History) -> int:
    """How many elements to replace: those before `starts_at`, unless no reader ever looks there."""
    return 0 if history.ends is None else max(0, -((history.phase - history.starts_at) // history.rate))


class _Gating:
    """Adds counters and choices to a copy of a step graph whose output is still missing."""

    def __init__(self, graph: fx.Graph, step: StepGraph) -> None:
        self.graph, self.dtype = graph, step.dtype
        self.last_input = [node for node in graph.nodes if node.op == "placeholder"][-1]
        self.reads: dict[tuple[int, int], tuple[History, fx.Node, int]] = {}
        """By rate and phase: the counter, what it was before the step, and where it may stop."""
        self.open: dict[tuple[int, int, int, int], fx.Node] = {}

    def gated(self, history: History, new: fx.Node, limit: int) -> fx.Node:
        """What a history keeps of a new element: the element, or its border for the first `limit`."""
        if limit == 0:
            return new
        finite = torch.finfo(history.dtype)
        border = min(max(history.border, finite.min), finite.max)
        rows, shape = history.rows_per_stream, history.shape
        if rows == 1:
            return self.graph.call_function(
                aten.where.ScalarOther, (self._started(history, limit, 1 + len(shape)), new, border)
            )
        # The counter has one number per stream, and the element several rows of it.
        apart = self.graph.call_function(aten.reshape.default, (new, [-1, rows * math.prod(shape)]))
        chosen = self.graph.call_function(aten.where.ScalarOther, (self._started(history, limit, 2), apart, border))
        return self.graph.call_function(aten.reshape.default, (chosen, [-1, *shape]))

    def _started(self, history: History, limit: int, rank: int) -> fx.Node:
        """Whether so many elements have been written, as a condition for elements of a rank."""
        which = (history.rate, history.phase)
        counter, read, most = self.reads.get(which) or self._counter(*which)
        self.reads[which] = (counter, read, max(most, limit))
        key = (*which, limit, rank)
        if key not in self.open:
            known = self.graph.call_function(aten.ge.Scalar, (read, limit - 0.5))
            if rank != 2:
                known = self.graph.call_function(aten.reshape.default, (known, [-1, *[1] * (rank - 1)]))
            self.open[key] = known
        return self.open[key]

    def _counter(self, rate: int, phase: int) -> tuple[History, fx.Node, int]:
        name = COUNTER if rate == 1 else f"{COUNTER}_{rate}_{phase}"
        history = History(
            name=name, storage="carry", shape=(1,), dtype=self.dtype, depth=1, ages=(1,), border=0.0, starts_at=0,
            rows_per_stream=1, buffers=2, ends=None, rate=rate, phase=phase,
        )  # fmt: skip
        with self.graph.inserting_after(self.last_input):
            read = self.graph.placeholder(history.inputs[0])
        self.last_input = read
        return history, read, 0

    def finish(self) -> tuple[list[History], list[fx.Node]]:
        """The counters, and what each is after the step."""
        counts = []
        for _, read, most in self.reads.values():
            more = self.graph.call_function(aten.add.Tensor, (read, 1.0))
            counts.append(self.graph.call_function(aten.clamp_max.default, (more, float(most))))
        return [counter for counter, _, _ in self.reads.values()], counts
