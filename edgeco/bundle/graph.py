"""What a reader must know of an ONNX graph member, read from its protobuf bytes without the onnx package.

Graph members are small: they hold structure and constants, no weights. A tensor that says its data lie in another
file is refused wherever it stands, for an engine would follow that path; so is an operator that is not ONNX's own, for
one of those, ``EPContext``, holds or names a compiled engine, which is native code.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeco.bundle.limits import MAX_GRAPH, MAX_NESTING
from edgeco.bundle.protobuf import Field, read_fields
from edgeco.bundle.text import shown
from edgeco.errors import BundleError

# Fields that hold further messages, by kind of message: field number to kind.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 11: "input", 12: "output", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
    "input": {},
    "output": {},
}
_NODE_INPUT, _NODE_OUTPUT, _NODE_DOMAIN = 1, 2, 7
_OWN_DOMAINS = ("", "ai.onnx")
_VALUE_NAME, _TENSOR_NAME = 1, 8
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


@dataclass
class Graph:
    """Tensor names of one graph member, those of its inner graphs included."""

    inputs: set[str] = field(default_factory=set)
    """Inputs of the outermost graph."""
    outputs: set[str] = field(default_factory=set)
    """Outputs of the outermost graph."""
    initializers: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)
    """Computed by a node, or an input of an inner graph."""
    used: set[str] = field(default_factory=set)
    """Read by a node or given out by a graph."""
    nodes: int = 0

    @property
    def missing(self) -> set[str]:
        """Names that the graph reads and does not make: its weights."""
        return self.used - self.made - self.inputs - self.initializers - {""}  # an optional input left out


def read_graph(member: memoryview, name: str) -> Graph:
    """Walk a serialized ONNX model.

    Args:
        member: its bytes.
        name: name of the member, for messages.

    Raises:
        BundleError: too large, not protobuf, without a graph, with external data or foreign operators, or nested too
            deeply.
    """
    if len(member) > MAX_GRAPH:
        raise BundleError(f"{name} has {len(member)} bytes; a graph member, which holds no weights, has {MAX_GRAPH}.")
    graph = Graph()
    try:
        _walk(member, "model", graph, 0, True)
    except BundleError as error:
        raise BundleError(f"{name} is not a usable ONNX model: {error}.") from None
    if not graph.nodes:
        raise BundleError(f"{name} is not a usable ONNX model: it holds no node.")
    return graph


def _walk(message: memoryview, kind: str, graph: Graph, depth: int, outermost: bool, named: bool = True) -> None:
    """Visit one message and all within it; ``named``: its tensor names are the graph's, not a function's."""
    if depth > MAX_NESTING:
        raise BundleError(f"its graphs are nested deeper than {MAX_NESTING // 3}")
    children = _MESSAGES[kind]
    for entry in read_fields(message):
        child = children.get(entry.number)
        if child is not None:
            inner = outermost and kind in ("model", "graph")
            _walk(entry.message, child, graph, depth + 1, inner, named and child not in ("training", "function"))
        elif kind == "tensor" and (entry.number == _EXTERNAL_DATA or (entry.number == _DATA_LOCATION and entry.value)):
            raise BundleError("a tensor's data lie in another file, which a bundle forbids")
        elif kind == "node" and entry.number == _NODE_DOMAIN and (domain := _text(entry)) not in _OWN_DOMAINS:
            raise BundleError(f"an operator is of the domain {shown(domain)}, and a bundle takes ONNX's own only")
        elif named:
            _note(entry, kind, graph, outermost)
    if kind == "node":
        graph.nodes += 1


def _note(entry: Field, kind: str, graph: Graph, outermost: bool) -> None:
    """Keep a tensor name, if this field is one."""
    number = entry.number
    if kind == "node" and number == _NODE_INPUT:
        graph.used.add(_text(entry))
    elif kind == "node" and number == _NODE_OUTPUT:
        graph.made.add(_text(entry))
    elif kind == "tensor" and number == _TENSOR_NAME and outermost:
        graph.initializers.add(_text(entry))
    elif kind == "tensor" and number == _TENSOR_NAME:
        graph.made.add(_text(entry))
    elif kind == "input" and number == _VALUE_NAME:
        (graph.inputs if outermost else graph.made).add(_text(entry))
    elif kind == "output" and number == _VALUE_NAME:
        graph.used.add(_text(entry))
        if outermost:
            graph.outputs.add(_text(entry))


def _text(entry: Field) -> str:
    try:
        return str(entry.message, "utf-8")
    except UnicodeDecodeError:
        raise BundleError(f"a name, {shown(repr(bytes(entry.message)))}, is not UTF-8") from None
