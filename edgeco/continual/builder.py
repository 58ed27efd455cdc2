"""Builds the step graph: emits nodes, reads values at ages, and finally settles every history's storage."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from edgeco.continual.history import Draft, History, Mode, Storage, choose_period, longest_period
from edgeco.continual.turns import take_turns
from edgeco.continual.value import Kind, Value
from edgeco.graph.layout import Factor, Layout
from edgeco.graph.timeline import Border, Timeline

aten = torch.ops.aten

Emit = Callable[..., fx.Node]


class StepBuilder:
    """The step graph under construction.

    Attributes:
        graph: the step graph.
        tensors: weights of the step graph by attribute name.
        batch: the traced batch size, to be replaced wherever it stands.
        source: operator of the clip network that is being converted; what is emitted for it says so.
    """

    def __init__(self, batch: int, dtype: torch.dtype) -> None:
        self.graph = fx.Graph()
        self.tensors: dict[str, Tensor] = {}
        self.batch = batch
        self.dtype = dtype
        self.source: fx.Node | None = None
        self.drafts: list[Draft] = []
        self.frames: list[fx.Node] = []
        self.types: dict[fx.Node, torch.dtype] = {}
        """Types of values that are no floating-point numbers; histories hold them as such."""
        self._weights: dict[tuple[int, str], tuple[Tensor, fx.Node]] = {}
        self._stored: dict[fx.Node, fx.Node] = {}
        self._cast: dict[fx.Node, fx.Node] = {}
        self._aged: dict[fx.Node, tuple[Value, int, bool]] = {}
        self._replaced: dict[fx.Node, fx.Node] = {}
        self._carried: dict[fx.Node, Draft] = {}

    # -- nodes -------------------------------------------------------------------------------------------------

    def frame(self, name: str, layout: Layout) -> fx.Node:
        """A graph input that receives a frame."""
        node = self.graph.placeholder(name)
        self.frames.append(node)
        return node

    def call(self, op: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """Emit one operator."""
        node = self.graph.call_function(op, args, kwargs)
        node.meta["source"] = self.source
        return node

    def weight(self, tensor: Tensor, name: str = "constant", make: Callable[[Tensor], Tensor] | None = None) -> fx.Node:
        """A weight of the step graph, made by `make` from a clip weight; one under the same name is stored once."""
        key = (id(tensor), name)
        if key not in self._weights:
            attribute = f"w{len(self.tensors):03d}_{name}"
            self.tensors[attribute] = (make(tensor) if make else tensor).detach().contiguous()
            self._weights[key] = (tensor, self.graph.get_attr(attribute))  # the tensor is kept, so its id stays its own
        return self._weights[key][1]

    def node(self, value: Value) -> fx.Node:
        """The step node of a value; a known constant becomes a weight."""
        if value.node is not None:
            return value.node
        assert value.tensor is not None, "a value without a node is a known constant"
        return self.weight(value.tensor)

    def batch_size(self) -> fx.Node:
        """The number of rows as a symbol, for the rare operator that must be told it."""
        return self.call(aten.sym_size.int, self.frames[0], 0)

    # -- reading the past --------------------------------------------------------------------------------------

    def at(self, value: Value, delay: int) -> fx.Node:
        """Element j of a stream (or window) as it stands for a reader with that delay."""
        return self.past(value, *value.time.age(delay), value.time.border)

    def past(self, value: Value, age: int, late: bool, border: Border | None) -> fx.Node:
        """The element `age` elements older than the newest, with `border` before the first.

        `late` says that the reader's steps lie between the value's own, so that the newest is in the history already.
        """
        assert age >= 0, "the future cannot be read"
        node = self.node(value)
        stored = age + late
        if stored == 0 and border is None:
            return node
        if node in self._aged:  # what is read of an aged read is read of the same history
            base, more, was_late = self._aged[node]
            same = base.time.rate == value.time.rate and not (late and was_late)
            if same and (border is None or (border == base.time.border and _within(base.time, more, value.time))):
                return self.past(base, age + more, late or was_late, base.time.border)
        if stored == 0:
            return self._newest(self._draft(value, "ages", border), node, value.graph_layout.batch or 0)
        draft = self._draft(value, "ages", border)
        draft.depth = max(draft.depth, stored)
        if stored not in draft.reads:
            read = self.call(_element, draft.base, len(self.drafts), stored)
            draft.reads[stored] = self._typed(self.restored(read, value), node)
            draft.reads[stored].meta["marker"] = read
            self._aged[draft.reads[stored]] = (value, age, late)
        return draft.reads[stored]

    def ring(self, value: Value, depth: int, border: Border | None) -> fx.Node:
        """The `depth` elements before the newest, as (depth, rows, numbers), in any order."""
        draft = self._draft(value, "ring", border, depth)
        return self._whole(draft, depth)

    def ordered(self, value: Value, depth: int, border: Border | None) -> fx.Node:
        """The `depth` elements before the newest, as (depth, rows, numbers), oldest first."""
        draft = self._draft(value, "ordered", border, depth)
        return self._whole(draft, depth)

    def newest(self, value: Value, mode: Mode, depth: int, border: Border | None) -> fx.Node:
        """The newest element as (rows, numbers), beside the past of a ring or an ordered window."""
        node = self.stored(value)
        return node if border is None else self._newest(self._draft(value, mode, border, depth), node, 0)

    def _newest(self, draft: Draft, node: fx.Node, batch: int) -> fx.Node:
        """An alias that marks where a reader with a border looks at the newest element.

        Nothing but the end of a recording needs it: what would come after the end then counts as border.
        """
        if draft.newest is None:
            draft.newest = self.call(aten.alias.default, node)
            draft.newest.meta["draft"], draft.batch = draft, batch
        return draft.newest

    def window(self, value: Value, delay: int, length: int | None = None) -> fx.Node:
        """A stream's last elements, a clip's worth if not told, in the clip's axes, for a reader with that delay."""
        timeline = value.time
        length = timeline.length if length is None else length
        behind, late = timeline.age(delay)
        age = behind - (length - 1)
        if length == 1:
            return self._with_time(self.past(value, age, late, timeline.border), value.layout, 1)
        stored = age + late
        whole = self.ordered(value, length - 1 + stored, timeline.border)
        if stored == 0:
            new = self.call(aten.unsqueeze.default, self.newest(value, "ordered", length - 1, timeline.border), 0)
            whole = self.call(aten.cat.default, [whole, new], 0)
        elif stored > 1:
            whole = self.call(aten.slice.Tensor, whole, 0, 0, length)
        return self._typed(self._with_time(whole, value.layout, length), self.node(value))

    def _whole(self, draft: Draft, depth: int) -> fx.Node:
        draft.depth = depth
        if draft.past is None:
            draft.past = self.call(_past, draft.base, self.drafts.index(draft))
        return draft.past

    def _draft(self, value: Value, mode: Mode, border: Border | None, depth: int | None = None) -> Draft:
        base = self.stored(value, flat=mode != "ages")
        timeline = value.time
        for draft in self.drafts:
            same = (draft.base, draft.mode, draft.rate, draft.phase) == (base, mode, timeline.rate, timeline.phase)
            if same and draft.serves(border, timeline) and (depth is None or draft.depth == depth):
                draft.join(border, timeline)
                return draft
        layout = value.graph_layout
        shape = self._element_shape(layout, flat=mode != "ages")
        needs = (timeline.starts_at, timeline.ends_at(0)) if border is None else (1 << 40, -1 << 40)
        draft = Draft(
            base, mode, shape, self.dtype, self._rows_per_stream(layout), border, timeline.starts_at, timeline, *needs,
            timeline.rate, timeline.phase,
        )  # fmt: skip
        self.drafts.append(draft)
        return draft

    def _rows_per_stream(self, layout: Layout) -> int:
        batch = layout.batch
        assert batch is not None, "every stream holds the batch"
        return math.prod(f.size for f in layout.axes[batch] if f.role != "batch")

    def _element_shape(self, layout: Layout, flat: bool) -> tuple[int, ...]:
        rest = [size for i, size in enumerate(layout.shape) if i != layout.batch]
        return tuple(rest) if self._is_plain(layout) and not flat else (math.prod(rest),)

    def stored(self, value: Value, flat: bool = True) -> fx.Node:
        """The newest element as a history keeps it: rows outermost, at most 4-D; or (rows, numbers)."""
        own, layout = self._floating(self.node(value)), value.graph_layout
        if self._is_plain(layout) and (not flat or layout.rank == 2):
            return own
        if own not in self._stored:
            node, batch = own, layout.batch or 0
            if batch:
                node = self.call(aten.permute.default, node, [batch, *(i for i in range(layout.rank) if i != batch)])
            count = math.prod(size for i, size in enumerate(layout.shape) if i != batch)
            self._stored[own] = self.call(aten.reshape.default, node, [-1, count])
        return self._stored[own]

    def _floating(self, node: fx.Node) -> fx.Node:
        if node not in self.types:
            return node
        if node not in self._cast:
            self._cast[node] = self.call(aten._to_copy.default, node, dtype=self.dtype)
        return self._cast[node]

    def _typed(self, read: fx.Node, node: fx.Node) -> fx.Node:
        """What was read back in the type of the node that was stored."""
        if node not in self.types:
            return read
        made = self.call(aten._to_copy.default, read, dtype=self.types[node])
        self.types[made] = self.types[node]
        return made

    def unstored(self, node: fx.Node, value: Value) -> fx.Node:
        """(rows, numbers) back to the axes of the value's step node."""
        layout = value.graph_layout
        batch = layout.batch or 0
        order = [batch, *(i for i in range(layout.rank) if i != batch)]
        if layout.rank != 2 or batch:
            node = self.call(aten.reshape.default, node, layout.permute(order).sizes())
        return self.call(aten.permute.default, node, [order.index(i) for i in range(layout.rank)]) if batch else node

    def restored(self, read: fx.Node, value: Value) -> fx.Node:
        """An aged element as its history keeps it, back to the axes of the value's step node."""
        return read if self._is_plain(value.graph_layout) else self.unstored(read, value)

    def _is_plain(self, layout: Layout) -> bool:
        """Whether an element can be kept as it is: rows outermost, at least one more axis, at most 4-D."""
        return layout.batch == 0 and 2 <= layout.rank <= 4

    def _with_time(self, node: fx.Node, layout: Layout, length: int) -> fx.Node:
        """(time, rows, numbers) to the clip layout."""
        step = layout.step
        batch = step.batch or 0
        stored = [batch, *(i for i in range(step.rank) if i != batch)]
        factors: list[Factor] = [Factor(length, "time")]
        for i in stored:
            factors += step.axes[i] or (Factor(1),)
        wanted: list[Factor] = []
        order: list[int] = []
        positions = {}
        cursor = 1
        for i in stored:
            count = len(step.axes[i]) or 1
            positions[i] = list(range(cursor, cursor + count))
            cursor += count
        for clip_axis, axis in enumerate(layout.axes):
            at = layout.step_axis(clip_axis)
            own = list(positions[at]) if at is not None else []
            for factor in axis or (Factor(1),):
                order.append(0 if factor.role == "time" else own.pop(0))
                wanted.append(factor)
            order += own
        if 0 not in order:  # time of one element that no axis shows
            order, factors = [i - 1 for i in order], factors[1:]
        split = [-1 if f.role == "batch" else f.size for f in factors]
        node = self.call(aten.reshape.default, node, split)
        if order != sorted(order):
            node = self.call(aten.permute.default, node, order)
        merged = any(len(axis) > 1 for axis in layout.axes)
        return self.call(aten.reshape.default, node, layout.sizes()) if merged else node

    def held(self, value: Value, factor: int) -> fx.Node:
        """The newest element of a stream in as many steps, evenly apart, from its own to the next element's."""
        kept = [self.past(value, 0, True, None)] * (factor - 1) if factor > 1 else []
        return self.turns([self.node(value), *kept], value.time)

    def turns(self, choices: Sequence[fx.Node], source: Timeline) -> fx.Node:
        """The q-th choice q-th of as many steps, evenly apart, between one element of a stream and the next."""
        return choices[0] if len(choices) == 1 else self.call(take_turns, list(choices), source.rate, source.phase)

    # -- states that depend on themselves -------------------------------------------------------------------------

    def carried(self, layout: Layout, timeline: Timeline, border: float = 0.0, age: int = 1) -> fx.Node:
        """What a state was `age` elements ago, `border` before the first; `carry` says what it becomes."""
        marker = self.call(_element, self.frames[0], len(self.drafts), age)
        draft = Draft(
            marker, "ages", self._element_shape(layout, flat=False), self.dtype, self._rows_per_stream(layout), border,
            timeline.starts_at, timeline, 1 << 40, -1 << 40, timeline.rate, timeline.phase, reads={age: marker},
        )  # fmt: skip
        marker.meta["marker"] = marker
        self.drafts.append(draft)
        self._carried[marker] = draft
        return marker

    def carry(self, read: fx.Node, new: fx.Node) -> None:
        """Settle what a state becomes."""
        self._carried[read].base = new

    def forget(self, read: fx.Node) -> None:
        """Give up a state."""
        self.drafts.remove(self._carried.pop(read))

    # -- finishing ---------------------------------------------------------------------------------------------

    def finish(self, outputs: Sequence[fx.Node], rate: int) -> tuple[list[History], int]:
        """Settle storages, name the state inputs, and close the graph; returns histories and period.

        `rate` is the common rate of the outputs.
        """
        end = self.graph.output((*outputs, *(draft.base for draft in self._carried.values())))
        self.graph.eliminate_dead_code()  # markers hold their base as an argument, so what a history needs stays
        alive = set(self.graph.nodes)
        for draft in self.drafts:
            draft.reads = {age: node for age, node in draft.reads.items() if node.meta["marker"] in alive}
        kept = [d for d in self.drafts if d.reads or d.past in alive]
        for draft in kept:
            draft.depth = max(draft.reads) if draft.reads else draft.depth
        repeat = math.lcm(rate, *(d.rate for d in kept))
        fits = longest_period(repeat)
        slots = [d for d in kept if d.mode == "ages" and (d.depth + 1) * d.rate <= fits]
        period, counts = choose_period([(d.depth + 1, d.bytes, d.rate) for d in slots], repeat)
        buffers = {id(d): count for d, count in zip(slots, counts, strict=True)}
        histories: list[History] = []
        writes: list[fx.Node] = []
        first = next(iter(self.graph.nodes))
        for i, draft in enumerate(kept):
            history = _settle(f"h{i:03d}", draft, buffers.get(id(draft)))
            with self.graph.inserting_before(first):
                inputs = [self.graph.placeholder(name) for name in history.inputs]
            with self.graph.inserting_before(end):
                writes.append(self._connect(draft, history, inputs))
            histories.append(history)
            draft.name = history.name
        self.graph.erase_node(end)
        for frame in reversed(self.frames):  # frames first, in call order
            next(iter(self.graph.nodes)).prepend(frame)
        writes = [self._replaced.get(node, node) for node in writes]
        self.graph.output((tuple(self._replaced.get(n, n) for n in outputs), tuple(writes)))
        self.graph.eliminate_dead_code()
        self.graph.lint()
        return histories, period

    def _connect(self, draft: Draft, history: History, inputs: list[fx.Node]) -> fx.Node:
        """Put the state inputs in the place of their markers; returns the node to write."""
        if draft.past is not None:
            self._replace(draft.past, inputs[0])
            return draft.base
        for age, read in draft.reads.items():
            marker = read.meta["marker"]
            if history.ages:
                self._replace(marker, inputs[history.ages.index(age)])
                continue
            with self.graph.inserting_before(marker):
                taken = self.graph.call_function(aten.select.int, (inputs[0], 0, history.depth - age))
                if history.shape != draft.shape:
                    taken = self.graph.call_function(aten.reshape.default, (taken, [-1, *draft.shape]))
            self._replace(marker, taken)
        if history.shape != draft.shape:
            return self.call(aten.reshape.default, self._replaced.get(draft.base, draft.base), [-1, *history.shape])
        return draft.base

    def _replace(self, marker: fx.Node, node: fx.Node) -> None:
        marker.replace_all_uses_with(node)
        self._replaced[marker] = node


