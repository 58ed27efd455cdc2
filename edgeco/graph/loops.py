"""Python loops over time: a trace holds every iteration, so that the same operators come back position by position.

Nodes are sorted by the newest position they depend on, the *level*. Nodes that match from level to level, in operator,
constants and where their arguments come from, are a *family*; an argument of an earlier level is carried from iteration
to iteration. Families that do not match, and what depends on them, stay as they are.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from edgeco.graph.frames import Frames, find_frames
from edgeco.graph.keys import OTHER, Same, equal, flat, is_like, older, tokens
from edgeco.graph.trace import ClipGraph

_aten = torch.ops.aten
_GATHERS = (_aten.add, _aten.sub, _aten.mul, _aten.maximum, _aten.minimum)


@dataclass
class Loop:
    """A loop found in a graph.

    Attributes:
        frames: what it takes apart, all of one length.
        families: per family its node at every level where it has one; level 0 only where the first iteration is as the
            others.
        keys: per family its operator and arguments; an argument within the loop is ("loop", family, age).
        good: families that can be rolled.
        before: what stands for a family at level 0 and earlier, as later levels read it: (family, level) to argument.
        places: family and level of every node that has a family, those that frames take included.
        model: a level whose nodes are typical of all, with everything they read within the loop.
        even: whether the first iteration is as the others.
        differs: a node whose iterations differ although one needs the one before, or None.
    """

    frames: list[Frames]
    families: list[dict[int, fx.Node]]
    keys: list[tuple[Any, ...]]
    good: set[int] = field(default_factory=set)
    before: dict[tuple[int, int], Any] = field(default_factory=dict)
    places: dict[fx.Node, tuple[int, int]] = field(default_factory=dict)
    model: int = 0
    even: bool = False
    differs: fx.Node | None = None

    @property
    def length(self) -> int:
        return self.frames[0].length

    def needs(self, family: int) -> set[tuple[int, int]]:
        """(family, age) of all that a family's arguments are."""
        return {(token[1], token[2]) for token in tokens(self.keys[family])}

    def carries(self) -> set[tuple[int, int]]:
        """(family, age) of everything that is carried."""
        return {need for i in self.good for need in self.needs(i) if need[1]}


def find_loops(clip: ClipGraph, *, backwards: bool = False, without: Collection[object] = ()) -> list[Loop]:
    """The loops of a clip network.

    Args:
        clip: the network.
        backwards: look for those that go from the last position to the first.
        without: keys of frames that are not to be taken for elements of iterations.
    """
    graph, loops = clip.graph, []
    frames = [f.reversed() if backwards else f for f in find_frames(graph) if f.key not in without]
    same = Same(clip) if frames else None
    while frames and same is not None:
        together = _together(graph, frames)
        loop = _Search(graph, together, same).loop()
        if loop is None and len(together) > 1:
            together = together[:1]
            loop = _Search(graph, together, same).loop()
        if loop is not None:
            loops.append(loop)
        frames = [f for f in frames if f not in together]
    return loops


def _together(graph: fx.Graph, frames: Sequence[Frames]) -> list[Frames]:
    """The first of the frames and all others of its length that do not depend on what is made of them."""
    chosen = [f for f in frames if f.length == frames[0].length]
    levels = _levels(graph, frames[:1])
    return [f for f in chosen if f.source not in levels]


def _levels(graph: fx.Graph, frames: Sequence[Frames]) -> dict[fx.Node, int]:
    """The newest position each node depends on, of those that depend on any."""
    picks = {node: at for f in frames for node, at in f.picks.items()}
    levels: dict[fx.Node, int] = {}
    for node in graph.nodes:
        if node in picks:
            levels[node] = picks[node]
        elif node.op == "call_function" and not is_like(node):
            found = [levels[n] for n in node.all_input_nodes if n in levels]
            if found:
                levels[node] = max(found)
    return levels


