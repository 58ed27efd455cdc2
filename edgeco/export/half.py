"""The exported graph with FP16 written into it: what a strongly typed TensorRT network computes, and ONNX Runtime too.

Every tensor of float32 becomes float16 but for those that need the range or add up many numbers; between the two stand
casts, one per tensor. Frames and answers keep their types; histories become float16, save those that add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper, shape_inference

from edgeco.errors import ConversionError

Array = np.ndarray[Any, Any]
FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
LIMIT = 65504.0
"""The greatest finite number of FP16."""

KEPT = {
    "Softmax", "LogSoftmax", "LayerNormalization", "ReduceMean", "ReduceSum", "ReduceProd", "ReduceLogSumExp",
    "ReduceSumSquare", "CumSum", "Exp", "Log", "Pow", "Reciprocal", "Sqrt", "Softplus", "Sinh", "Cosh", "Tan", "Resize",
    "IsNaN", "Mod", "Floor", "Ceil", "Round",
}  # fmt: skip
"""Computed in FP32: sums over many elements, what leaves the range, and what rounds to steps."""

NOT_FLOAT = {"Resize": (1, 2), "Cast": ()}
"""Inputs that are not numbers of the network's own kind: regions and scales stay FP32."""


class _Casts:
    """Each tensor in the type in which it was made, and a cast of it where another is wanted; constants are copied."""

    def __init__(self, types: Mapping[str, int], constants: Mapping[str, onnx.TensorProto]) -> None:
        self.types = dict(types)
        self.nodes: list[NodeProto] = []
        self.constants = dict(constants)
        self._made: dict[tuple[str, int], str] = {}

    def get(self, name: str, kind: int) -> str:
        own = self.types.get(name)
        if own not in (FLOAT, HALF) or own == kind:
            return name
        if (name, kind) not in self._made:
            self._made[name, kind] = made = f"{name}_{'half' if kind == HALF else 'full'}"
            if name in self.constants:
                number = _narrow(numpy_helper.to_array(self.constants[name]))
                self.constants[made] = numpy_helper.from_array(number, made)
            else:
                self.nodes.append(helper.make_node("Cast", [name], [made], name=f"cast_{made}", to=kind))
        return self._made[name, kind]


