"""Clip graph to step graph: walk the operators once, fold constants, apply rules, settle the histories."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgeco.continual.answers import Answer, answer_of, between_rounds, graded
from edgeco.continual.builder import StepBuilder
from edgeco.continual.context import VIEWS, Context, Exact, Note, is_batch
from edgeco.continual.history import MAX_RATE, History
from edgeco.continual.loops import NotRolled, Rolled, over_time, refuse_backwards, unrolled
from edgeco.continual.phases import Phase, refuse_rates, repeats_after, split
from edgeco.continual.registry import find
from edgeco.continual.rows import check_rows
from edgeco.continual.turns import takes_turns
from edgeco.continual.value import Kind, Value
from edgeco.errors import ConversionError, EdgecoError, SpecError, UnsupportedOperator
from edgeco.graph.attention import gather_attention
from edgeco.graph.gathers import gathered
from edgeco.graph.layout import marked, plain
from edgeco.graph.loops import find_loops
from edgeco.graph.narrow import narrow
from edgeco.graph.rolling import loop, rolled
from edgeco.graph.timeline import Timeline
from edgeco.graph.trace import RECURRENT, Clip, ClipGraph, TimeDims, getitem_source, op_name, shape_of, trace, where


@dataclass
class StepGraph:
    """The converted network as data: what a StepProgram runs and what export writes."""

    module: fx.GraphModule
    """The whole network, as if every step did all the work; what a step does are the phases."""
    histories: list[History]
    answers: list[Answer]
    period: int
    phases: list[Phase]
    schedule: tuple[int | None, ...]
    """Number of the phase of every step, in turn; None where there is nothing to do."""
    report: list[Note]
    clip: ClipGraph
    dtype: torch.dtype
    windows: list[str] = field(default_factory=list)


def trace_network(net: nn.Module, clip: Clip, time_dim: TimeDims = 2) -> ClipGraph:
    """Trace a network, decomposing what has no rule into what has.

    Raises:
        ConversionError: PyTorch cannot trace it.
        SpecError: `clip` and `time_dim` do not fit together.
    """
    return trace(net, clip, time_dim, known=lambda target: find(target) is not None)


def convert_graph(clip: ClipGraph, *, window: int | None = None, exact: Exact | None = None) -> StepGraph:
    """Derive the step graph of a traced clip network.

    Args:
        clip: the traced network; attention in it is brought to one form, and to the queries that are used.
        window: elements the final summary over time takes; the clip's own number if None.
        exact: where to go over to live windows, see `convert`.

    Raises:
        UnsupportedOperator: an operator has no step form; names it and the user's line.
        ConversionError: the network as a whole cannot be streamed.
        SpecError: `window` does not fit the network.
    """
    if window is not None and window < 1:
        raise SpecError(f"window is {window}; give the number of elements to pool over, 1 or more.")
    gather_attention(clip)
    narrow(clip)
    walk, graph, notes = _walked(clip, exact)
    if exact == "interior" and any(between_rounds(walk.lookup(node)) for node in walk.clip.outputs.values()):
        exact = "rounds"
        walk, graph, notes = _walked(clip, exact)
    if window is not None:
        finals = walk.final_summaries()
        if not finals:
            raise SpecError("window was given, but the network has no final pooling over time; leave it out.")
        walk = _Walk(graph, dict.fromkeys(finals, window), exact)
        walk.run()
    walk.report += notes
    return replace(walk.finish(), clip=clip)


def _walked(clip: ClipGraph, exact: Exact | None) -> tuple[_Walk, ClipGraph, list[Note]]:
    """A pass over the graph with its loops over time rolled, those that can be; and notes on those that cannot."""
    tidy, notes, without = gathered(clip), list[Note](), set[object]()
    loops = find_loops(tidy) if exact != "clip" else []
    backwards = find_loops(tidy, backwards=True) if exact is None else []
    while loops or backwards:
        graph, nodes = rolled(tidy, loops)
        walk = _Walk(graph, exact=exact)
        try:
            walk.run()
        except NotRolled as stop:
            without |= {frames.key for frames in stop.frames}
            notes += unrolled(stop.loop, stop.why)
            loops = find_loops(tidy, without=without)
            continue
        refuse_backwards(backwards, nodes, walk.values)
        return walk, graph, notes + [n for found in over_time(loops, nodes, walk.values) for n in unrolled(found)]
    walk = _Walk(clip, exact=exact)
    walk.run()
    return walk, clip, notes


class _Walk:
    """One pass over the clip graph."""

    def __init__(
        self, clip: ClipGraph, pool_windows: dict[fx.Node, int] | None = None, exact: Exact | None = None
    ) -> None:
        self.clip, self.exact = clip, exact
        self.pool_windows = pool_windows or {}
        self.values: dict[fx.Node, Value | list[Value]] = {}
        self.report: list[Note] = []
        self.dtype = next((i.dtype for i in clip.inputs if i.dtype.is_floating_point), torch.float32)
        self.builder = StepBuilder(clip.batch, self.dtype)

    def run(self) -> None:
        for node in self.clip.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "call_function":
                self.values[node] = self._operator(node)
                self._confirm(node)

    def lookup(self, node: fx.Node) -> Value:
        value = self.values[node]
        assert isinstance(value, Value), f"{node} has several results; a getitem picks one"
        return value

    def _placeholder(self, node: fx.Node) -> Value:
        if node.name in self.clip.tensors:
            tensor = self.clip.tensors[node.name]
            return Value(Kind.CONSTANT, plain(tensor.shape), tensor=tensor)
        item = node.meta["input"]
        shape = shape_of(node)
        assert shape is not None
        layout = marked(shape, self.clip.batch, item.time_dim)
        made = self.builder.frame(item.name, layout)
        if item.time_dim is None:
            return Value(Kind.CONSTANT, layout, made)
        return Value(Kind.STREAM, layout, made, Timeline(self.clip.length // item.rate, item.rate, room=item.rate - 1))

    def _operator(self, node: fx.Node) -> Value | list[Value]:
        self.builder.source = node
        picked = getitem_source(node)
        if picked is not None:
            several = self.values[picked[0]]
            assert isinstance(several, list)
            return several[picked[1]]
        if node.target is loop:
            return Rolled(self.builder, self.values, self._operator, node).convert(self.report)
        arguments = [self.values[n] for n in node.all_input_nodes]
        if all(isinstance(v, Value) and v.kind is Kind.CONSTANT for v in arguments):
            known = all(isinstance(v, Value) and v.tensor is not None for v in arguments)
            return self._fold(node) if known else self._static(node)
        context = Context(self.builder, node, self.lookup, self.report, self.pool_windows.get(node), self.exact)
        packet = getattr(node.target, "overloadpacket", None)
        by_row = packet in (*RECURRENT, torch.ops.aten.cat)  # which need a constant for every row
        if all(v.kind is not Kind.STREAM for v in context.values) and not by_row:
            return context.window()
        return self._by_rule(context)

    def _by_rule(self, context: Context) -> Value | list[Value]:
        """What the operator's rule makes of it; where that refuses and windows are wanted, a live window."""
        node, noted = context.node, len(self.report)
        rule = find(node.target)
        try:
            if rule is None:
                context.refuse(
                    "it has no step form",
                    "Use operators listed as supported, move it out of the network, or give it a rule: edgeco.rule.",
                )
            made = rule(context)
            if self._astray(node, made) is None:
                return made
            del self.report[noted:]
            return context.window("in a longer clip, time stands at another place")
        except UnsupportedOperator:
            if self.exact is None or op_name(node) in _UNSTEADY or not op_name(node).startswith("aten."):
                raise
            del self.report[noted:]
            return context.window("it has no step form")  # whether it mixes rows, `check_rows` sees
        except EdgecoError:
            raise
        except Exception as error:
            raise ConversionError(
                f"{op_name(node)} at {where(node)}: its rule failed ({type(error).__name__}: {error}). "
                "This use of the operator is not covered; please report it with the network."
            ) from error

    def _fold(self, node: fx.Node) -> Value | list[Value]:
        """Compute what depends on no input; the batch, where it is asked for, is 1 and broadcasts."""

        def single(value: Any) -> Any:
            if isinstance(value, fx.Node):
                return self.lookup(value).tensor
            return value // self.clip.batch if is_batch(value, self.clip.batch) else value

        self._refuse_chance(node)
        args = fx.node.map_aggregate((node.args, node.kwargs), single)
        try:
            with torch.no_grad():
                made = node.target(*args[0], **args[1])  # type: ignore[operator]
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            raise ConversionError(
                f"{op_name(node)} at {where(node)}: this constant cannot be computed ahead ({error}). Please report it."
            ) from error
        if isinstance(made, Tensor):
            return self._of_any_row(node, made)
        return [Value(Kind.CONSTANT, plain(t.shape), tensor=t) for t in made]

    def _of_any_row(self, node: fx.Node, made: Tensor) -> Value:
        """A constant whose rows and another axis became one: as one row if all are alike, else spread over all rows."""
        shape = shape_of(node) or ()
        batch = self.clip.batch
        merged = [i for i, n in enumerate(shape) if is_batch(n, batch) and n > batch and made.shape[i] == n // batch]
        for axis in merged:
            first = made.narrow(axis, 0, 1)
            if bool((made == first).all()):
                made = first
            elif len(merged) == 1 and _rows_outermost(node, axis, batch):
                return self._spread(made, axis)
            else:
                raise UnsupportedOperator(
                    op_name(node),
                    "a constant differs along an axis that rows are merged into, and they are not its outer part",
                    where(node),
                    "Merge rows with what lies after them, such as (rows, heads) and not (heads, rows).",
                )
        return Value(Kind.CONSTANT, plain(made.shape), tensor=made)

    def _spread(self, made: Tensor, axis: int) -> Value:
        """A constant for every row, in an axis of which rows are the outer part."""
        sizes: list[Any] = list(made.shape)
        node = self.builder.weight(made.unsqueeze(axis))
        spread = [*sizes[:axis], self.builder.batch_size(), *sizes[axis:]]
        node = self.builder.call(torch.ops.aten.expand.default, node, spread)
        node = self.builder.call(torch.ops.aten.reshape.default, node, [*sizes[:axis], -1, *sizes[axis + 1 :]])
        sizes[axis] *= self.clip.batch
        return Value(Kind.CONSTANT, marked(sizes, self.clip.batch), node)

    def _refuse_chance(self, node: fx.Node) -> None:
        """Random numbers have no place in a trace; dropout in evaluation draws none."""
        if "rand" in op_name(node) or (op_name(node) in _DROPOUT and node.args[2]):
            raise UnsupportedOperator(
                op_name(node), "it draws random numbers", where(node), "Take it out of evaluation."
            )

    def _static(self, node: fx.Node) -> Value | list[Value]:
        """An operator on inputs that have no time: the same at every step."""
        self._refuse_chance(node)
        context = Context(self.builder, node, self.lookup, self.report, None)
        made = context.unchanged({}, Timeline(1))
        several = made if isinstance(made, list) else [made]
        found = [Value(Kind.CONSTANT, v.layout, v.node) for v in several]
        return found if isinstance(made, list) else found[0]

    def _confirm(self, node: fx.Node) -> None:
        """Hold a stream's axes against the second trace: only time's may differ between two lengths."""
        astray = self._astray(node, self.values[node])
        if astray is not None:
            raise ConversionError(
                f"{op_name(node)} at {where(node)}: axis {astray} changes with the number of frames, but time does not "
                "reach it by any rule. Please report this network."
            )

    def _astray(self, node: fx.Node, value: Value | list[Value]) -> int | None:
        """An axis that changes with the length of the clip although it is not time's."""
        longer = self.clip.resized.get(node.name)
        if longer is None or not isinstance(value, Value) or value.kind is not Kind.STREAM or value.time.length == 1:
            return None  # of a clip's only element all axes are its own
        sizes = zip(value.layout.shape, longer, strict=True)
        return next((i for i, (a, b) in enumerate(sizes) if a != b and i != value.layout.time), None)

    def final_summaries(self) -> list[fx.Node]:
        """Operators that summarise the clip over time and whose result meets no longer stream afterwards."""
        finals = []
        for node, value in self.values.items():
            if not isinstance(value, Value) or value.kind is not Kind.STREAM or value.time.length != 1:
                continue
            sources = [self.values[n] for n in node.all_input_nodes]
            shrank = any(isinstance(v, Value) and v.kind is Kind.STREAM and v.time.length > 1 for v in sources)
            if shrank and _summarises(node) and not self._meets_longer(node):
                finals.append(node)
        return finals

    def _meets_longer(self, node: fx.Node) -> bool:
        seen, queue = set(), list(node.users)
        while queue:
            user = queue.pop()
            if user in seen or user.op == "output":
                continue
            seen.add(user)
            value = self.values[user]
            if isinstance(value, Value) and value.kind is Kind.STREAM and value.time.length > 1:
                return True
            queue += user.users
        return False

    def finish(self) -> StepGraph:
        """Align the outputs, close the graph, and describe the answers."""
        nodes, answers, row_axes = [], [], {}
        for name, source in self.clip.outputs.items():
            value = graded(source, self.lookup(source), self.report)
            if value.kind is Kind.CONSTANT:
                raise UnsupportedOperator(
                    op_name(source),
                    f"the output {name!r} that it gives does not depend on any frame",
                    where(source),
                    "There is nothing to stream: leave this output out.",
                )
            if value.layout.batch is None:
                raise UnsupportedOperator(
                    op_name(source),
                    f"it mixes the rows of the batch: the output {name!r} that it gives has no axis for them",
                    where(source),
                    "Each row is a stream of its own: give every row its own answer.",
                )
            self.builder.source = source
            value = self._whole_axes(value)
            delay = max(value.time.computable, 0)
            node = self.builder.at(value, delay)
            row_axes[name] = value.graph_layout.batch or 0
            if node.op == "placeholder" or takes_turns(node) or node in nodes:
                node = self.builder.call(torch.ops.aten.clone.default, node)
            nodes.append(node)
            answers.append(answer_of(name, value, delay))
        rate = math.lcm(*(a.timeline.rate for a in answers))
        histories, period = self.builder.finish(nodes, rate)
        root = nn.Module()
        for attribute, tensor in self.builder.tensors.items():
            root.register_buffer(attribute, tensor)
        module = fx.GraphModule(root, self.builder.graph, class_name="StepNetwork")
        check_rows(module, self.clip.inputs, histories, row_axes, self.dtype)
        windows = [op_name(n) for n, v in self.values.items() if isinstance(v, Value) and v.kind is Kind.WINDOW]
        frames = [item.name for item in self.clip.inputs]
        times = [answer.timeline for answer in answers]
        if repeats_after(module, times, histories) > MAX_RATE:
            refuse_rates(self.values)
        phases, schedule = split(module, frames, times, histories)
        return StepGraph(
            module, histories, answers, period, phases, schedule, self.report, self.clip, self.dtype, windows
        )

    def _whole_axes(self, value: Value) -> Value:
        """An output that merges time into other axes as the clip network's own whole tensor, over a live window."""
        axis = value.layout.time if value.kind is Kind.STREAM else None
        if axis is None or value.layout.pure_time is not None:
            return value
        roles = [factor.role for factor in value.layout.axes[axis]]
        if "batch" in roles and roles[-1] == "time":  # frames in the batch: an element per frame
            return value
        time = value.time
        delay = time.computable + time.rate * (time.length - 1)
        whole = time.windowed(time.length, delay)
        return Value(Kind.WINDOW, value.layout, self.builder.window(value, delay), whole)


_DROPOUT = {f"aten.{name}dropout" for name in ("", "feature_", "alpha_", "feature_alpha_")}
_UNSTEADY = _DROPOUT | {
    f"aten.{name}"
    for name in (
        "batch_norm",
        "native_batch_norm",
        "_native_batch_norm_legit",
        "_native_batch_norm_legit_functional",
        "_batch_norm_with_update_functional",
    )
}
"""Operators that are refused also behind a live window: in training they are no function of their input."""


def _rows_outermost(node: fx.Node, axis: int, batch: int) -> bool:
    """Whether an operator on a constant that merges rows into an axis has them outside of what was there."""
    packet = getattr(node.target, "overloadpacket", None)
    if packet not in (*VIEWS, torch.ops.aten.flatten):
        return packet is torch.ops.aten.repeat  # one row after the other
    before, after = shape_of(node.all_input_nodes[0]), shape_of(node)
    assert before is not None and after is not None
    layout = marked(before, batch).reshape(after)
    return layout is not None and layout.axes[axis][0].role == "batch"


def _summarises(node: fx.Node) -> bool:
    name = op_name(node).rsplit(".", 1)[-1]
    return "pool" in name or name in ("mean", "sum", "amax", "amin")
