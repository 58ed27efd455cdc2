"""Loops of a graph put into one node each, which holds one iteration and what is carried from one to the next."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, fx

from edgeco.graph.gathers import copied
from edgeco.graph.loops import Loop
from edgeco.graph.trace import ClipGraph

_aten = torch.ops.aten


@dataclass
class Element:
    """What an iteration takes of one source: the position of its own along an axis, counted from `first`.

    `number` is that of the loop's frames.
    """

    number: int
    node: fx.Node
    dim: int
    first: int
    kept: bool


@dataclass
class Carry:
    """What an iteration reads of one `age` iterations before.

    Attributes:
        node: its placeholder.
        new: what the iteration makes of it.
        start: before the first iteration, a node outside the loop or a number; None where `first` says all.
        first: what the first iteration makes instead, where it is not as the others: a node of the body or a number.
    """

    node: fx.Node
    new: fx.Node
    age: int
    start: Any
    first: Any


@dataclass
class Exit:
    """A result of every iteration: stacked along a new axis `dim`, or concatenated along `dim`, which has size 1."""

    value: fx.Node
    first: Any
    form: Literal["stack", "cat"]
    dim: int


@dataclass
class Body:
    """One iteration as a graph; `elements` and `inputs` are the placeholders of the loop node's arguments."""

    loop: Loop
    graph: fx.Graph = field(default_factory=fx.Graph)
    elements: list[Element] = field(default_factory=list)
    inputs: dict[fx.Node, fx.Node] = field(default_factory=dict)
    carries: list[Carry] = field(default_factory=list)
    exits: list[Exit] = field(default_factory=list)


def loop(sources: Any, inputs: Any) -> Any:
    """Stands for a whole loop; ``meta["body"]`` holds one iteration."""
    raise AssertionError("converted before the graph runs")


def rolled(clip: ClipGraph, loops: list[Loop]) -> tuple[ClipGraph, dict[fx.Node, fx.Node]]:
    """A copy of a clip graph with those loops rolled, and each node's copy."""
    made, nodes = copied(clip)
    for found in loops:
        _Rolling(made, found, nodes).roll()
    _sort(made.graph)
    made.graph.eliminate_dead_code()
    made.graph.lint()
    return replace(made, resized={}), nodes


