"""Step graphs as a quantiser sees them: who makes a tensor, who reads it, how large it is, and which are weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from edgeco.bundle.manifest import Manifest
from edgeco.export.exported import Exported

Array = np.ndarray[Any, Any]

MOVES = ("Reshape", "Transpose", "Slice", "Squeeze", "Unsqueeze", "Flatten", "Identity", "MaxPool", "Concat", "Gather")
"""What comes out are numbers that went in, so that they lie on the same grid."""

_ROWS = re.compile(r"(?:(\d+)\*)?rows")


@dataclass(frozen=True)
class Key:
    """A tensor of one of the graphs."""

    graph: int
    name: str


class Graph:
    """One step graph.

    Attributes:
        body: its nodes; not to be changed.
        shapes: of every tensor, for one row.
        maker: the node that makes a tensor.
        readers: the nodes that read a tensor, with the place of the input.
        constants: small constants of the graph itself.
    """

    def __init__(self, number: int, exported: Exported, manifest: Manifest) -> None:
        self.number = number
        self.answers = {output.name for output in manifest.outputs}
        model: onnx.ModelProto = onnx.ModelProto.FromString(exported.graphs[number])
        self.model, self.body = model, model.graph
        self.weights: Mapping[str, Array] = exported.weights
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.body.initializer}
        self.maker = {name: node for node in self.body.node for name in node.output}
        self.readers: dict[str, list[tuple[NodeProto, int]]] = {}
        for node in self.body.node:
            for place, name in enumerate(node.input):
                self.readers.setdefault(name, []).append((node, place))
        self.outputs = {value.name for value in self.body.output}
        self.inputs = {value.name for value in self.body.input}
        self.shapes = _shapes(exported.model(number))

    def constant(self, name: str) -> Array | None:
        """The numbers of a weight or constant, None of what is computed."""
        found = self.weights.get(name)
        return self.constants.get(name) if found is None else found

    def only_reader(self, name: str) -> NodeProto | None:
        """The node that alone reads a tensor, which is no output of the graph."""
        readers = self.readers.get(name, [])
        return readers[0][0] if len(readers) == 1 and name not in self.outputs else None


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """A node's attribute, or what it is where it is left out."""
    for entry in node.attribute:
        if entry.name == name:
            return helper.get_attribute_value(entry)
    return default


def moved(node: NodeProto) -> Sequence[str]:
    """The inputs whose numbers a node of ``MOVES`` hands on."""
    return list(node.input) if node.op_type == "Concat" else [node.input[0]]


def folded_weights(exported: Exported) -> Exported:
    """The same network with transpositions of weights done beforehand, so that a weight is read where it is used."""
    weights = dict(exported.weights)
    graphs = []
    for graph in exported.graphs:
        model = onnx.ModelProto.FromString(graph)
        kept = []
        for node in model.graph.node:
            if node.op_type == "Transpose" and node.input[0] in weights:
                axes = attribute(node, "perm", None) or tuple(reversed(range(weights[node.input[0]].ndim)))
                turned = np.transpose(weights[node.input[0]], axes)
                name = f"{node.input[0]}_{''.join(map(str, axes))}_turned"
                weights[name] = np.ascontiguousarray(turned)
                _rename(model.graph, node.output[0], name)
            else:
                kept.append(node)
        del model.graph.node[:]
        model.graph.node.extend(kept)
        graphs.append(model.SerializeToString(deterministic=True))
    return used_weights(Exported(tuple(graphs), exported.schedule, weights))


def used_weights(exported: Exported) -> Exported:
    """Without the weights that no graph reads."""
    bodies = [onnx.ModelProto.FromString(graph).graph for graph in exported.graphs]
    used = {name for body in bodies for node in body.node for name in node.input}
    kept = {name: array for name, array in exported.weights.items() if name in used}
    return Exported(exported.graphs, exported.schedule, kept)


def _rename(body: onnx.GraphProto, old: str, new: str) -> None:
    for node in body.node:
        node.input[:] = [new if name == old else name for name in node.input]


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes for one row: with numbers in the place of ``rows`` they are known throughout."""
    for value in (*model.graph.input, *model.graph.output):
        for size in value.type.tensor_type.shape.dim:
            found = _ROWS.fullmatch(size.dim_param)
            if found:
                size.dim_value = int(found[1] or 1)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
    }
