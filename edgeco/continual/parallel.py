"""A step graph run over a whole recording at once: every operator over all steps, as if they were rows of a batch.

What a history holds at a step was computed at an earlier one, so that the past is read by shifting what was written.
Only what depends on itself, such as a recurrent layer's state, is run step after step. No work is done twice: each
element is computed once, as it would be step by step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgeco.continual.convert import StepGraph
from edgeco.continual.history import History
from edgeco.continual.turns import taken, takes_turns
from edgeco.graph.cycles import components

Unit = tuple[fx.Node, int]
"""A node in the steps of one remainder modulo the schedule's length."""


@dataclass(frozen=True)
class _Read:
    """A graph input that a history feeds: the ages it holds, oldest first; `whole` if as one tensor."""

    history: int
    ages: tuple[int, ...]
    whole: bool


class Parallel:
    """The step graph of a network, over time.

    Args:
        step: a converted network.
        lead: steps taken with the first frame before it counts, see `StepProgram.lead`.
    """

    def __init__(self, step: StepGraph, lead: int = 0) -> None:
        self.step, self.lead, self.length = step, lead, len(step.schedule)
        nodes = list(step.module.graph.nodes)
        end = nodes[-1]
        self.outputs: tuple[fx.Node, ...] = tuple(end.args[0][0])
        self.writes: tuple[fx.Node, ...] = tuple(end.args[0][1])
        inputs = {item.name: number for number, item in enumerate(step.clip.inputs)}
        by_name = {str(node.target): node for node in nodes if node.op == "placeholder"}
        self.frames = {by_name[name]: number for name, number in inputs.items()}
        self.reads: dict[fx.Node, _Read] = {}
        for number, history in enumerate(step.histories):
            ages: list[tuple[int, ...]] = [(age,) for age in history.ages] or [tuple(range(history.depth, 0, -1))]
            for name, own in zip(history.inputs, ages, strict=True):
                if name in by_name:
                    self.reads[by_name[name]] = _Read(number, own, not history.ages)
        self.needed = self._needed()
        self.groups = components([n for n in nodes if n in self.needed], self._before)
        self.rows = _row_axes(step, {**dict.fromkeys(self.frames), **self.reads})

    def _before(self, node: fx.Node) -> Sequence[fx.Node]:
        """Nodes that must be known first."""
        return [self.writes[self.reads[node].history]] if node in self.reads else node.all_input_nodes

    def _needed(self) -> dict[fx.Node, set[int]]:
        """The steps, modulo the schedule's length, at which each node is needed."""
        found: dict[fx.Node, set[int]] = {}
        waiting: list[Unit] = []
        for node, answer in zip(self.outputs, self.step.answers, strict=True):
            time = answer.timeline
            waiting += [(node, r) for r in range(self.length) if r % time.rate == time.phase]
        while waiting:
            node, r = waiting.pop()
            if r in found.setdefault(node, set()):
                continue
            found[node].add(r)
            if node in self.reads:
                history = self.step.histories[self.reads[node].history]
                source = self.writes[self.reads[node].history]
                waiting += [(source, q) for q in range(self.length) if history.written(q)]
            elif takes_turns(node):
                waiting.append((taken(node, r), r))
            else:
                waiting += [(n, r) for n in node.all_input_nodes]
        return found

    def run(self, weights: Mapping[str, Tensor], clips: Sequence[Tensor]) -> list[Tensor | None]:
        """Per answer all valid ones, (answers, …) with the answers' own axes behind; None where there is none.

        Args:
            weights: of the step graph, by name.
            clips: a recording per input, as the clip network takes it.
        """
        return _Run(self, weights, clips).answers()


