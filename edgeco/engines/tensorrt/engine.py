"""The TensorRT engine: the plans of a network for whatever number of rows is asked for, opened when they are needed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from edgeco.engines.protocol import Binding, Buffer, Copies, Memory, Tensor
from edgeco.engines.tensorrt.graph_io import GraphIo, GraphTensor, read_io
from edgeco.engines.tensorrt.lane import Lane
from edgeco.engines.tensorrt.order import Options, Order, Precision, make_order
from edgeco.engines.tensorrt.plans import Plan, Plans
from edgeco.errors import EngineError


class TensorRtEngine:
    """The step graphs of a network, by phase, for TensorRT; may be shared by streams and by threads.

    A plan is for one number of rows, all sizes fixed: the first stream of so many rows opens or compiles it.

    Args:
        graphs: the complete ONNX model of every phase, None where one has nothing to do.
        plans: opens plans for this GPU.
        precision: of the numbers inside.
        strong: whether the graphs are typed.
        half: inputs and outputs kept in FP16 although an untyped graph says FP32.
        options: what the user chose.
        cuda_graphs: False to enqueue every step, for comparison.
        full: results that an untyped graph computes in FP32 although others are not.
    """

    name = "tensorrt"
    threads = 1

    def __init__(
        self, graphs: Sequence[bytes | None], plans: Plans, precision: Precision, strong: bool,
        half: frozenset[str], options: Options, cuda_graphs: bool = True, full: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        self._graphs, self._plans, self._options = tuple(graphs), plans, options
        self._precision, self._strong, self._half = precision, strong, frozenset() if strong else half
        self._cuda_graphs, self._full = cuda_graphs, frozenset[str]() if strong else full
        self._ios: dict[bytes, GraphIo] = {
            graph: read_io(graph) for graph in dict.fromkeys(graphs) if graph is not None
        }
        if not self._ios:
            raise EngineError("a network needs at least one step that has something to do")
        self.inputs = self._union([io.inputs for io in self._ios.values()])
        self.outputs = self._union([io.outputs for io in self._ios.values()])
        self._opened: dict[tuple[bytes, int], Plan] = {}
        self._lock = threading.Lock()

    def _union(self, sides: Sequence[tuple[GraphTensor, ...]]) -> tuple[Tensor, ...]:
        named = {tensor.name: tensor for side in sides for tensor in side}
        return tuple(
            Tensor(name, tensor.shape, "float16" if name in self._half else tensor.dtype)
            for name, tensor in named.items()
        )

    def compile(self, rows: int, fresh: bool = False, exactly: bool = False) -> list[Plan]:
        """The plans for a number of rows, one per distinct graph; ``fresh`` compiles them even if they are kept,
        ``exactly`` if those were compiled with other options.

        Raises:
            Refused: TensorRT does not take a graph.
            EngineError: one cannot be compiled for another reason.
        """
        with self._lock:
            for graph, io in self._ios.items():
                if fresh or (graph, rows) not in self._opened:
                    self._opened[graph, rows] = self._plans.open(graph, self._order(graph, io, rows), fresh, exactly)
            return [self._opened[graph, rows] for graph in self._ios]

    def _order(self, graph: bytes, io: GraphIo, rows: int) -> Order:
        memory = self._plans.cuda.device.memory
        order = make_order(graph, io, rows, self._precision, self._strong, self._half, self._options, memory)
        return msgspec.structs.replace(order, full=tuple(sorted(self._full)))

    def refusal(self, rows: int = 1, again: bool = False) -> str | None:
        """Why TensorRT does not take the graphs with the types at their ends; None if it does.

        The first time it is found out by compiling for ``rows`` rows; then it is remembered, unless ``again``.

        Raises:
            EngineError: the compilation failed for a reason that has nothing to do with the graphs.
        """
        types = {tensor.name: tensor.dtype for tensor in (*self.inputs, *self.outputs)}
        orders = {graph: self._order(graph, io, rows) for graph, io in self._ios.items()}
        return self._plans.refusal(orders, types, lambda: self.compile(rows), again)

    def plan_path(self, key: str) -> Path:
        """Where a plan is kept."""
        return self._plans.cache.plan_path(key)

    @property
    def half(self) -> frozenset[str]:
        """Inputs and outputs kept in FP16 although an untyped graph says FP32."""
        return self._half

    def twin(
        self, graphs: Sequence[bytes | None] | None = None, half: frozenset[str] | None = None, cuda_graphs: bool = True
    ) -> TensorRtEngine:
        """The same choices over the same graphs or others, for comparison."""
        chosen = self._graphs if graphs is None else graphs
        halved = self._half if half is None else half
        return TensorRtEngine(
            chosen, self._plans, self._precision, self._strong, halved, self._options, cuda_graphs, self._full
        )

    def lane(self, rows: int) -> Lane:
        """A stream, contexts and memory for one session of so many rows; compiles where there is no plan yet."""
        self.compile(rows)
        phases = [None if graph is None else self._opened[graph, rows] for graph in self._graphs]
        return Lane(self._plans.cuda, phases, self.inputs, self.outputs, self._cuda_graphs)

    @property
    def memory(self) -> Memory:
        """Memory belongs to lanes."""
        return _only_a_lane("has memory")

    def bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer], phase: int = 0) -> Binding:
        """Done by lanes."""
        return _only_a_lane("binds")

    def run(self, binding: Binding, copies: Copies = ()) -> None:
        """Done by lanes."""
        _only_a_lane("runs")

    def prepare(self, bindings: Sequence[Binding], runs: Iterable[tuple[Binding, Copies]]) -> bool:
        """Done by lanes."""
        return False

    def close(self) -> None:
        """Nothing: the weights on the GPU go with the last stream and the engine itself."""


def _only_a_lane(verb: str) -> NoReturn:
    raise EngineError(f"of the TensorRT engine only a lane {verb}; open one with lane(rows)")
