"""ONNX Runtime on the processor."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from edgeco.engines.aliasing import check_aliasing, check_apart
from edgeco.engines.host import HostBuffer, HostMemory
from edgeco.engines.protocol import Binding, Buffer, Copies, Tensor
from edgeco.engines.threads import default_threads
from edgeco.errors import EngineError

OLDEST = (1, 23)
CPU = "CPUExecutionProvider"
ERROR = 3  # ONNX Runtime's log severity
DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
}


REQUANTISER = "WeightBiasQuantization"
"""An optimiser that would quantise weights which the build keeps in float because INT8 costs accuracy there."""


class OnnxRuntimeEngine:
    """A step graph compiled by ONNX Runtime for the processor; may be shared by streams and by threads.

    Args:
        onnx: the serialized model, weights included.
        threads: threads to compute with; None for the physical cores this process may use.
        provider: what of ONNX Runtime computes. Buffers lie in host memory whichever it is.

    Raises:
        EngineError: ONNX Runtime is missing, too old, lacks the provider, or refuses the graph.
    """

    name = "onnxruntime"

    def __init__(self, onnx: bytes, *, threads: int | None = None, provider: str = CPU) -> None:
        if threads is not None and threads < 1:
            raise EngineError(f"an engine needs at least one thread, not {threads}")
        runtime = _runtime()
        self.version = str(runtime.__version__)
        self.threads = default_threads() if threads is None else threads
        self.memory = HostMemory()
        providers = [CPU] if provider == CPU else [provider, CPU]
        if provider not in runtime.get_available_providers():
            raise EngineError(f"this ONNX Runtime has no {provider}; install one that has: pip install onnxruntime-gpu")
        try:
            self._session = runtime.InferenceSession(
                onnx, _options(runtime, self.threads), providers=providers, disabled_optimizers=[REQUANTISER]
            )
        except Exception as error:  # ONNX Runtime raises many classes of its own, under no common root
            raise EngineError(f"ONNX Runtime {self.version} refuses the graph: {_first_line(error)}") from error
        if provider not in self._session.get_providers():
            raise EngineError(f"{provider} does not start here; check the GPU's driver, and CUDA's libraries beside it")
        self.inputs = tuple(_tensor(argument) for argument in self._session.get_inputs())
        self.outputs = tuple(_tensor(argument) for argument in self._session.get_outputs())

    def bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer], phase: int = 0) -> HostBinding:
        """Prepare one phase, the same graph in each: every input and output bound to a buffer.

        Raises:
            EngineError: a name is missing or unknown, a shape or type does not fit, or an output shares memory.
        """
        _check_fit(self.inputs, inputs, "input")
        _check_fit(self.outputs, outputs, "output")
        check_aliasing(inputs, outputs)
        return HostBinding(self._session.io_binding(), inputs, outputs)

    def run(self, binding: Binding, copies: Copies = ()) -> None:
        """Run the graph once, then copy. Raises EngineError; outputs are then undefined and inputs untouched."""
        if not isinstance(binding, HostBinding):
            raise EngineError(f"a {type(binding).__name__} is no binding of ONNX Runtime")
        try:
            # No RunOptions: with them ONNX Runtime makes a logger for every run, which costs more than a small network.
            self._session.run_with_iobinding(binding.io)
        except Exception as error:
            raise EngineError(f"ONNX Runtime {self.version} failed while running: {_first_line(error)}") from error
        for copy in copies:
            copy()

    def lane(self, rows: int) -> OnnxRuntimeEngine:
        """Itself: ONNX Runtime keeps nothing between two runs, and runs from several threads at once."""
        return self

    def prepare(self, bindings: Sequence[Binding], runs: Iterable[tuple[Binding, Copies]]) -> bool:
        """Nothing; the first run finds out what there is to know."""
        return False

    def close(self) -> None:
        """Nothing: a session holds no more than its buffers."""


class HostBinding:
    """Names bound to host buffers. Keeps the buffers alive, and remembers which swaps were already found safe."""

    __slots__ = ("_inputs", "_outputs", "_safe", "io")

    def __init__(self, io: Any, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        self.io = io
        self._inputs = dict(inputs)
        self._outputs = dict(outputs)
        self._safe: dict[tuple[str, int], HostBuffer] = {}
        for name, buffer in inputs.items():
            io.bind_ortvalue_input(name, _host(name, buffer).value)
        for name, buffer in outputs.items():
            io.bind_ortvalue_output(name, _host(name, buffer).value)

    def rebind(self, name: str, buffer: Buffer) -> None:
        """Swap the buffer of one input.

        Raises:
            EngineError: no such input, another shape or type, or memory that an output writes.
        """
        # Windows of a mirror come round again and again: each is checked in full only the first time.
        known = self._safe.get((name, id(buffer)))
        if known is None:
            known = self._check(name, buffer)
        self.io.bind_ortvalue_input(name, known.value)
        self._inputs[name] = known

    def _check(self, name: str, buffer: Buffer) -> HostBuffer:
        bound = self._inputs.get(name)
        if bound is None:
            raise EngineError(f"{name!r} is not an input of this binding")
        if buffer.shape != bound.shape or buffer.dtype != bound.dtype:
            raise EngineError(f"{name!r} takes {bound.dtype}{bound.shape}, not {buffer.dtype}{buffer.shape}")
        check_apart(name, buffer, self._outputs.items())
        host = _host(name, buffer)
        self._safe[name, id(buffer)] = host  # held here, so that its id is not given to another
        return host


def _runtime() -> ModuleType:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(
            f"ONNX Runtime cannot be imported ({error}); install it with: pip install onnxruntime"
        ) from error
    version = getattr(onnxruntime, "__version__", "0")
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < OLDEST:
        raise EngineError(f"ONNX Runtime {version} is too old; install 1.23 or newer with: pip install -U onnxruntime")
    return onnxruntime  # type: ignore[no-any-return]


def _options(runtime: ModuleType, threads: int) -> Any:
    options = runtime.SessionOptions()
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ERROR
    # Shapes never change between steps: the first run records where each intermediate lies, the others reuse one block.
    options.enable_mem_pattern = True
    options.enable_cpu_mem_arena = True
    # Threads spin until their share of the next operator, some 25 % faster than waking them for each of a step's
    # hundreds, and stop as the step returns: none takes the processor from the camera between frames. Where other work
    # fills every core spinning costs more than it saves; there, fewer threads than cores are better in any case.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Processors without VNNI add up pairs of products in 16 bits, which int8 weights overflow; so told, ONNX Runtime
    # makes them uint8 there. Elsewhere nothing changes.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _tensor(argument: Any) -> Tensor:
    shape = tuple(size if isinstance(size, int) and size >= 0 else None for size in argument.shape)
    return Tensor(argument.name, shape, DTYPES.get(argument.type, argument.type))


def _check_fit(tensors: tuple[Tensor, ...], buffers: Mapping[str, Buffer], what: str) -> None:
    names = {tensor.name for tensor in tensors}
    for name in (*(names - buffers.keys()), *(buffers.keys() - names)):
        raise EngineError(f"the graph has no {what} {name!r}" if name in buffers else f"{what} {name!r} is not bound")
    for tensor in tensors:
        buffer = buffers[tensor.name]
        sizes = zip(tensor.shape, buffer.shape, strict=True)
        fits = len(tensor.shape) == len(buffer.shape) and all(size in (None, given) for size, given in sizes)
        if not fits or tensor.dtype != buffer.dtype.name:
            raise EngineError(
                f"{what} {tensor.name!r} of the graph is {tensor.dtype}{tensor.shape}, "
                f"its buffer {buffer.dtype}{buffer.shape}"
            )


def _host(name: str, buffer: Buffer) -> HostBuffer:
    if isinstance(buffer, HostBuffer):
        return buffer
    raise EngineError(f"the buffer of {name!r} does not lie in host memory")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