def _settle(name: str, draft: Draft, slots: int | None) -> History:
    """Slots where the period has room; else a ring where order does not matter, a mirror where it does."""
    shape = draft.shape
    if slots is None and len(shape) > 2:  # time, rows and three more would be a 5-D state
        shape = (math.prod(shape),)
    storage: Storage = "slots" if slots else "ring" if draft.mode == "ring" else "mirror"
    return History(
        name=name,
        storage=storage,
        shape=shape,
        dtype=draft.dtype,
        depth=draft.depth,
        ages=tuple(sorted(draft.reads)) if slots else (),
        border=0.0 if draft.border is None or draft.border == "first" else draft.border,
        starts_at=draft.starts_at,
        rows_per_stream=draft.rows_per_stream,
        buffers=slots or (draft.depth if storage == "ring" else 2 * draft.depth),
        ends=None if draft.border is None else draft.ends,
        rate=draft.rate,
        phase=draft.phase,
        before="first" if draft.border == "first" else "border",
    )


def _within(base: Timeline, age: int, value: Timeline) -> bool:
    """Whether a value, read so many elements behind a base, has all of the base's true elements as its own."""
    shift = age * base.rate + (value.delay - base.delay) % base.rate
    begins = base.starts_at + shift >= value.starts_at
    return begins and base.ends_at(0) + shift <= value.ends_at(0)


def _element(base: Tensor, history: int, age: int) -> Tensor:
    """Stands for an aged element until its history's storage is settled."""
    raise AssertionError("replaced before the graph runs")


def _past(base: Tensor, history: int) -> Tensor:
    """Stands for the past of a ring or mirror until its history's storage is settled."""
    raise AssertionError("replaced before the graph runs")


def stream(node: fx.Node, layout: Layout, timeline: Timeline) -> Value:
    """A value with one element per step."""
    return Value(Kind.STREAM, layout, node, timeline)
