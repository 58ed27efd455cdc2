"""Weights into a graph: initializers appended to the graph's own bytes.

Two serialized protobuf messages one after the other parse as their merge: lists are joined. So a graph member followed
by a model that holds nothing but ``graph { initializer ... }`` is the whole model, and no ONNX library is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgeco.bundle.limits import MAX_BUNDLE
from edgeco.bundle.protobuf import head, integer, varint
from edgeco.bundle.tensors import Tensor
from edgeco.errors import BundleError

ONNX_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "float16": 10}
"""ONNX's number for each type a bundle may hold."""
_MODEL_GRAPH, _GRAPH_INITIALIZER = 7, 5
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 1, 2, 8, 9


def inject_weights(graph: bytes | memoryview, tensors: Mapping[str, Tensor], names: Iterable[str]) -> bytes:
    """A complete ONNX model: the graph and, as initializers, the tensors of these names.

    Args:
        graph: a serialized ONNX model without these initializers.
        tensors: weights by name.
        names: those that the graph reads, in the order to write them.

    Raises:
        BundleError: the model would be too large for protobuf.
    """
    pieces: list[bytes | memoryview] = []
    for name in names:
        tensor = tensors[name]
        described = _describe(name, tensor)
        length = len(described) + tensor.data.nbytes
        pieces += [head(_GRAPH_INITIALIZER, length), described, tensor.data]
    total = sum(len(piece) for piece in pieces)
    if len(graph) + total + 16 > MAX_BUNDLE:
        raise BundleError(f"graph and weights together have more than {MAX_BUNDLE} bytes.")
    return b"".join([graph, head(_MODEL_GRAPH, total), *pieces])


def _describe(name: str, tensor: Tensor) -> bytes:
    """Everything of a serialized tensor but its data, which must follow."""
    dims = b"".join(varint(size) for size in tensor.shape)
    title = name.encode()
    return b"".join(
        [
            head(_DIMS, len(dims)) + dims,
            integer(_DATA_TYPE, ONNX_TYPES[tensor.dtype]),
            head(_NAME, len(title)) + title,
            head(_RAW_DATA, tensor.data.nbytes),
        ]
    )
