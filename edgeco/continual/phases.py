"""Rates above one: the work of each step, as one graph per distinct set of it, over the same states and weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from torch import fx

from edgeco.continual.history import MAX_RATE, History, Mark
from edgeco.continual.turns import taken, takes_turns
from edgeco.continual.value import Kind, Value
from edgeco.errors import UnsupportedOperator
from edgeco.graph.timeline import Timeline
from edgeco.graph.trace import op_name, where


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


def repeats_after(module: fx.GraphModule, answers: Sequence[Timeline], histories: Sequence[History]) -> int:
    """Steps after which the work of a step network repeats."""
    rates = {time.rate for time in answers} | {history.rate for history in histories}
    return math.lcm(*rates, *(int(node.args[1]) for node in module.graph.nodes if takes_turns(node)))


def refuse_rates(values: Mapping[fx.Node, object]) -> NoReturn:
    """Name the operator with which the rates of a network's branches get too great a common multiple."""
    common, last = 1, next(iter(values))
    for node, value in values.items():
        if not isinstance(value, Value) or value.kind is Kind.CONSTANT:
            continue
        before, common, last = common, math.lcm(common, value.time.rate), node
        if common > MAX_RATE:
            raise UnsupportedOperator(
                op_name(node),
                f"it gives an element every {value.time.rate} frames and other parts one every {before}, so that the "
                f"work would repeat only every {common} frames, and {MAX_RATE} is the limit",
                where(node),
                "Choose strides in time of which one divides the other.",
            )
    raise UnsupportedOperator(
        op_name(last),
        f"the work up to it repeats only after more than {MAX_RATE} frames",
        where(last),
        "Stride less in time.",
    )


def split(
    module: fx.GraphModule, frames: Sequence[str], answers: Sequence[Timeline], histories: Sequence[History]
) -> tuple[list[Phase], tuple[int | None, ...]]:
    """The phases of a step network and the phase of every step, None where there is nothing to do.

    Args:
        module: the whole network, as if every step did all the work.
        frames: names of the inputs that receive a frame; every phase takes them.
        answers, histories: when each is computed.
    """
    repeat = repeats_after(module, answers, histories)
    phases: list[Phase] = []
    known: dict[tuple[object, ...], int] = {}
    schedule: list[int | None] = []
    for step in range(repeat):
        given = tuple(i for i, time in enumerate(answers) if step % time.rate == time.phase)
        written = tuple(i for i, history in enumerate(histories) if history.written(step))
        if not given and not written:
            schedule.append(None)
            continue
        work = _Work(module, step, given, written)
        if work.key not in known:
            known[work.key] = len(phases)
            phases.append(work.phase(frames))
        schedule.append(known[work.key])
    return phases, tuple(schedule)


class _Work:
    """What has to be done for some answers and histories in a step.

    Attributes:
        key: equal for steps that do the same.
    """

    def __init__(self, module: fx.GraphModule, step: int, answers: tuple[int, ...], histories: tuple[int, ...]) -> None:
        self._module, self._step, self._answers, self._histories = module, step, answers, histories
        end = next(node for node in module.graph.nodes if node.op == "output")
        results: tuple[tuple[fx.Node, ...], tuple[fx.Node, ...]] = end.args[0]
        self._wanted = (tuple(results[0][i] for i in answers), tuple(results[1][i] for i in histories))
        self._needed: set[fx.Node] = set()
        waiting = [node for group in self._wanted for node in group]
        while waiting:
            node = waiting.pop()
            if node not in self._needed:
                self._needed.add(node)
                waiting += [taken(node, step)] if takes_turns(node) else node.all_input_nodes
        turns = tuple((node.name, taken(node, step).name) for node in module.graph.nodes if self._turns(node))
        self.key = (answers, histories, turns)

    def _turns(self, node: fx.Node) -> bool:
        return node in self._needed and takes_turns(node)

    def phase(self, frames: Sequence[str]) -> Phase:
        """The graph that does it; it takes all frames."""
        graph = fx.Graph()
        copied: dict[fx.Node, fx.Node] = {}
        for node in self._module.graph.nodes:
            if self._turns(node):
                copied[node] = copied[taken(node, self._step)]
            elif node in self._needed or (node.op == "placeholder" and node.target in frames):
                copied[node] = graph.node_copy(node, lambda n: copied[n])
        graph.output(tuple(tuple(copied[node] for node in group) for group in self._wanted))
        graph.lint()
        inputs = tuple(str(node.target) for node in graph.nodes if node.op == "placeholder")
        marks = [
            Mark(draft.border or 0.0, draft.ends, draft.name, draft.batch)
            for draft in (node.meta["draft"] for node in graph.nodes if "draft" in node.meta)
        ]
        made = fx.GraphModule(self._module, graph, class_name="StepPhase")
        return Phase(made, inputs, self._answers, self._histories, marks)
