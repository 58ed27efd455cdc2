"""What a rule gets: the operator being converted, its arguments as values, and the tools to emit its step form."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeGuard

from torch import Tensor, fx

from edgeco.continual.builder import StepBuilder, aten
from edgeco.continual.history import MAX_RATE
from edgeco.continual.value import Kind, Value
from edgeco.errors import UnsupportedOperator
from edgeco.graph.layout import Layout, marked, plain
from edgeco.graph.timeline import Exactness, Timeline, merged
from edgeco.graph.trace import op_name, shape_of, where

Exact = Literal["interior", "rounds", "clip"]
"""Where live windows begin: see `Context.exact`."""
SAME_ROWS = (aten.cat, aten.stack, aten.slice_scatter, aten.select_scatter)
"""Operators that do not broadcast their operands."""
VIEWS = (aten.view, aten.reshape, aten._unsafe_view, aten.expand)


@dataclass(frozen=True)
class Note:
    """One line of the conversion report.

    Attributes:
        op: the operator that mixes time.
        where: the user's source line.
        exactness: exact, unpadded or causal.
        form: what it became, in a few words.
        delay: delay of its result in steps.
    """

    op: str
    where: str
    exactness: Exactness
    form: str
    delay: int


class Context:
    """One operator of the clip network at conversion.

    Attributes:
        builder: the step graph under construction.
        node: the operator's node in the clip graph.
        args: its arguments by schema name, tensors as :class:`Value`, defaults filled in.
        pool_window: length that full-time summaries take instead of the clip's, or None.
        exact: "interior" where no element may see another window than the clip network's, "rounds" where in addition
            windows must begin where strided parts do, "clip" where the clip's padding in time is wanted too; None where
            all may differ.
    """

    def __init__(
        self,
        builder: StepBuilder,
        node: fx.Node,
        lookup: Callable[[fx.Node], Value],
        report: list[Note],
        pool_window: int | None,
        exact: Exact | None = None,
    ) -> None:
        self.builder, self.node, self.lookup, self.report = builder, node, lookup, report
        self.pool_window, self.exact = pool_window, exact
        self.args = self._bind()

    def _bind(self) -> dict[str, Any]:
        positional, named = fx.node.map_arg((self.node.args, self.node.kwargs), self.lookup)  # type: ignore[arg-type]
        schema = getattr(self.node.target, "_schema", None)
        if schema is None:
            return {str(i): value for i, value in enumerate(positional)} | dict(named)
        bound = {}
        for i, argument in enumerate(schema.arguments):
            if i < len(positional):
                bound[argument.name] = positional[i]
            else:
                bound[argument.name] = named.get(argument.name, argument.default_value)
        return bound

    # -- the operator ------------------------------------------------------------------------------------------

    @property
    def op(self) -> str:
        return op_name(self.node)

    @property
    def shape(self) -> tuple[int, ...]:
        """Clip shape of the (single) result."""
        shape = shape_of(self.node)
        assert shape is not None
        return shape

    @property
    def values(self) -> list[Value]:
        """All tensor arguments, in order."""
        return list(_values(list(self.args.values())))

    def refuse(self, reason: str, instead: str) -> NoReturn:
        """Raise UnsupportedOperator for this operator."""
        raise UnsupportedOperator(self.op, reason, where(self.node), instead)

    def note(self, timeline: Timeline, form: str, exactness: Exactness | None = None) -> None:
        """Put a line into the conversion report."""
        self.report.append(Note(self.op, where(self.node), exactness or timeline.exactness, form, timeline.delay))

    # -- aligning ----------------------------------------------------------------------------------------------

    def together(self, streams: Sequence[Value]) -> Timeline:
        """Timeline of an operator that takes the same element of every stream: it waits for the latest.

        Summaries of a whole clip (one element) may come at any rates; their common multiple is then the result's.
        """
        rates = {v.time.rate for v in streams if v.time.length > 1}
        single = [v.time.rate for v in streams if v.time.length == 1]
        if len(rates) > 1 or any(rate % r for rate in rates for r in single):
            listed = " and ".join(str(v.time.rate) for v in streams)
            self.refuse(
                f"its operands come at unequal rates (an element every {listed} frames)",
                "Bring them to one rate by a stride or a pooling in time before they meet; where one is a summary of "
                "the whole clip, exact=True recomputes both over a live window.",
            )
        delay = max(v.time.computable for v in streams)
        return merged([v.time for v in streams], delay, max(v.time.length for v in streams))

    def strided(self, timeline: Timeline) -> Timeline:
        """The timeline, if its rate is one that can be run."""
        if timeline.rate > MAX_RATE:
            self.refuse(
                f"with it the network strides in time by {timeline.rate}, and {MAX_RATE} is the limit",
                "Stride less in time.",
            )
        return timeline

    def ready(self, value: Value) -> Value:
        """The same stream with explicit padding read as real elements, so that any operator may compute from it."""
        timeline = value.time
        if timeline.border is None:
            return value
        delay = timeline.computable
        node = self.builder.at(value, delay)
        return Value(value.kind, value.layout, node, timeline.aged(delay))

    def stream(self, node: fx.Node, layout: Layout, timeline: Timeline) -> Value:
        """A value with one element per step."""
        made = self.node.meta.get("val")
        if isinstance(made, Tensor) and not made.is_floating_point():
            self.builder.types.setdefault(node, made.dtype)
        return Value(Kind.STREAM, layout, node, timeline)

    # -- whole windows -----------------------------------------------------------------------------------------

    def uneven(self, streams: Sequence[Value]) -> bool:
        """Whether summaries of the clip meet its elements, and each must be that of the clip's own window."""
        return self.exact is not None and len({v.time.length for v in streams}) > 1

    def window(self, why: str | None = None) -> Value | list[Value]:
        """Run the clip operator itself on a live window of the last clip's worth of elements."""
        return self.unchanged(*self.windows(why))

    def windows(self, why: str | None = None) -> tuple[dict[int, fx.Node], Timeline]:
        """Live windows of all operands that are not constant, by their id, and the timeline of what is made of them."""
        streams = [v for v in self.values if v.kind is not Kind.CONSTANT]
        delay = max(self._window_delay(v) for v in streams)
        nodes = {id(v): self._as_window(v, delay) for v in streams}
        if getattr(self.node.target, "overloadpacket", None) in SAME_ROWS:
            nodes |= self._in_every_row()
        timeline = merged([self._window_time(v) for v in streams], delay, 1)
        if any(v.kind is Kind.STREAM and v.time.length > 1 for v in streams):
            self.note(
                timeline, f"live window of {max(v.time.length for v in streams)} elements" + (f": {why}" if why else "")
            )
        return nodes, timeline

    def _in_every_row(self) -> dict[int, fx.Node]:
        """Known constants repeated for every row, by their id."""
        found = {}
        for node in self.node.all_input_nodes:
            value, shape = self.lookup(node), shape_of(node) or ()
            if value.tensor is None or tuple(value.tensor.shape) == shape:
                continue
            sizes = [self._literal(size, {}) for size in shape]
            found[id(value)] = self.builder.call(aten.expand.default, self.builder.node(value), sizes)
        return found

    def _window_delay(self, value: Value) -> int:
        value = value if value.inside is None else value.inside[0]
        return value.time.computable + (value.time.rate * (value.time.length - 1) if value.kind is Kind.STREAM else 0)

    def _window_time(self, value: Value) -> Timeline:
        """Timeline of a stream read as windows: numbered by the window's first element."""
        value = value if value.inside is None else value.inside[0]
        if value.kind is Kind.WINDOW:
            return value.time
        return value.time.windowed(value.time.length, value.time.delay + value.time.rate * (value.time.length - 1))

    def _as_window(self, value: Value, delay: int) -> fx.Node:
        if value.kind is Kind.WINDOW:
            return self.builder.at(value, delay)
        if value.inside is None:
            return self.builder.window(value, delay)
        inside, front, back, number = value.inside  # a window has two ends, and what the clip network puts around them
        assert inside.layout.time is not None
        pads = [0, 0] * (inside.layout.rank - 1 - inside.layout.time) + [front, back]
        return self.builder.call(aten.pad.default, self.builder.window(inside, delay), pads, "constant", number)

    def unchanged(self, nodes: dict[int, fx.Node], timeline: Timeline) -> Value | list[Value]:
        """The clip operator as it is, on arguments of the clip network's own shape."""
        packet = getattr(self.node.target, "overloadpacket", None)
        args = []
        for name, value in self.args.items():
            if packet in VIEWS and name in ("size", "shape"):
                args.append(marked(self.shape, self.builder.batch).sizes())
            else:
                args.append(self._literal(value, nodes))
        # A window need not lie in memory as the clip does, so that a view of it may have to copy.
        node = self.builder.call(aten.reshape.default, *args) if packet is aten.view else self._emit_by_schema(args)
        results = self.node.meta["val"]
        if isinstance(results, Tensor):
            return Value(Kind.WINDOW, marked(tuple(results.shape), self.builder.batch), node, timeline)
        pick = [self.builder.call(operator.getitem, node, i) for i in range(len(results))]
        return [
            Value(Kind.WINDOW, marked(tuple(r.shape), self.builder.batch), n, timeline)
            for r, n in zip(results, pick, strict=True)
        ]

    def _emit_by_schema(self, values: list[Any]) -> fx.Node:
        """Call the operator with arguments in schema order, keyword-only ones by name."""
        schema = getattr(self.node.target, "_schema", None)
        positional, named = [], {}
        for i, value in enumerate(values):
            argument = schema.arguments[i] if schema is not None else None
            if argument is not None and argument.kwarg_only:
                named[argument.name] = value
            else:
                positional.append(value)
        return self.builder.call(self.node.target, *positional, **named)

    def _literal(self, value: Any, nodes: dict[int, fx.Node]) -> Any:
        """An argument for the step graph: values as nodes, the traced batch size as a symbol."""
        if isinstance(value, Value):
            found = nodes.get(id(value))
            return found if found is not None else self.builder.node(value)
        if isinstance(value, (list, tuple)):
            return [self._literal(v, nodes) for v in value]
        if is_batch(value, self.builder.batch):
            rows = self.builder.batch_size()
            return (
                rows
                if value == self.builder.batch
                else self.builder.call(operator.mul, rows, value // self.builder.batch)
            )
        return value

    def emit(self, changes: dict[str, Any], nodes: dict[int, fx.Node]) -> fx.Node:
        """The operator on step values: some arguments replaced, the others as they are."""
        args = [self._literal(changes.get(name, value), nodes) for name, value in self.args.items()]
        return self._emit_by_schema(args)


def is_batch(value: Any, batch: int) -> TypeGuard[int]:
    """Whether a literal holds the traced batch size."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 40 and value % batch == 0


def _values(args: Any) -> Any:
    for value in args:
        if isinstance(value, Value):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _values(value)


def constant(tensor: Tensor) -> Value:
    """A known constant."""
    return Value(Kind.CONSTANT, plain(tensor.shape), tensor=tensor)
