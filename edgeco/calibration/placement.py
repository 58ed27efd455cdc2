"""Which nodes compute in INT8 and which tensors lie on a grid for it; what is left in float, and why.

The rules are those that hold for TensorRT's explicit quantisation and for ONNX Runtime's fused kernels alike. A tensor
on a grid is quantised once, where it is made, and everything that reads it reads the same numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

from onnx import NodeProto

from edgeco.bundle.manifest import History, Manifest
from edgeco.calibration.grid import Kind
from edgeco.calibration.network import MOVES, Graph, Key, attribute, moved
from edgeco.export.tensorrt_forms import SUMS

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
REARRANGES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity")
"""Of the moves those that lose and add no number."""
NARROW = 16
"""Fewer channels than these fill no INT8 kernel: what they would save goes into turning numbers into codes."""
VECTOR_WEIGHTS = 1 << 15
"""Weights from which on a product with a single vector is worth it: it takes as long as its weights to read."""


@dataclass
class Placement:
    """What is quantised.

    Attributes:
        layers: nodes with weights that compute in INT8, by their first output.
        tensors: those that lie on a grid.
        histories: those that are stored in INT8, by name.
        floats: for every layer and history left in float the reason; a layer by its label.
    """

    layers: set[Key] = field(default_factory=set)
    tensors: set[Key] = field(default_factory=set)
    histories: set[str] = field(default_factory=set)
    floats: dict[str, str] = field(default_factory=dict)


def label(graph: Graph, node: NodeProto) -> str:
    """What a layer is called: by its weight, which is the same in every graph and typing."""
    weight = next((name for name in node.input[1:2] if name in graph.weights), None)
    return weight or str(node.output[0])


def layers_of(graph: Graph) -> Iterator[NodeProto]:
    """The nodes with weights, in order."""
    for node in graph.body.node:
        if node.op_type in WEIGHTED and graph.constant(node.input[1]) is not None:
            yield node


def place(
    graphs: Sequence[Graph], manifest: Manifest, kind: Kind, keep_float: Collection[str] = (), histories: bool = True
) -> Placement:
    """Decide for a whole network.

    Args:
        graphs: its step graphs.
        manifest: what describes them.
        kind: typing.
        keep_float: names of layers (their weight, output or node), tensors or histories that stay in float.
        histories: whether histories are stored in INT8.
    """
    made = Placement()
    kept = set(keep_float)
    if histories:
        _place_histories(graphs, manifest, made, kept)
    for graph in graphs:
        for node in layers_of(graph):
            reason = float_reason(graph, node, kind, kept)
            if reason is not None:
                made.floats[label(graph, node)] = reason
                continue
            made.layers.add(Key(graph.number, node.output[0]))
            made.tensors.add(Key(graph.number, node.input[0]))
            if kind == "cpu" and node.op_type == "Conv":
                made.tensors.add(Key(graph.number, finished(graph, node)))
        _place_residuals(graph, made, kept)
    return made


def finished(graph: Graph, node: NodeProto) -> str:
    """The tensor in which a layer's result is quantised: after a ReLU that alone reads it."""
    reader = graph.only_reader(node.output[0])
    return str(reader.output[0] if reader is not None and reader.op_type == "Relu" else node.output[0])


def _place_histories(graphs: Sequence[Graph], manifest: Manifest, made: Placement, kept: set[str]) -> None:
    past = {read.name for history in manifest.histories for read in history.reads}
    for history in manifest.histories:
        reason = _history_reason(graphs, history, kept)
        if reason is not None:
            made.floats[history.name] = reason
            continue
        made.histories.add(history.name)
        for graph in graphs:
            names = (history.write, *(read.name for read in history.reads))
            made.tensors |= {Key(graph.number, name) for name in names if name in graph.inputs or name in graph.outputs}
            origin = _origin(graph, history.write)
            if history.write in graph.outputs and origin not in past | kept:
                made.tensors.add(Key(graph.number, origin))


def _origin(graph: Graph, name: str) -> str:
    """The tensor whose every number another one holds, in the same order or another: what else reads it reads those."""
    while (maker := graph.maker.get(name)) is not None and maker.op_type in REARRANGES:
        name = maker.input[0]
    return name


def _history_reason(graphs: Sequence[Graph], history: History, kept: set[str]) -> str | None:
    """Why a history stays in float; None if it need not."""
    reads = [read.name for read in history.reads]
    if kept & {history.name, history.write, *reads}:
        return "as asked"
    if history.dtype != "float32":
        return f"it is {history.dtype}"
    if prod(history.shape) < NARROW:
        return f"narrow: an element is of {prod(history.shape)} numbers, of which nothing is saved"
    for graph in graphs:
        if history.write in _after(graph, reads):
            return "it is computed from itself, where every rounding would stay"
        readers = [node for name in reads for node, _ in graph.readers.get(name, [])]
        if readers and all(node.op_type in SUMS for node in readers):
            return "its window is summed up"
        if _is_differenced(graph, history):
            return "what changes in it from step to step is computed, of which its rounding would be a large part"
    return None