def _narrow(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """FP16, what is finite kept so: a mask of -1e9 stays the lowest number, and infinity infinite."""
    return np.where(np.isfinite(array), np.clip(array, -LIMIT, LIMIT), array).astype(np.float16)


def full_weights(
    graphs: Sequence[bytes], weights: Mapping[str, Array], exact: frozenset[str] = frozenset()
) -> frozenset[str]:
    """The weights that are read in FP32 only, in all graphs of a network."""
    bodies = [onnx.ModelProto.FromString(graph).graph for graph in graphs]
    return frozenset(name for name in weights if all(_only_full(body, name, exact) for body in bodies))


def half_weights(weights: Mapping[str, Array], full: frozenset[str]) -> dict[str, Array]:
    """Weights in FP16, save those that are read in FP32 only.

    Raises:
        ConversionError: one is beyond FP16's range.
    """
    made = {}
    for name, array in weights.items():
        if array.dtype != np.float32 or name in full:
            made[name] = array
            continue
        greatest = float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
        if greatest > LIMIT:
            raise ConversionError(
                f"The weight {name!r} reaches {greatest:.3g}, beyond FP16's {LIMIT:g}; build without --tensorrt, or "
                "scale the layer."
            )
        made[name] = array.astype(np.float16)
    return made


def half_graph(
    graph: bytes,
    weights: Mapping[str, Array],
    full: frozenset[str],
    wide: frozenset[str],
    exact: frozenset[str] = frozenset(),
) -> bytes:
    """A graph with its float32 made float16.

    Args:
        graph: serialized, weights beside it.
        weights: those weights as they were.
        full: which of them stay float32.
        wide: inputs and outputs that stay float32: frames, answers, states that add up.
        exact: first results of nodes that compute in float32 besides ``KEPT``.
    """
    model = onnx.ModelProto.FromString(graph)
    body = model.graph
    types = _types(model, weights)
    for value in body.input:
        if types[value.name] == FLOAT and value.name not in wide:
            value.type.tensor_type.elem_type = types[value.name] = HALF
    types |= {name: HALF for name, array in weights.items() if array.dtype == np.float32 and name not in full}
    casts = _Casts(types, {tensor.name: tensor for tensor in body.initializer})
    for node in body.node:
        _retype(node, casts, types, exact)
    wanted = {}
    for value in body.output:
        kind = value.type.tensor_type.elem_type
        if kind == FLOAT and value.name not in wide:
            kind = value.type.tensor_type.elem_type = HALF
        wanted[value.name] = kind
    _finish_outputs(casts, wanted)
    del body.node[:], body.initializer[:], body.value_info[:]
    body.node.extend(_sorted(casts.nodes))
    used = {name for node in body.node for name in node.input}
    body.initializer.extend(tensor for name, tensor in casts.constants.items() if name in used)
    return model.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def _types(model: onnx.ModelProto, weights: Mapping[str, Array]) -> dict[str, int]:
    """The element type of every tensor."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    whole.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    inferred = shape_inference.infer_shapes(whole, strict_mode=True).graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*inferred.input, *inferred.value_info, *inferred.output)}
    return found | {tensor.name: tensor.data_type for tensor in whole.graph.initializer}


def _kind(node: NodeProto, exact: frozenset[str]) -> int:
    return FLOAT if node.op_type in KEPT or node.output[0] in exact else HALF


def _only_full(body: onnx.GraphProto, name: str, exact: frozenset[str]) -> bool:
    """Whether a weight is read only where FP32 is computed."""
    readers = [(node, place) for node in body.node for place, given in enumerate(node.input) if given == name]
    return all(_kind(node, exact) == FLOAT or place in NOT_FLOAT.get(node.op_type, ()) for node, place in readers)


def _retype(node: NodeProto, casts: _Casts, types: Mapping[str, int], exact: frozenset[str]) -> None:
    if node.op_type == "Cast":
        to = next(a for a in node.attribute if a.name == "to")
        if to.i == FLOAT and node.output[0] not in exact:  # to the network's own kind, which is FP16 now
            to.i = HALF
        casts.types[node.output[0]] = to.i
        casts.nodes.append(node)
        return
    kind = _kind(node, exact)
    for place, name in enumerate(node.input):
        if name and place not in NOT_FLOAT.get(node.op_type, ()):
            node.input[place] = casts.get(name, kind)
    for name in node.output:
        if types.get(name) == FLOAT:
            casts.types[name] = kind
    casts.nodes.append(node)


def _finish_outputs(casts: _Casts, wanted: Mapping[str, int]) -> None:
    """An output made in another type than it is given in: its maker gets a name of its own, and a cast the output's."""
    for name, kind in wanted.items():
        own = casts.types.get(name)
        if own == kind or own not in (FLOAT, HALF):
            continue
        inner = f"{name}_made"
        for node in casts.nodes:
            node.input[:] = [inner if given == name else given for given in node.input]
            node.output[:] = [inner if given == name else given for given in node.output]
        casts.nodes.append(helper.make_node("Cast", [inner], [name], name=f"cast_{name}", to=kind))


def _sorted(nodes: list[NodeProto]) -> list[NodeProto]:
    """In an order in which every tensor is made before it is read, as near to the given one as can be."""
    made = {name for node in nodes for name in node.output}
    done: set[str] = set()
    ordered: list[NodeProto] = []
    waiting = list(nodes)
    while waiting:
        rest = []
        for node in waiting:
            if all(name not in made or name in done for name in node.input):
                ordered.append(node)
                done.update(node.output)
            else:
                rest.append(node)
        waiting = rest
    return ordered
