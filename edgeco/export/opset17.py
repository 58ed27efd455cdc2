"""The exported graph as every TensorRT from 8.6 on takes it: opset 17, and bytes made numbers before anything else.

The rewrites, all there are between opset 20 and 17 for the operators that are exported: ReduceMean, ReduceMax,
ReduceMin, ReduceProd and ReduceLogSumExp had their axes as an attribute, and what came with 18 to 20 (antialiasing, the
axes of Resize and Pad, dilations of AveragePool, wrapping pads) is not used, or refused here.
"""

from __future__ import annotations

import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgeco.errors import ConversionError

OPSET = 17
AXES = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSumExp", "ReduceSumSquare", "ReduceL2")
NEWER = {"Gelu", "Mish", "GroupNormalization", "CenterCropPad", "Split"}


def opset17(graph: bytes) -> bytes:
    """A graph of opset 20, weights beside it, in opset 17.

    Raises:
        ConversionError: an operator has no form there.
    """
    model = onnx.ModelProto.FromString(graph)
    small = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in NEWER or _wraps(node):
            raise ConversionError(
                f"The operator {node.op_type} of the exported graph has no form that TensorRT 8.6 takes; "
                "build without --tensorrt, or report this network."
            )
        if node.op_type in AXES and len(node.input) > 1:
            axes = numpy_helper.to_array(small[node.input[1]]).tolist()
            del node.input[1:]
            node.attribute.append(helper.make_attribute("axes", axes))
    _cast_first(model.graph)
    _drop_unused(model.graph)
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = OPSET
    model.ir_version = 8
    return model.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def bytes_cast_first(graph: bytes) -> bytes:
    """A graph in the opset that it has, with bytes made numbers before anything else, as any TensorRT wants them.

    Raises:
        ConversionError: bytes are used otherwise.
    """
    model = onnx.ModelProto.FromString(graph)
    _cast_first(model.graph)
    return model.SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def _wraps(node: NodeProto) -> bool:
    return node.op_type == "Pad" and any(a.name == "mode" and a.s == b"wrap" for a in node.attribute)


def _cast_first(graph: onnx.GraphProto) -> None:
    """Casts of bytes move before the transpositions and reshapes that stand between them and the input.

    The exporter turns bytes, which are a quarter of the work on a processor; TensorRT takes bytes at a cast alone.
    """
    bytes_in = {value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8}
    for name in bytes_in:
        readers = [node for node in graph.node if name in node.input]
        for moved in readers:
            if moved.op_type not in ("Transpose", "Reshape"):
                continue
            casts = [node for node in graph.node if moved.output[0] in node.input]
            if len(casts) != 1 or casts[0].op_type != "Cast":
                raise ConversionError(f"The input {name!r} is not cast before it is used; report this network.")
            cast, between = casts[0], f"{name}_numbers"
            # Input, moved, cast becomes input, cast, moved: the names at both ends stay.
            end = cast.output[0]
            cast.input[0], cast.output[0] = name, between
            moved.input[0], moved.output[0] = between, end
            nodes = list(graph.node)
            nodes.remove(cast)
            nodes.insert(nodes.index(moved), cast)
            del graph.node[:]
            graph.node.extend(nodes)


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
