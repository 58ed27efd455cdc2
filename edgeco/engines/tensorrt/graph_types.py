"""Which results a typed graph computes in FP32, read from its bytes: what an untyped network must be told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgeco.bundle.protobuf import BYTES, read_fields

_GRAPH, _NODE, _INITIALIZER, _INPUT = 7, 1, 5, 11
FLOAT, INT8, INT64, BOOL, HALF = 1, 3, 7, 9, 10

_TRUTHS = {"Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "And", "Or", "Not", "Xor", "IsNaN", "IsInf"}
_WHOLE = {"ArgMax", "ArgMin", "Shape", "Size", "NonZero"}
_TYPED_BY = {"DequantizeLinear": 1, "Where": 1}
"""By operator the input whose type its result has; elsewhere the first that is a float."""

_UNTOLD = {"Cast", "QuantizeLinear", "DequantizeLinear"}
"""Operators that only turn one type into another: what reads them is told."""

MADE = "_made"
"""What a typed form adds to the name of an output that is computed in another type than it is given in."""


@dataclass(frozen=True)
class _Node:
    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    to: int | None


def full_results(onnx: bytes) -> frozenset[str]:
    """Results in FP32 of a graph with FP16 in it, by the names that they have in the untyped graph too.

    Raises:
        BundleError: the bytes are no protobuf message.
    """
    types, nodes = dict[str, int](), list[_Node]()
    for part in read_fields(memoryview(onnx)):
        if part.number != _GRAPH or part.wire != BYTES:
            continue
        for entry in read_fields(part.message):
            if entry.number == _NODE:
                nodes.append(_node(entry.message))
            elif entry.number == _INITIALIZER:
                types.update(_tensor(entry.message))
            elif entry.number == _INPUT:
                types.update(_value(entry.message))
    full = set[str]()
    for node in nodes:
        made = _type_of(node, types)
        types.update(dict.fromkeys(node.outputs, made))
        if made == FLOAT and node.kind not in _UNTOLD:
            full.update(node.outputs)
    return frozenset(full | {name.removesuffix(MADE) for name in full})


def _type_of(node: _Node, types: Mapping[str, int]) -> int:
    if node.to is not None and node.kind == "Cast":
        return node.to
    if node.kind in _TRUTHS:
        return BOOL
    if node.kind in _WHOLE:
        return INT64
    if node.kind == "QuantizeLinear":
        return INT8
    if node.kind in _TYPED_BY:
        return types.get(node.inputs[_TYPED_BY[node.kind]], 0)
    known = [types.get(name, 0) for name in node.inputs]
    return next((kind for kind in known if kind in (FLOAT, HALF)), known[0] if known else 0)


def _node(message: memoryview) -> _Node:
    kind, inputs, outputs, to = "", list[str](), list[str](), None
    for entry in read_fields(message):
        if entry.number == 1:
            inputs.append(str(entry.message, "utf-8"))
        elif entry.number == 2:
            outputs.append(str(entry.message, "utf-8"))
        elif entry.number == 4:
            kind = str(entry.message, "utf-8")
        elif entry.number == 5:
            to = _target(entry.message) or to
    return _Node(kind, inputs, outputs, to)


def _target(attribute: memoryview) -> int | None:
    """The type that a cast goes to, None for another attribute."""
    fields = {field.number: field.value for field in read_fields(attribute) if field.number in (1, 3)}
    name, number = fields.get(1), fields.get(3)
    return number if isinstance(name, memoryview) and bytes(name) == b"to" and isinstance(number, int) else None


def _tensor(message: memoryview) -> Iterator[tuple[str, int]]:
    fields = {field.number: field.value for field in read_fields(message) if field.number in (2, 8)}
    name, kind = fields.get(8), fields.get(2)
    if isinstance(name, memoryview) and isinstance(kind, int):
        yield str(name, "utf-8"), kind


def _value(message: memoryview) -> Iterator[tuple[str, int]]:
    name = ""
    for entry in read_fields(message):
        if entry.number == 1:
            name = str(entry.message, "utf-8")
        elif entry.number == 2:
            for kind in read_fields(entry.message):
                for item in read_fields(kind.message) if kind.number == 1 else ():
                    if item.number == 1 and isinstance(item.value, int):
                        yield name, item.value
