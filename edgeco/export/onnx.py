"""The step graph as ONNX: opset 20, named states, a symbolic number of rows, weights beside it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import onnx
import torch
from onnx import helper
from torch import fx
from torch._decomp import core_aten_decompositions, decomposition_table
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

import edgeco.export.layers
import edgeco.export.pointwise
import edgeco.export.reshaping  # noqa: F401  (they register their operators)
from edgeco.continual.context import is_batch
from edgeco.continual.convert import StepGraph
from edgeco.continual.phases import Phase
from edgeco.errors import ConversionError
from edgeco.export.exported import Exported
from edgeco.export.frame_input import FrameInput
from edgeco.export.operators import TABLE, Call, Ref
from edgeco.export.several import SEVERAL
from edgeco.export.writer import TYPES, GraphWriter

OPSET = 20
IR_VERSION = 10
WHOLE = (torch.bool, torch.int32, torch.int64)
"""Types of answers that a bundle gives as float32: numbers of classes, and true or false."""


def export_onnx(step: StepGraph, frame: FrameInput | None = None) -> Exported:
    """Write a step graph.

    Args:
        step: the converted network.
        frame: given for an image network, whose graph then takes uint8 frames (rows, height, width, channels).

    Raises:
        ConversionError: an operator of the network has no ONNX form.
    """
    propagate(step.module, step)
    weights: dict[str, np.ndarray[Any, Any]] = {}
    graphs = [_graph(step, phase, frame, weights) for phase in step.phases]
    exported = Exported(tuple(graphs), step.schedule, weights)
    for number in range(len(graphs)):
        try:
            onnx.checker.check_model(exported.model(number), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            first = str(error).strip().split("\n", 1)[0]
            raise ConversionError(
                f"The exported graph is no valid ONNX ({first}). Please report this network."
            ) from error
    return exported


def _graph(step: StepGraph, phase: Phase, frame: FrameInput | None, weights: dict[str, np.ndarray[Any, Any]]) -> bytes:
    """One phase's graph; its weights are added to those of the others."""
    batch = step.clip.batch
    propagate(phase.module, step)
    writer = GraphWriter(weights)
    translation = _Translation(writer, batch, step)
    inputs = []
    results: list[fx.Node] = []
    for node in phase.module.graph.nodes:
        if node.op == "placeholder":
            inputs.append(_input_info(node, batch, frame))
            translation.place(node, _take_frame(writer, node, frame))
        elif node.op == "get_attr":
            translation.place(node, writer.weight(str(node.target), getattr(phase.module, str(node.target))))
        elif node.op == "call_function":
            translation.translate(node)
        else:
            results = [n for group in node.args[0] for n in group]
    wanted = [step.answers[i].name for i in phase.answers] + [step.histories[i].output for i in phase.histories]
    names = [translation.names[n] for n in results]
    for i in range(len(phase.answers)):
        if results[i].meta["val"].dtype in WHOLE:
            names[i] = writer.emit("Cast", names[i], to=TYPES[torch.float32])
    writer.join_reshapes(names)
    outputs = _name_outputs(writer, names, wanted, results, batch)
    graph = helper.make_graph(writer.nodes, "step", inputs, outputs, list(writer.small.values()))
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="edgeco"
    )
    return model.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def propagate(module: fx.GraphModule, step: StepGraph) -> None:
    """Give every node of a step network, or of one phase of it, a fake value of the traced batch."""
    batch = step.clip.batch
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        examples = []
        shapes = {}
        for history in step.histories:
            rows = batch * history.rows_per_stream
            for name in history.inputs:
                shapes[name] = (rows, *history.shape) if history.ages else (history.depth, rows, *history.shape)
        for item in step.clip.inputs:
            rest = [n for i, n in enumerate(item.shape) if i not in (0, item.time_dim)]
            shapes[item.name] = (batch, *rest)
        for node in module.graph.nodes:
            if node.op == "placeholder":
                examples.append(torch.empty(shapes[str(node.target)], dtype=step.dtype))
        FakeTensorProp(module, mode).propagate(*examples)


