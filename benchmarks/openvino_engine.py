"""The step graph in OpenVINO, over edgeco's own buffers: a peer of its engine, not a part of the product."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx
import openvino

from edgeco.engines.aliasing import check_aliasing
from edgeco.engines.host import HostMemory
from edgeco.engines.phased import Phased
from edgeco.engines.protocol import Binding, Buffer, Copies, Engine, Tensor

TYPES = {"f32": "float32", "f16": "float16", "i8": "int8", "u8": "uint8"}


class OpenVinoBinding:
    """A request of its own per phase, whose tensors are the buffers."""

    def __init__(self, compiled: Any, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        self.request = compiled.create_infer_request()
        for name, buffer in (*inputs.items(), *outputs.items()):
            self.rebind(name, buffer)

    def rebind(self, name: str, buffer: Buffer) -> None:
        """Swap one buffer."""
        self.request.set_tensor(name, openvino.Tensor(buffer.array, shared_memory=True))  # type: ignore[attr-defined]


class OpenVinoEngine:
    """One graph, compiled for one row: with open sizes OpenVINO is slower.

    Args:
        graph: the complete model.
        threads: processor threads.
    """

    name = "openvino"

    def __init__(self, graph: bytes, threads: int) -> None:
        core = openvino.Core()
        model = core.read_model(graph)
        model.reshape(_shapes_of_one_row(graph))
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = core.compile_model(model, "CPU", hints)
        self.threads, self.memory = threads, HostMemory()
        self.inputs = tuple(_tensor(port) for port in self._compiled.inputs)
        self.outputs = tuple(_tensor(port) for port in self._compiled.outputs)

    def bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer], phase: int = 0) -> OpenVinoBinding:
        """Prepare one phase."""
        check_aliasing(inputs, outputs)
        return OpenVinoBinding(self._compiled, inputs, outputs)

    def run(self, binding: Binding, copies: Copies = ()) -> None:
        """Run the graph once, and copy."""
        assert isinstance(binding, OpenVinoBinding)
        binding.request.infer()
        for copy in copies:
            copy()

    def lane(self, rows: int) -> OpenVinoEngine:
        """Itself, for the one row it was compiled for."""
        assert rows == 1
        return self

    def prepare(self, bindings: Sequence[Binding], runs: Iterable[tuple[Binding, Copies]]) -> bool:
        """Nothing."""
        return False

    def close(self) -> None:
        """Nothing."""


def open_openvino(phases: Sequence[bytes | None], threads: int) -> Engine:
    """The engine of a bundle's graphs, one per phase."""
    compiled = {model: OpenVinoEngine(model, threads) for model in dict.fromkeys(phases) if model is not None}
    if len(phases) == 1:
        return next(iter(compiled.values()))
    return Phased([None if model is None else compiled[model] for model in phases])


def _shapes_of_one_row(graph: bytes) -> dict[str, list[int]]:
    """Sizes of every input: 1 for "rows", k for "k*rows"."""
    found = {}
    for entry in onnx.ModelProto.FromString(graph).graph.input:
        sizes = entry.type.tensor_type.shape.dim
        found[entry.name] = [int(d.dim_param.partition("*rows")[0].replace("rows", "1") or d.dim_value) for d in sizes]
    return found


def _tensor(port: Any) -> Tensor:
    return Tensor(port.any_name, tuple(port.shape), TYPES[port.element_type.get_type_name()])
