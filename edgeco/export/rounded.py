"""What FP16 would compute, in FP32: every result rounded to eleven bits, and infinite beyond 65504.

ONNX Runtime has no FP16 on most processors: it computes an FP16 graph in FP32 from end to end, and so shows neither its
rounding nor its overflow. Sums inside an operator are not rounded, for tensor
cores keep them in FP32, nor are numbers below 6e-5 robbed of further bits.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgeco.export.half import LIMIT

SPLIT = 2.0**13 + 1
"""Dekker's: x * SPLIT - (x * SPLIT - x) has the upper 24 - 13 bits of x."""
MOVES = ("Transpose", "Reshape", "Slice", "Concat", "Gather", "Identity", "Relu", "MaxPool", "Cast", "Expand", "Neg")
"""What is rounded already stays so."""


def rounded_graph(graph: bytes, exact: frozenset[str] = frozenset()) -> bytes:
    """A graph of FP32 that rounds what it computes to FP16, save the nodes whose first results are ``exact``."""
    model = onnx.ModelProto.FromString(graph)
    body = model.graph
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False).graph
    other = {
        value.name
        for value in (*inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type not in (TensorProto.FLOAT, TensorProto.UNDEFINED)
    }
    for name, number in (("split", SPLIT), ("limit", LIMIT + 16), ("endless", np.inf)):
        body.initializer.append(numpy_helper.from_array(np.array(number, np.float32), f"rounding_{name}"))
    nodes: list[NodeProto] = []
    for node in body.node:
        nodes.append(node)
        if node.op_type in MOVES or node.output[0] in exact:
            continue
        for place, name in enumerate(node.output):
            if name and name not in other:
                node.output[place] = f"{name}_exact"
                nodes += _round(f"{name}_exact", name)
    del body.node[:]
    body.node.extend(nodes)
    return model.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def _round(source: str, result: str) -> list[NodeProto]:
    def made(part: str) -> str:
        return f"{result}_{part}"

    return [
        helper.make_node("Mul", [source, "rounding_split"], [made("spread")]),
        helper.make_node("Sub", [made("spread"), source], [made("rest")]),
        helper.make_node("Sub", [made("spread"), made("rest")], [made("upper")]),
        helper.make_node("Abs", [source], [made("size")]),
        helper.make_node("GreaterOrEqual", [made("size"), "rounding_limit"], [made("beyond")]),
        helper.make_node("Mul", [source, "rounding_endless"], [made("endless")]),
        helper.make_node("Where", [made("beyond"), made("endless"), made("upper")], [result]),
    ]