class _Run:
    """One recording on its way."""

    def __init__(self, form: Parallel, weights: Mapping[str, Tensor], clips: Sequence[Tensor]) -> None:
        self.form, self.weights, self.clips = form, weights, clips
        items = form.step.clip.inputs
        timed = [c.shape[i.time_dim] for c, i in zip(clips, items, strict=True) if i.time_dim and i.rate == 1]
        self.steps = form.lead + max(timed)
        self.rows = clips[0].shape[0]
        self.values: dict[Unit, Any] = {}
        self.elements: dict[int, Tensor] = {}

    def count(self, r: int) -> int:
        """Steps of a remainder."""
        return max(0, -((r - self.steps) // self.form.length))

    def answers(self) -> list[Tensor | None]:
        for group, cyclic in self.form.groups:
            if cyclic:
                _Cycle(self, group).run()
                continue
            (node,) = group
            for r in sorted(self.form.needed[node]):
                self.values[node, r] = self.value(node, r) if self.count(r) else None
        return [self._answer(i) for i in range(len(self.form.outputs))]

    # -- nodes -------------------------------------------------------------------------------------------------

    def value(self, node: fx.Node, r: int) -> Any:
        """A node over all steps of a remainder."""
        if node in self.form.frames:
            return self._frames(self.form.frames[node], r)
        if node in self.form.reads:
            return self._read(self.form.reads[node], r)
        if node.op == "get_attr":
            return self.weights[str(node.target)]
        if takes_turns(node):
            return self.values[taken(node, r), r]
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: self.values[n, r])
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _frames(self, number: int, r: int) -> Tensor:
        """An input's frames at the steps of a remainder, steps outermost in the rows."""
        item, clip, n = self.form.step.clip.inputs[number], self.clips[number], self.count(r)
        if item.time_dim is None:
            return clip.expand(n, *clip.shape).flatten(0, 1)
        first = -(-self.form.lead // item.rate)
        last = clip.shape[item.time_dim] - 1
        places = [min(max(step // item.rate - first, 0), last) for step in range(r, self.steps, self.form.length)]
        return _chosen(clip.movedim(item.time_dim, 0), places).flatten(0, 1)

    def _read(self, read: _Read, r: int) -> Tensor:
        history = self.form.step.histories[read.history]
        elements = self.elements_of(read.history)
        steps = range(r, self.steps, self.form.length)
        parts = [_chosen(elements, [place(history, step, age) for step in steps], history.border) for age in read.ages]
        if not read.whole:
            return parts[0].flatten(0, 1)
        return torch.stack(parts).flatten(1, 2)

    def elements_of(self, number: int) -> Tensor:
        """All that a history is given, (elements, rows, …)."""
        if number not in self.elements:
            history, form = self.form.step.histories[number], self.form
            remainders = [q for q in range(form.length) if history.written(q)]
            own = [(self.values[form.writes[number], q], self.count(q)) for q in remainders]
            given = [made.unflatten(0, (n, -1)) for made, n in own if n]
            if not given:
                rows = self.rows * history.rows_per_stream
                self.elements[number] = self.clips[0].new_empty((0, rows, *history.shape), dtype=history.dtype)
            else:
                self.elements[number] = _interleaved(given)
        return self.elements[number]

    def _answer(self, number: int) -> Tensor | None:
        """An answer's valid ones, the axis of answers first."""
        form, answer = self.form, self.form.step.answers[number]
        node, time = form.outputs[number], answer.timeline
        remainders = [r for r in range(form.length) if r % time.rate == time.phase and self.count(r)]
        if not remainders:
            return None
        axis = form.rows[node]
        parts = [self.values[node, r].unflatten(axis, (self.count(r), -1)).movedim(axis, 0) for r in remainders]
        whole = _interleaved(parts)
        steps = range(time.phase, self.steps, time.rate)
        first = next((i for i, step in enumerate(steps) if step >= max(time.starts_at, form.lead)), len(steps))
        return whole[first:] if first < len(steps) else None


class _Cycle:
    """Nodes that depend on themselves through histories: run step after step."""

    def __init__(self, run: _Run, group: Sequence[fx.Node]) -> None:
        self.run_, self.form = run, run.form
        order = {node: i for i, node in enumerate(self.form.step.module.graph.nodes)}
        self.group = sorted(group, key=order.__getitem__)
        self.inside = set(group)
        self.now: dict[fx.Node, Any] = {}
        self.written: dict[int, list[Tensor]] = {}
        own = {i for i, node in enumerate(self.form.writes) if node in self.inside}
        self.own = sorted(own)

    def run(self) -> None:
        made: dict[Unit, list[Any]] = {}
        self.written = {number: [] for number in self.own}
        for step in range(self.run_.steps):
            r, turn = step % self.form.length, step // self.form.length
            self.now = {}
            for node in self.group:
                if r in self.form.needed[node]:
                    self.now[node] = self._value(node, step, r, turn)
                    made.setdefault((node, r), []).append(self.now[node])
            for number in self.own:
                if self.form.step.histories[number].written(r):
                    self.written[number].append(self.now[self.form.writes[number]])
        for (node, r), values in made.items():
            self.run_.values[node, r] = self._joined(node, values)

    def _value(self, node: fx.Node, step: int, r: int, turn: int) -> Any:
        if node in self.form.reads:
            return self._read(self.form.reads[node], step)
        if takes_turns(node):
            return self._of(taken(node, r), r, turn)
        args, kwargs = fx.node.map_arg(
            (node.args, node.kwargs),
            lambda n: self._of(n, r, turn),
        )
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _of(self, node: fx.Node, r: int, turn: int) -> Any:
        """A node's value at one step."""
        if node in self.inside:
            return self.now[node]
        return self._cut(self.run_.values[node, r], node, self.run_.count(r), turn)

    def _cut(self, value: Any, node: fx.Node, count: int, turn: int) -> Any:
        if isinstance(value, Tensor):
            axis = self.form.rows.get(node)
            return value if axis is None else value.unflatten(axis, (count, -1)).select(axis, turn)
        return value // count if isinstance(value, int) else value

    def _read(self, read: _Read, step: int) -> Tensor:
        history = self.form.step.histories[read.history]
        known = self.written[read.history]
        parts = []
        for age in read.ages:
            at = place(history, step, age)
            parts.append(self._border(history) if at < 0 else known[at])
        return torch.stack(parts) if read.whole else parts[0]

    def _border(self, history: History) -> Tensor:
        shape = (self.run_.rows * history.rows_per_stream, *history.shape)
        return self.run_.clips[0].new_full(shape, history.border, dtype=history.dtype)

    def _joined(self, node: fx.Node, values: list[Any]) -> Any:
        axis = self.form.rows.get(node)
        if isinstance(values[0], Tensor):
            return values[0] if axis is None else torch.cat(values, axis)
        return values[0]  # several results, which are picked inside


def place(history: History, step: int, age: int) -> int:
    """Which of a history's elements, counted from 0, a step finds at an age; -1 for the border."""
    last = -((history.phase - step) // history.rate) - 1  # the newest that was written before the step
    started = (history.starts_at - history.phase) // history.rate  # the newest written up to `starts_at`
    if history.before == "first":
        return last if last <= started else max(last - age + 1, min(started, last), -1)
    at = last - age + 1
    early = history.phase + at * history.rate < history.starts_at
    return -1 if at < 0 or early else at


def _chosen(elements: Tensor, places: Sequence[int], border: float = 0.0) -> Tensor:
    """Elements along axis 0 at the places, -1 standing for the border."""
    outside = sum(1 for at in places if at < 0)
    kept = list(places[outside:])
    if any(at < 0 for at in kept):
        whole = torch.cat([elements.new_full((1, *elements.shape[1:]), border), elements])
        return whole.index_select(0, torch.tensor([at + 1 for at in places], device=elements.device))
    if kept and kept == list(range(kept[0], kept[0] + len(kept))):
        inner = elements.narrow(0, kept[0], len(kept))
    elif kept:
        inner = elements.index_select(0, torch.tensor(kept, device=elements.device))
    else:
        inner = elements[:0]
    if not outside:
        return inner
    return torch.cat([elements.new_full((outside, *elements.shape[1:]), border), inner])


def _interleaved(parts: Sequence[Tensor]) -> Tensor:
    """Elements of as many sequences in turn, of which the first ones may have one more."""
    if len(parts) == 1:
        return parts[0]
    least = min(len(part) for part in parts)
    rest = [part[least:] for part in parts if len(part) > least]
    return torch.cat([torch.stack([part[:least] for part in parts], 1).flatten(0, 1), *rest])


def _row_axes(step: StepGraph, given: Mapping[fx.Node, _Read | None]) -> dict[fx.Node, int | None]:
    """The axis of every node that counts rows, found by running the graph on two numbers of them, without numbers."""
    few, many = (_Shapes(step, given, rows).found for rows in (7, 11))
    axes: dict[fx.Node, int | None] = {}
    for node, shape in few.items():
        pairs = zip(shape, many[node], strict=True)
        axes[node] = next((axis for axis, (a, b) in enumerate(pairs) if a != b), None)
    return axes


class _Shapes(fx.Interpreter):
    """The shape of every node for a number of rows."""

    def __init__(self, step: StepGraph, given: Mapping[fx.Node, _Read | None], rows: int) -> None:
        super().__init__(step.module)
        self.found: dict[fx.Node, tuple[int, ...]] = {}
        items = {item.name: item for item in step.clip.inputs}
        arguments = []
        for node in step.module.graph.nodes:
            if node.op != "placeholder":
                continue
            read = given[node]
            if read is None:
                item = items[str(node.target)]
                shape = [rows, *(n for axis, n in enumerate(item.shape) if axis not in (0, item.time_dim))]
                arguments.append(torch.empty(shape, dtype=item.dtype, device="meta"))
                continue
            history = step.histories[read.history]
            shape = [rows * history.rows_per_stream, *history.shape]
            front = [history.depth] if read.whole else []
            arguments.append(torch.empty(front + shape, dtype=history.dtype, device="meta"))
        with torch.no_grad():
            self.run(*arguments)

    def run_node(self, n: fx.Node) -> Any:
        made = super().run_node(n)
        if isinstance(made, Tensor):
            self.found[n] = tuple(made.shape)
        return made

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return super().get_attr(target, args, kwargs).to("meta")
