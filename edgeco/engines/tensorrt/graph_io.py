"""Inputs, outputs and opset of an ONNX model, read from its bytes: what must be known before TensorRT sees it."""

from __future__ import annotations

from dataclasses import dataclass

from edgeco.bundle.protobuf import BYTES, read_fields
from edgeco.engines.tensorrt.graph_types import full_results
from edgeco.errors import EngineError

_OPSET_IMPORT, _GRAPH = 8, 7
_INPUT, _OUTPUT, _INITIALIZER = 11, 12, 5
_ELEMENTS = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16"}


@dataclass(frozen=True)
class GraphTensor:
    """One input or output; a size is a number, or how often the number of rows it is."""

    name: str
    dtype: str
    sizes: tuple[int | str, ...]

    @property
    def shape(self) -> tuple[int | None, ...]:
        """None where the number of rows decides."""
        return tuple(size if isinstance(size, int) else None for size in self.sizes)

    def sized(self, rows: int) -> tuple[int, ...]:
        """The shape for a number of rows.

        Raises:
            EngineError: a size depends on something else.
        """
        return tuple(size if isinstance(size, int) else _multiple(size, self.name) * rows for size in self.sizes)


@dataclass(frozen=True)
class GraphIo:
    """What a model takes and gives."""

    inputs: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]
    opset: int
    full: frozenset[str] = frozenset()
    """What is computed in FP32, where the graph is typed and it was asked for."""


def read_io(onnx: bytes, full: bool = False) -> GraphIo:
    """Read a complete model, ``full`` results too if asked. Raises BundleError if the bytes are no protobuf message."""
    opset = 0
    inputs: list[GraphTensor] = []
    outputs: list[GraphTensor] = []
    for part in read_fields(memoryview(onnx)):
        if part.number == _OPSET_IMPORT:
            opset = max(opset, _opset(part.message))
        elif part.number == _GRAPH and part.wire == BYTES:
            for entry in read_fields(part.message):
                if entry.number in (_INPUT, _OUTPUT):
                    (inputs if entry.number == _INPUT else outputs).append(_tensor(entry.message))
    return GraphIo(tuple(inputs), tuple(outputs), opset, full_results(onnx) if full else frozenset())


def _opset(message: memoryview) -> int:
    domain, version = "", 0
    for entry in read_fields(message):
        if entry.number == 1 and entry.wire == BYTES:
            domain = str(entry.message, "utf-8")
        elif entry.number == 2 and isinstance(entry.value, int):
            version = entry.value
    return version if domain in ("", "ai.onnx") else 0


def _tensor(message: memoryview) -> GraphTensor:
    name, dtype, sizes = "", "", list[int | str]()
    for entry in read_fields(message):
        if entry.number == 1:
            name = str(entry.message, "utf-8")
        elif entry.number == 2:
            for kind in read_fields(entry.message):
                if kind.number != 1:
                    continue
                for item in read_fields(kind.message):
                    if item.number == 1 and isinstance(item.value, int):
                        dtype = _ELEMENTS.get(item.value, str(item.value))
                    elif item.number == 2:
                        sizes = [_size(d.message) for d in read_fields(item.message) if d.number == 1]
    return GraphTensor(name, dtype, tuple(sizes))


def _size(message: memoryview) -> int | str:
    for entry in read_fields(message):
        if entry.number == 1 and isinstance(entry.value, int):
            return entry.value
        if entry.number == 2:
            return str(entry.message, "utf-8")
    return ""


def _multiple(text: str, name: str) -> int:
    """``rows`` is once the rows, ``4*rows`` or ``rows_by_4`` four times."""
    if text == "rows":
        return 1
    for candidate in (text.removesuffix("*rows"), text.removeprefix("rows_by_")):
        if candidate != text and candidate.isdigit():
            return int(candidate)
    raise EngineError(f"{name!r} has an axis {text!r} that is neither fixed nor the rows; build the bundle again")