def _input_info(node: fx.Node, batch: int, frame: FrameInput | None) -> onnx.ValueInfoProto:
    value = node.meta["val"]
    shape: list[Any] = [
        "rows" if n == batch else f"{n // batch}*rows" if n and n % batch == 0 else n for n in value.shape
    ]
    if frame is not None and node.target == "frame":
        rows, channels, height, width = shape
        return helper.make_tensor_value_info("frame", TYPES[torch.uint8], [rows, height, width, channels])
    return helper.make_tensor_value_info(str(node.target), TYPES[value.dtype], shape)


def _take_frame(writer: GraphWriter, node: fx.Node, frame: FrameInput | None) -> str:
    """uint8 (rows, height, width, channels) to float (rows, channels, height, width) less the mean."""
    if frame is None or node.target != "frame":
        return str(node.target)
    value = node.meta["val"]
    if value.shape[1] == 1:  # one channel lies the same either way
        name = writer.reshape("frame", [-1, *value.shape[1:]])
    else:  # bytes are a quarter of the work to turn, and a mean per plane is subtracted plane by plane
        name = writer.emit("Transpose", "frame", perm=[0, 3, 1, 2])
    name = writer.emit("Cast", name, to=TYPES[value.dtype])
    if not any(frame.mean):
        return name
    mean = torch.tensor(frame.mean, dtype=value.dtype).reshape(-1, 1, 1)
    return writer.emit("Sub", name, writer.weight("frame_mean", mean))


def _name_outputs(
    writer: GraphWriter, names: Sequence[str], wanted: Sequence[str], results: Sequence[fx.Node], batch: int
) -> list[onnx.ValueInfoProto]:
    """Rename the results in place; one that is an input, a weight or wanted twice gets an Identity."""
    made = {name for node in writer.nodes for name in node.output}
    renamed: dict[str, str] = {}
    extra = []
    for name, final in zip(names, wanted, strict=True):
        if name in made and name not in renamed:
            renamed[name] = final
        else:
            extra.append((name, final))
    for node in writer.nodes:
        node.input[:] = [renamed.get(n, n) for n in node.input]
        node.output[:] = [renamed.get(n, n) for n in node.output]
    for name, final in extra:
        writer.emit("Identity", renamed.get(name, name), result=final)
    values = [n.meta["val"] for n in results]
    return [
        helper.make_tensor_value_info(
            final,
            TYPES[torch.float32 if v.dtype in WHOLE else v.dtype],
            ["rows" if n == batch else f"{n // batch}*rows" if n and n % batch == 0 else n for n in v.shape],
        )
        for final, v in zip(wanted, values, strict=True)
    ]


