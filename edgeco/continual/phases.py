"""Rates above one: the work of each step, as one graph per distinct set of it, over the same states and weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import fx

from edgeco.continual.history import MAX_RATE, History, Mark
from edgeco.errors import ConversionError
from edgeco.graph.timeline import Timeline


@dataclass
class Phase:
    """The work of some steps.

    Attributes:
        module: takes the inputs named in `inputs`, returns (answers, writes).
        inputs: frames and history reads, in call order.
        answers, histories: which of all answers it gives and which histories it writes, by index.
        marks: per alias operator of the module, in order: what it becomes after the end of a recording.
    """

    module: fx.GraphModule
    inputs: tuple[str, ...]
    answers: tuple[int, ...]
    histories: tuple[int, ...]
    marks: list[Mark]


def split(
    module: fx.GraphModule, frames: Sequence[str], answers: Sequence[Timeline], histories: Sequence[History]
) -> tuple[list[Phase], tuple[int | None, ...]]:
    """The phases of a step network and the phase of every step, None where there is nothing to do.

    Args:
        module: the whole network, as if every step did all the work.
        frames: names of the inputs that receive a frame; every phase takes them.
        answers, histories: when each is computed.

    Raises:
        ConversionError: the work repeats only after too many steps.
    """
    rates = {time.rate for time in answers} | {history.rate for history in histories}
    repeat = math.lcm(*rates)
    if repeat > MAX_RATE:
        raise ConversionError(
            f"The network strides in time by {repeat} altogether; up to {MAX_RATE} are supported. Stride less in time."
        )
    phases: list[Phase] = []
    known: dict[tuple[tuple[int, ...], tuple[int, ...]], int | None] = {((), ()): None}
    schedule = []
    for step in range(repeat):
        given = tuple(i for i, time in enumerate(answers) if step % time.rate == time.phase)
        written = tuple(i for i, history in enumerate(histories) if history.written(step))
        if (given, written) not in known:
            known[given, written] = len(phases)
            phases.append(_phase(module, frames, given, written))
        schedule.append(known[given, written])
    return phases, tuple(schedule)


def _phase(
    module: fx.GraphModule, frames: Sequence[str], answers: tuple[int, ...], histories: tuple[int, ...]
) -> Phase:
    end = next(node for node in module.graph.nodes if node.op == "output")
    results: tuple[tuple[fx.Node, ...], tuple[fx.Node, ...]] = end.args[0]
    wanted = (tuple(results[0][i] for i in answers), tuple(results[1][i] for i in histories))
    needed = set()
    waiting = [node for group in wanted for node in group]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting += node.all_input_nodes
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        if node in needed or (node.op == "placeholder" and node.target in frames):
            copied[node] = graph.node_copy(node, lambda n: copied[n])
    graph.output(tuple(tuple(copied[node] for node in group) for group in wanted))
    graph.lint()
    inputs = tuple(str(node.target) for node in graph.nodes if node.op == "placeholder")
    marks = [
        Mark(draft.border or 0.0, draft.ends)
        for draft in (node.meta["draft"] for node in graph.nodes if "draft" in node.meta)
    ]
    return Phase(fx.GraphModule(module, graph, class_name="StepPhase"), inputs, answers, histories, marks)