def _is_differenced(graph: Graph, history: History) -> bool:
    """Whether one of its elements is subtracted from another: what is left is small, the rounding of both is not."""
    past = _given_on(graph, [read.name for read in history.reads])
    source = history.write
    while (maker := graph.maker.get(source)) is not None and maker.op_type in MOVES and len(moved(maker)) == 1:
        source = maker.input[0]
    elements = past | _given_on(graph, [source])
    return any(
        node.op_type == "Sub" and past.intersection(node.input) and elements.issuperset(node.input)
        for node in graph.body.node
    )


def _given_on(graph: Graph, names: Sequence[str]) -> set[str]:
    """Tensors that hold nothing but numbers of some others."""
    found = set(names)
    for node in graph.body.node:
        if node.op_type in MOVES and found.issuperset(moved(node)):
            found.update(node.output)
    return found


def _after(graph: Graph, names: Sequence[str]) -> set[str]:
    reached = set(names)
    for node in graph.body.node:
        if reached.intersection(node.input):
            reached.update(node.output)
    return reached


def float_reason(graph: Graph, node: NodeProto, kind: Kind, kept: Collection[str] = ()) -> str | None:
    """Why a layer stays in float, where ``kept`` names what was asked to; None if it need not."""
    if set(kept) & {label(graph, node), node.output[0], node.name, node.input[0]}:
        return "as asked"
    if _is_head(graph, node):
        return "head: an answer is computed from it directly"
    if len(node.input) > 2 and node.input[2] and graph.constant(node.input[2]) is None:
        return "its bias is computed"
    weight = graph.constant(node.input[1])
    assert weight is not None
    if node.op_type in ("Conv", "ConvTranspose"):
        return _convolution_reason(graph, node, weight.shape, kind)
    return _product_reason(graph, node, weight.shape)


def _convolution_reason(graph: Graph, node: NodeProto, shape: tuple[int, ...], kind: Kind) -> str | None:
    groups, transposed = attribute(node, "group", 1), node.op_type == "ConvTranspose"
    positions = 1
    for size in graph.shapes[node.output[0]][2:]:
        positions *= size
    area = 1
    for size in shape[2:]:
        area *= size
    if positions == 1 and area == 1:
        return "a single position: a gate or a head, of which little is saved"
    if kind == "cpu" and transposed:
        return "ONNX Runtime has no INT8 kernel for it"
    if groups > 1 and transposed:
        return "transposed in groups: its weights have one scale for several channels"
    if groups > 1:
        depthwise = shape[1] == 1 and groups == shape[0]
        if kind == "cpu":
            return "depthwise: FP32 is faster on a processor" if depthwise else "grouped"
        return None if depthwise and shape[0] % 8 == 0 and max(shape[2:]) >= 3 else "grouped, and not by whole blocks"
    inputs = shape[1] if kind == "trt" else shape[1] * area  # a processor gathers the window before it multiplies
    if shape[0] < NARROW or (inputs < (NARROW if kind == "trt" else 4 * NARROW) and shape[1] < NARROW):
        given, made = (shape[0], shape[1]) if transposed else (shape[1], shape[0])
        return f"narrow: {given} channels to {made}"
    return None


def _product_reason(graph: Graph, node: NodeProto, shape: tuple[int, ...]) -> str | None:
    if len(shape) != 2 or graph.constant(node.input[0]) is not None:
        return "no matrix of weights"
    if node.op_type == "Gemm" and (
        attribute(node, "alpha", 1.0) != 1 or attribute(node, "beta", 1.0) != 1 or attribute(node, "transA", 0)
    ):
        return "scaled or turned"
    if min(shape) < NARROW:
        return f"narrow: {shape[0]} x {shape[1]}"
    rows = graph.shapes[node.output[0]]
    if (len(rows) < 2 or rows[-2] == 1 or node.op_type == "Gemm") and shape[0] * shape[1] < VECTOR_WEIGHTS:
        return "one vector with few weights, of which little is saved"
    return None


def _is_head(graph: Graph, node: NodeProto) -> bool:
    """Whether an answer is computed from a layer without another layer between them."""
    waiting, seen = list(node.output), set[str]()
    while waiting:
        name = waiting.pop()
        if name in graph.answers:
            return True
        if name in seen:
            continue
        seen.add(name)
        for reader, _ in graph.readers.get(name, []):
            if reader.op_type not in WEIGHTED:
                waiting += reader.output
    return False


def _place_residuals(graph: Graph, made: Placement, kept: set[str]) -> None:
    """Both branches of a sum of which one comes from a layer in INT8 and the other lies on a grid already."""
    on_grid = held(graph, made)
    for node in graph.body.node:
        if node.op_type != "Add" or kept & {node.output[0], node.name}:
            continue
        if any(graph.constant(name) is not None for name in node.input):
            continue
        if graph.shapes[node.input[0]] != graph.shapes[node.input[1]]:
            continue
        for branch, shortcut in (tuple(node.input), tuple(reversed(node.input))):
            maker = graph.maker.get(branch)
            dense = maker is not None and attribute(maker, "group", 1) == 1
            if dense and Key(graph.number, branch) in made.layers and shortcut in on_grid:
                made.tensors |= {Key(graph.number, branch), Key(graph.number, shortcut)}
                break


def held(graph: Graph, made: Placement) -> set[str]:
    """Tensors whose numbers lie on a grid: quantised ones, and what moves of those give."""
    return _given_on(graph, [key.name for key in made.tensors if key.graph == graph.number])