class _Translation:
    """Names of the ONNX tensors by step node, and how a node becomes ONNX nodes."""

    def __init__(self, writer: GraphWriter, batch: int, step: StepGraph) -> None:
        self.writer, self.batch, self.step = writer, batch, step
        self.names: dict[fx.Node, str] = {}
        self.several: dict[fx.Node, list[str]] = {}

    def place(self, node: fx.Node, name: str) -> None:
        self.names[node] = name

    def translate(self, node: fx.Node) -> None:
        target, args = node.target, _arguments(node)
        if target is operator.getitem and args[0] in self.several:
            self.names[node] = self.several[args[0]][args[1]]
            return
        if target in (aten_sym_size, operator.mul):
            self.names[node] = self._symbol(node)
            return
        found = TABLE.get(getattr(target, "overloadpacket", None))
        if found is None and getattr(target, "namespace", "") == "prims":
            found = TABLE.get(getattr(torch.ops.aten, target.overloadpacket.__name__, None))  # type: ignore[union-attr]
        if target in SEVERAL:
            self.several[node] = SEVERAL[target](self.writer, self._bind(node))
        elif found is None or not isinstance(node.meta["val"], torch.Tensor):
            self._decompose(node)
        elif any(self._is_symbol(a) for a in _flat(node.args)):
            self.names[node] = self._spread_rows(node)
        else:
            name = target.overloadpacket.__name__  # type: ignore[union-attr]
            self.names[node] = found(Call(self.writer, self._bind(node), node.meta["val"], self.batch, name))

    def _ref(self, node: fx.Node) -> Ref:
        value = node.meta["val"]
        return Ref(self.names[node], tuple(value.shape), value.dtype)

    def _bind(self, node: fx.Node) -> dict[str, Any]:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self._ref)  # type: ignore[arg-type]
        bound = {}
        for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
            bound[argument.name] = args[i] if i < len(args) else kwargs.get(argument.name, argument.default_value)
        return bound

    def _is_symbol(self, value: Any) -> TypeGuard[fx.Node]:
        return isinstance(value, fx.Node) and isinstance(value.meta.get("val"), int)

    def _symbol(self, node: fx.Node) -> str:
        """The number of rows as a one-element tensor, for the rare constant that must be spread over rows."""
        source, number = _arguments(node)
        if node.target is aten_sym_size:
            return self.writer.emit("Shape", self.names[source], start=number, end=number + 1)
        return self.writer.emit("Mul", self.names[source], self.writer.ints([number]))

    def _spread_rows(self, node: fx.Node) -> str:
        """expand() to sizes of which one is the number of rows."""
        source, sizes = _arguments(node)[:2]
        parts = [self.names[a] if self._is_symbol(a) else self.writer.ints([a]) for a in sizes]
        return self.writer.emit("Expand", self.names[source], self.writer.emit("Concat", *parts, axis=0))

    def _decompose(self, node: fx.Node) -> None:
        """Write an operator by what PyTorch says it consists of."""
        tensors = [a for a in _flat((node.args, tuple(node.kwargs.values()))) if isinstance(a, fx.Node)]
        if not tensors:  # a constant made on the spot; rows, where it has any, broadcast
            args, kwargs = fx.node.map_aggregate(
                (node.args, node.kwargs), lambda v: v // self.batch if is_batch(v, self.batch) else v
            )
            made = node.target(*args, **{k: v for k, v in kwargs.items() if k != "device"})  # type: ignore[operator]
            self.names[node] = self.writer.weight(f"made_{len(self.writer.weights)}", made)
            return

        def run(*values: torch.Tensor) -> Any:
            given = dict(zip(tensors, values, strict=True))
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: given[n])
            return node.target(*args, **kwargs)  # type: ignore[operator]

        table = {k: v for k, v in core_aten_decompositions().items() if k.overloadpacket not in TABLE}
        if node.target in decomposition_table:
            table[node.target] = decomposition_table[node.target]
        mode = tensors[0].meta["val"].fake_mode
        with mode, torch.no_grad():
            inner = make_fx(run, decomposition_table=table, tracing_mode="real")(*[t.meta["val"] for t in tensors])
            FakeTensorProp(inner, mode).propagate(*[t.meta["val"] for t in tensors])
        body = [n for n in inner.graph.nodes if n.op == "call_function"]
        if any(n.target is node.target for n in body):
            raise ConversionError(
                f"The operator {node.target} has no ONNX form here; replace it by simpler operators, or report it."
            )
        sources = [n for n in inner.graph.nodes if n.op == "placeholder"]
        for source, outer in zip(sources, tensors, strict=True):
            self.names[source] = self.names[outer]
        for child in inner.graph.nodes:
            if child.op == "get_attr":
                self.names[child] = self.writer.weight(
                    f"d{len(self.writer.weights)}_{child.target}", getattr(inner, str(child.target))
                )
                child.meta["val"] = getattr(inner, str(child.target))
            elif child.op == "call_function":
                self.translate(child)
        returned = next(n for n in inner.graph.nodes if n.op == "output").args[0]
        if isinstance(returned, fx.Node):
            self.names[node] = self.names[returned]
        else:
            self.several[node] = [self.names[n] for n in returned]


aten_sym_size = torch.ops.aten.sym_size.int


def _arguments(node: fx.Node) -> list[Any]:
    """The arguments by place; fx types each as anything, the operator's schema says what it is."""
    return list(node.args)


def _flat(args: Any) -> list[Any]:
    found: list[Any] = []
    for value in args:
        found += _flat(value) if isinstance(value, (list, tuple)) else [value]
    return found