class _Search:
    """The search for one loop."""

    def __init__(
        self, graph: fx.Graph, frames: list[Frames], same: Same, levels: dict[fx.Node, int] | None = None
    ) -> None:
        self.graph, self.frames, self.same = graph, frames, same
        self.length = frames[0].length
        self.levels = _levels(graph, frames) if levels is None else levels
        self.picks = {node: i for i, f in enumerate(frames) for node in f.picks}
        self.nodes: list[list[fx.Node]] = [[] for _ in range(self.length)]
        for node in graph.nodes:
            if node in self.levels:
                self.nodes[self.levels[node]].append(node)
        self.family: dict[fx.Node, int] = {}

    def loop(self) -> Loop | None:
        """The loop, or None where nothing repeats."""
        model = min(3, self.length - 2)  # as far in as the oldest element that an iteration may read
        rows = [self.nodes[level] for level in range(1, model + 1)]
        aligned = all([n.target for n in row] == [n.target for n in rows[0]] for row in rows)
        if not aligned or not rows[0]:
            chained = [n for n in self.nodes[2] if any(self.levels.get(m) == 1 for m in n.all_input_nodes)]
            return Loop(self.frames, [], [], differs=chained[0]) if chained else None
        for row in rows:
            self.family |= {node: i for i, node in enumerate(row)}
        families = [{level: row[i] for level, row in enumerate(rows, 1)} for i in range(len(rows[0]))]
        loop = Loop(self.frames, families, self._keys(rows))
        loop.good = {i for i in set(self.family.values()) if OTHER not in flat(loop.keys[i])}
        for level, row in enumerate(rows, 1):
            for node in row:
                if not self._check(loop, self.family[node], node, level):
                    loop.good.discard(self.family[node])
        self._follow(loop, model)
        self._settle(loop)
        loop.even = self._match_first(loop)
        self._settle(loop)
        loop.model = model
        late = self._late(loop)
        if late:
            levels = {node: level + (node in late) for node, level in self.levels.items()}
            levels |= dict.fromkeys((node for node in late if node not in levels), 0)
            kept = {node: level for node, level in levels.items() if level < self.length}
            again = _Search(self.graph, self.frames, self.same, kept).loop()
            if again is not None and len(again.good) >= len(loop.good):
                return again
        lowest = 0 if loop.even else 1
        loop.places = {n: (i, self.levels[n]) for n, i in self.family.items() if self.levels[n] >= lowest}
        return loop if loop.differs or any(families[i][1] not in self.picks for i in loop.good) else None

    def _keys(self, rows: list[list[fx.Node]]) -> list[tuple[Any, ...]]:
        """The key of every family; what an iteration computes twice becomes one family."""
        while True:
            keys = [self._key(node, len(rows)) for node in rows[-1]]
            first: dict[Any, int] = {}
            merged = False
            for i, key in enumerate(keys):
                kept = self.family[rows[-1][first.setdefault(key, i)]]
                merged |= any(self.family[row[i]] != kept for row in rows)
                self.family |= {row[i]: kept for row in rows}
            if not merged:
                return keys

    def _key(self, node: fx.Node, level: int) -> tuple[Any, ...]:
        """A node's operator and arguments as they are in every iteration."""
        if node in self.picks:
            return ("pick", self.picks[node])
        return (node.target, self._token(node.args, level), self._token(node.kwargs, level))

    def _token(self, value: Any, level: int) -> Any:
        if isinstance(value, fx.Node):
            if value not in self.levels:
                return self.same[value]
            found = self.family.get(value)
            return OTHER if found is None else ("loop", found, level - self.levels[value])
        if isinstance(value, (list, tuple)):
            return tuple(self._token(v, level) for v in value)
        if isinstance(value, dict):
            return tuple((k, self._token(v, level)) for k, v in sorted(value.items()))
        return (type(value), repr(value)) if isinstance(value, float) else value

    def _follow(self, loop: Loop, model: int) -> None:
        """Find the families' nodes at the later levels, where others may lie between them."""
        table = {loop.keys[i]: i for i in loop.good}
        for level in range(model + 1, self.length):
            for node in self.nodes[level]:
                found = table.get(self._key(node, level))
                if found is not None:
                    self.family[node] = found
                    loop.families[found].setdefault(level, node)
        for i in sorted(loop.good):
            family = loop.families[i]
            last = max(family)  # what only later iterations would read, the last ones lack
            if set(family) != set(range(1, last + 1)) or len({_shapes(node) for node in family.values()}) > 1:
                loop.good.discard(i)

    def _check(self, loop: Loop, i: int, node: fx.Node, level: int) -> bool:
        """Hold an early node against its family's key; what it reads from before level 1 is noted or must agree."""
        if node in self.picks or loop.keys[i][0] == "pick":
            return node in self.picks and loop.keys[i] == ("pick", self.picks[node])
        found: dict[tuple[int, int], Any] = {}
        fits = node.target is loop.keys[i][0]
        fits = fits and self._fits(node.args, loop.keys[i][1], level, found)
        fits = fits and self._fits(node.kwargs, loop.keys[i][2], level, found)
        fits = fits and all(equal(loop.before.get(k, v), v) for k, v in found.items())
        if fits:
            loop.before |= found
        return fits

    def _fits(self, value: Any, token: Any, level: int, found: dict[tuple[int, int], Any]) -> bool:
        if isinstance(token, tuple) and len(token) == 3 and token[0] == "loop":
            at = level - token[2]
            if at >= 1 or (at == 0 == level):
                return isinstance(value, fx.Node) and self._token(value, level) == token
            named = self.same[value] if isinstance(value, fx.Node) and value not in self.levels else value
            early = named not in self.levels or self.levels[named] <= at
            agree = equal(found.setdefault((token[1], at), named), named)
            return early and agree and isinstance(named, (fx.Node, int, float))
        if isinstance(value, dict):
            value = tuple(sorted(value.items()))
        if isinstance(value, (list, tuple)) and isinstance(token, tuple):
            return len(value) == len(token) and all(
                self._fits(v, t, level, found) for v, t in zip(value, token, strict=True)
            )
        return bool(self._token(value, level) == token)

    def _match_first(self, loop: Loop) -> bool:
        """Whether the first iteration is as the others; its nodes then join their families."""
        before, joined = dict(loop.before), dict[int, fx.Node]()
        for node in self.nodes[0]:
            candidates = sorted(loop.good, key=lambda i: (i in joined, i))
            found = next((i for i in candidates if self._check(loop, i, node, 0)), None)
            if found is not None:
                self.family[node] = found
                joined.setdefault(found, node)
        read = {i: arg for (i, level), arg in loop.before.items() if level == 0 and i in loop.good}
        agree = all(self.family.get(arg) == i for i, arg in read.items())
        if len(joined) == len(loop.good) and agree and all(self._starts_alike(loop, i) for i in joined):
            for i, node in joined.items():
                loop.families[i][0] = node
            return True
        loop.before = before
        return False

    def _starts_alike(self, loop: Loop, family: int) -> bool:
        """Whether all that a family is before the first iteration is one constant."""
        values = [value for (i, level), value in loop.before.items() if i == family and level < 0]
        return all(equal(value, values[0]) for value in values)

    def _settle(self, loop: Loop) -> None:
        """Drop what gathers without end, what reads further back than is known, and all that depends on it."""
        gathered = {i for i in set(self.family.values()) if self._gathers(loop, i)}
        loop.good -= gathered
        while True:
            unknown = {i for i in loop.good for need in loop.needs(i) if not self._known(loop, *need)}
            if not unknown:
                break
            loop.good -= unknown
        dropped = set(self.family.values()) - loop.good - gathered
        carried = {i for i in dropped for need, age in loop.needs(i) if age and need in dropped}
        if carried and loop.differs is None:
            loop.differs = loop.families[min(carried)][1]

    def _known(self, loop: Loop, family: int, age: int) -> bool:
        """Whether a family can be read at an age: what it is before the first iteration must be one known thing."""
        if family not in loop.good:
            return False
        if age == 0 or (age == 1 and not loop.even):
            return age == 0 or (family, 0) in loop.before
        return (family, -1) in loop.before and self._starts_alike(loop, family)

    # -- what an iteration makes of the one before -----------------------------------------------------------------

    def _late(self, loop: Loop) -> set[fx.Node]:
        """Nodes of families that only the next iteration reads, where what they are made of is less to carry.

        A product U h depends on no newer element than h: by levels alone it would belong to the iteration before.
        """
        chains: dict[int, int] = {}
        starts = {i: value for (i, level), value in loop.before.items() if level == -1}
        while True:  # from those that only the next iteration reads backwards to what they are made of
            more = {i: self._source(loop, i) for i in loop.good - chains.keys() if self._is_late(loop, i, chains)}
            made = {i: self._start_of_source(loop, i, starts.get(i)) for i in more} if loop.even else {}
            more = {i: source for i, source in more.items() if not loop.even or made[i] is not None}
            if not more:
                break
            chains |= more
            starts |= {chains[i]: made[i] for i in more if i in made}
        groups: dict[int, set[int]] = defaultdict(set)
        for i in chains:
            root = chains[i]
            while root in chains:
                root = chains[root]
            groups[root].add(i)
        carried = {need for i in loop.good - chains.keys() for need, age in loop.needs(i) if age}
        late = set[int]()
        for root, group in groups.items():
            less = _numbers(loop, {root}) <= _numbers(loop, group & carried)
            if isinstance(loop.families[root][1].meta["val"], Tensor) and (root in carried or less):
                late |= group
        nodes = {node for node, i in self.family.items() if i in late}
        return nodes | {starts[i] for i in late if loop.even}

    def _source(self, loop: Loop, i: int) -> int:
        return next(iter(loop.needs(i)))[0]

    def _is_late(self, loop: Loop, i: int, chains: dict[int, int]) -> bool:
        """Whether a family is made of one other alone and read by the next iteration alone."""
        readers = [(r, age) for r in loop.good for need, age in loop.needs(r) if need == i]
        if len(loop.needs(i)) != 1 or (self._source(loop, i), 0) not in loop.needs(i) or not readers:
            return False
        if any(age > 1 or (age == 0 and r not in chains) for r, age in readers):
            return False
        return all(self.family.get(u) in loop.good for n, f in self.family.items() if f == i for u in n.users)

    def _start_of_source(self, loop: Loop, i: int, start: Any) -> Any:
        """What a family's only source is before the first iteration; None if the start is not made of it alike."""
        if not isinstance(start, fx.Node) or start in self.levels or start.target is not loop.keys[i][0]:
            return None
        found: dict[tuple[int, int], Any] = {}
        parts = [(start.args, loop.keys[i][1]), (start.kwargs, loop.keys[i][2])]
        fits = all(self._fits(value, older(token), 0, found) for value, token in parts)
        return next(iter(found.values()), None) if fits else None

    def _gathers(self, loop: Loop, i: int) -> bool:
        """Whether a family only adds (multiplies, compares) something to what it was, and nothing limits it."""
        packet = getattr(loop.keys[i][0], "overloadpacket", None)
        if packet not in _GATHERS or (i, 1) not in loop.needs(i):
            return False
        others = {need for need, _ in loop.needs(i) if need != i}
        seen: set[int] = set()
        while others:
            one = others.pop()
            if one == i:
                return False
            if one not in seen:
                seen.add(one)
                others |= {need for need, _ in loop.needs(one)}
        return not ((i, 0) in loop.needs(i) or len([t for t in tokens(loop.keys[i]) if t[1] == i]) > 1)


def _numbers(loop: Loop, families: set[int]) -> int:
    """Numbers of all tensors among some families' values."""
    return sum(math.prod(shape) for i in families for shape, _ in _shapes(loop.families[i][1]))


def _shapes(node: fx.Node) -> tuple[Any, ...]:
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        return ((tuple(value.shape), value.dtype),)
    return tuple((tuple(v.shape), v.dtype) for v in value or () if isinstance(v, Tensor))