class _Rolling:
    """One loop on its way into one node."""

    def __init__(self, clip: ClipGraph, found: Loop, nodes: dict[fx.Node, fx.Node]) -> None:
        self.clip, self.loop, self.body = clip, found, Body(found)
        self.places = {nodes[n]: place for n, place in found.places.items() if place[0] in found.good}
        self.families = {i: {level: nodes[n] for level, n in found.families[i].items()} for i in found.good}
        self.frame = {nodes[n]: number for number, f in enumerate(found.frames) for n in f.picks}
        self.before = {k: nodes[v] if isinstance(v, fx.Node) else v for k, v in found.before.items()}
        self.members = {n: place for n, place in self.places.items() if n not in self.frame}
        self.sources: list[fx.Node] = []
        self.taken: dict[int, Element] = {}
        self.copies: dict[int, fx.Node] = {}
        self.firsts: dict[fx.Node, fx.Node] = {}
        self.reads: dict[tuple[int, int], fx.Node] = {}
        self.whole = True
        self.results: list[tuple[tuple[int, str, int, Any], Tensor]] = []

    def roll(self) -> None:
        """Put the loop into one node and let what is outside read its results."""
        graph = self.clip.graph
        replaced = self._gatherings() + self._single_uses()
        if not self.results or not self.whole:
            return
        for (family, form, dim, first), _ in self.results:
            self.body.exits.append(Exit(self._copy(family), self._first(first), form, dim))  # type: ignore[arg-type]
        self._carry()
        self.body.graph.output(tuple(e.value for e in self.body.exits))
        anchor = next(n for n in graph.nodes if n.op != "placeholder")
        with graph.inserting_before(anchor):  # sorted afterwards
            node = graph.call_function(loop, (self.sources, list(self.body.inputs)))
            node.meta = dict(self.families[self.results[0][0][0]][self.loop.model].meta)
            node.meta |= {"val": [value for _, value in self.results], "body": self.body}
            picked = []
            for i, (_, value) in enumerate(self.results):
                picked.append(graph.call_function(operator.getitem, (node, i)))
                picked[-1].meta["val"] = value
        for result, change in replaced:
            change(picked[result])

    # -- what is read outside ----------------------------------------------------------------------------------

    def _result(self, family: int, form: str, dim: int, first: Any = None) -> int:
        """Number of the result that holds a family's values of all iterations."""
        first = self.before.get((family, 0)) if first is None and not self.loop.even else first
        key = (family, form, dim, first)
        known = [k for k, _ in self.results]
        if key in known:
            return known.index(key)
        one = self.families[family][self.loop.model].meta["val"]
        shape = list(one.shape)
        if form == "cat":
            shape[dim] = self.loop.length
        else:
            shape.insert(dim, self.loop.length)
        self.results.append((key, torch.empty(shape, dtype=one.dtype, device="meta")))
        return len(self.results) - 1

    def _gatherings(self) -> list[tuple[int, Callable[[fx.Node], None]]]:
        """Stacks and concatenations of a family's values in order of the iterations."""
        found = []
        for node in list(self.clip.graph.nodes):
            if node in self.members or node.target not in (_aten.stack.default, _aten.cat.default):
                continue
            items = list(node.args[0])
            start = self._run(items)
            if start is None:
                continue
            family, level = start
            one = self.families[family][self.loop.model].meta["val"]
            stacked = node.target is _aten.stack.default
            rank = one.ndim + stacked
            dim = (node.args[1] if len(node.args) > 1 else 0) % rank
            if not stacked and one.shape[dim] != 1:
                continue
            first = items[0] if level == 0 and not self.loop.even else None
            number = self._result(family, "stack" if stacked else "cat", dim, first)
            found.append((number, self._gather(node, dim, level, len(items))))
        return found

    def _run(self, items: list[Any]) -> tuple[int, int] | None:
        """Family and first level of values of one family in order, all taken; None if they are not that."""
        last = self.members.get(items[-1])
        if last is None or len(items) < 2:
            return None
        family, level = last[0], last[1] - len(items) + 1
        rest = items if level or self.loop.even else items[1:]
        wanted = [(family, level + i) for i in range(len(items))][len(items) - len(rest) :]
        if level < 0 or [self.members.get(item) for item in rest] != wanted:
            return None
        if rest is not items:
            known = self.before.get((family, 0))
            same = items[0].meta["val"].shape == self.families[family][self.loop.model].meta["val"].shape
            if not same or (known is not None and known is not items[0]):
                return None
        return family, level

    def _gather(self, node: fx.Node, dim: int, level: int, count: int) -> Callable[[fx.Node], None]:
        def change(result: fx.Node) -> None:
            if count < self.loop.length:
                with self.clip.graph.inserting_after(node):
                    result = self.clip.graph.call_function(_aten.slice.Tensor, (result, dim, level, level + count))
            result.meta = dict(node.meta)
            self._replace(node, result)

        return change

    def _single_uses(self) -> list[tuple[int, Callable[[fx.Node], None]]]:
        """Everything else outside that reads one iteration's value."""
        gathered = {n for n in self.clip.graph.nodes if n.target in (_aten.stack.default, _aten.cat.default)}
        gathered = {n for n in gathered if n not in self.members and self._run(list(n.args[0])) is not None}
        found = []
        for node, (family, level) in self.members.items():
            outside = [u for u in node.users if u not in self.members and not (u in gathered and self._whole(u))]
            if outside and not isinstance(node.meta["val"], Tensor):
                self.whole = False  # one of several results is read outside alone
            elif outside:
                found.append((self._result(family, "stack", 0), self._pick(node, level, outside)))
        return found

    def _whole(self, node: fx.Node) -> bool:
        """Whether a gathering is replaced as one."""
        one = self.families[self._run(list(node.args[0]))[0]][self.loop.model].meta["val"]  # type: ignore[index,arg-type]
        dim = node.args[1] if len(node.args) > 1 else 0
        return node.target is _aten.stack.default or one.shape[dim] == 1

    def _pick(self, node: fx.Node, level: int, users: list[fx.Node]) -> Callable[[fx.Node], None]:
        def change(result: fx.Node) -> None:
            with self.clip.graph.inserting_after(node):
                one = self.clip.graph.call_function(_aten.select.int, (result, 0, level))
            one.meta = dict(node.meta)
            for user in users:
                user.replace_input_with(node, one)
            self.clip.outputs = {name: one if n is node else n for name, n in self.clip.outputs.items()}

        return change

    def _replace(self, node: fx.Node, other: fx.Node) -> None:
        node.replace_all_uses_with(other)
        self.clip.outputs = {name: other if n is node else n for name, n in self.clip.outputs.items()}

    # -- one iteration -----------------------------------------------------------------------------------------

    def _copy(self, family: int) -> fx.Node:
        """A family's node in the body, with all it needs."""
        if family not in self.copies:
            node = self.families[family][self.loop.model]
            if node in self.frame:
                self.copies[family] = self._element(node)
            else:
                given = {n: self._argument(n) for n in node.all_input_nodes}
                self.copies[family] = self.body.graph.node_copy(node, lambda n: given[n])
        return self.copies[family]

    def _argument(self, node: fx.Node) -> fx.Node:
        place = self.places.get(node)
        if place is None:
            return self._input(node)
        family, level = place
        age = self.loop.model - level
        if age == 0:
            return self._copy(family)
        if (family, age) not in self.reads:
            read = self._placeholder(f"before_{family}_{age}")
            read.meta = dict(self.families[family][self.loop.model].meta)
            self.reads[family, age] = read
        return self.reads[family, age]

    def _placeholder(self, name: str) -> fx.Node:
        graph = self.body.graph
        first = next(iter(graph.nodes), None)
        with graph.inserting_before(first):
            return graph.placeholder(name)

    def _element(self, pick: fx.Node) -> fx.Node:
        number = self.frame[pick]
        if number not in self.taken:
            frames = self.loop.frames[number]
            node = self._placeholder(f"element_{number}")
            node.meta = dict(pick.meta)
            self.taken[number] = Element(number, node, frames.dim, frames.first, frames.kept)
            self.body.elements.append(self.taken[number])
            source: Any = pick.args[0]
            self.sources.append(source.args[0] if pick.target is operator.getitem else source)
        return self.taken[number].node

    def _input(self, node: fx.Node) -> fx.Node:
        if node not in self.body.inputs:
            made = self._placeholder(f"given_{len(self.body.inputs)}")
            made.meta = dict(node.meta)
            self.body.inputs[node] = made
        return self.body.inputs[node]

    def _first(self, value: Any) -> Any:
        """What stands for a value in the first iteration, where that is not as the others: its own operators."""
        if not isinstance(value, fx.Node):
            return value
        if value in self.frame:
            return self._element(value)
        if not self._inside(value):
            return self._input(value)
        if value not in self.firsts:
            given = {n: self._first(n) for n in value.all_input_nodes}
            self.firsts[value] = self.body.graph.node_copy(value, lambda n: given[n])
        return self.firsts[value]

    def _inside(self, node: fx.Node) -> bool:
        """Whether a node depends on the first position."""
        seen, waiting = set(), [node]
        while waiting:
            one = waiting.pop()
            if one in self.frame:
                return True
            if one not in seen:
                seen.add(one)
                waiting += one.all_input_nodes
        return False

    def _carry(self) -> None:
        """Settle what is carried; its own operators may need more to be carried."""
        done: set[tuple[int, int]] = set()
        while len(done) < len(self.reads):
            family, age = next(key for key in self.reads if key not in done)
            done.add((family, age))
            first = None if self.loop.even else self._first(self.before[family, 0])
            start = self.before.get((family, -1))
            start = self._input(start) if isinstance(start, fx.Node) else start
            self.body.carries.append(Carry(self.reads[family, age], self._copy(family), age, start, first))


def _sort(graph: fx.Graph) -> None:
    """Put every node behind its arguments, otherwise in the order they have."""
    done: set[fx.Node] = set()
    last: fx.Node | None = None
    for root in list(graph.nodes):
        waiting = [root]
        while waiting:
            node = waiting[-1]
            needed = [n for n in node.all_input_nodes if n not in done]
            if node in done or not needed:
                waiting.pop()
                if node not in done:
                    done.add(node)
                    if last is not None:
                        last.append(node)
                    last = node
            else:
                waiting += reversed(needed)
