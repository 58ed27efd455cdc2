"""TensorRT of the version that EDGECO_FAKE_TRT names, over the fake GPU: only its names exist, only its rules hold.

A plan holds the ONNX model, which ONNX Runtime executes when the stream gets there. What the real one refuses is
refused here, in few words.
"""

from __future__ import annotations

import enum
import json
import os
import signal
from pathlib import Path
from typing import Any

import trt_model as _model
from gpu import ALIGNMENT, GPU

_FACTS = json.loads((Path(__file__).parents[3] / "data" / "tensorrt_names.json").read_text())
_WANTED = os.environ.get("EDGECO_FAKE_TRT", "10.3.0")
__version__ = next(v for v in _FACTS if v == _WANTED or v.startswith(_WANTED + "."))
_facts = _FACTS[__version__]
_version = tuple(int(part) for part in __version__.split("."))
_CEILING = 17 if _version < (10,) else 20 if _version < (10, 14) else 22

for _name, _members in _facts["enums"].items():
    globals()[_name] = enum.IntEnum(_name, _members)  # type: ignore[misc]
_DTYPES = {"float32": "FLOAT", "float16": "HALF", "int8": "INT8", "uint8": "UINT8", "int32": "INT32", "int64": "INT64"}


class _Gated:
    """Only what the version's table lists can be read or set."""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            kind = type(self)
            while kind.__name__ not in _facts["classes"]:
                kind = kind.__mro__[1]
            own = kind.__name__ in ("ILogger", "IProgressMonitor")  # subclassed by users, with members of their own
            if not own and name not in _facts["classes"][kind.__name__]:
                raise AttributeError(f"TensorRT {__version__}: {kind.__name__} has no {name}")
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        known = _facts["classes"].get(type(self).__name__)
        if not name.startswith("_") and known is not None and name not in known:
            raise AttributeError(f"TensorRT {__version__}: {type(self).__name__} has no {name}")
        object.__setattr__(self, name, value)


class ILogger(_Gated):
    def __init__(self) -> None:
        pass


class IProgressMonitor(_Gated):
    def __init__(self) -> None:
        pass


class IHostMemory(_Gated):
    def __init__(self, data: bytes) -> None:
        self._data = data

    def __buffer__(self, flags: int) -> memoryview:
        return memoryview(self._data)

    def __bytes__(self) -> bytes:
        return self._data


class ITensor(_Gated):
    def __init__(self, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        self.name, self.shape, self.dtype, self.allowed_formats = name, shape, dtype, 0


class ILayer(_Gated):
    """A node of the graph; what it is told of its precision is kept in the plan."""

    def __init__(self, outputs: list[str]) -> None:
        self._outputs = [ITensor(name, (), None) for name in outputs]
        self._kept: dict[int, Any] = {}

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_output(self, place: int) -> ITensor | None:
        return self._outputs[place] if self._outputs[place].name else None

    def set_output_type(self, place: int, kind: Any) -> None:
        self._kept[place] = kind


class INetworkDefinition(_Gated):
    def __init__(self, flags: int) -> None:
        strong = getattr(globals()["NetworkDefinitionCreationFlag"], "STRONGLY_TYPED", None)
        self._strong = _version >= (11,) or (strong is not None and bool(flags >> int(strong) & 1))
        explicit = getattr(globals()["NetworkDefinitionCreationFlag"], "EXPLICIT_BATCH", None)
        self._explicit = _version >= (10,) or bool(flags >> int(explicit) & 1)
        self._inputs: list[ITensor] = []
        self._outputs: list[ITensor] = []
        self._onnx = b""
        self._layers: list[ILayer] = []

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    def get_layer(self, number: int) -> ILayer:
        return self._layers[number]

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, number: int) -> ITensor:
        return self._inputs[number]

    def get_output(self, number: int) -> ITensor:
        return self._outputs[number]


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text


class OnnxParser(_Gated):
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network, self._errors = network, list[str]()

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, number: int) -> ParserError:
        return ParserError(self._errors[number])

    def parse(self, onnx: bytes, path: str | None = None) -> bool:
        network = self._network
        if not network._explicit:
            self._errors.append("this version of the ONNX parser only supports networks with an explicit batch")
        self._errors += _model.refused(onnx, _CEILING)
        if self._errors:
            return False
        network._onnx = onnx
        network._layers = [ILayer(names) for names in _model.results(onnx)]
        for side, tensors in zip(_model.sides(onnx), (network._inputs, network._outputs), strict=True):
            tensors += [ITensor(name, shape, getattr(DataType, _DTYPES[kind])) for name, shape, kind in side]  # noqa: F821
        return True


class ITimingCache(_Gated):
    def __init__(self, data: bytes) -> None:
        self._data = data

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._data + b"t")


class IBuilderConfig(_Gated):
    def __init__(self) -> None:
        self._flags = {"TF32"}
        self._cache: ITimingCache | None = None

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        assert size > 0

    def set_tactic_sources(self, sources: int) -> None:
        pass

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag.name)

    def create_timing_cache(self, data: bytes) -> ITimingCache | None:
        return ITimingCache(data) if data in (b"", b"of another GPU") or data.startswith(b"t") else None

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        assert isinstance(cache, ITimingCache)
        if cache._data == b"of another GPU" and not ignore_mismatch:
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class Builder(_Gated):
    def __init__(self, logger: ILogger) -> None:
        if not GPU.present:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        GPU.current()
        reason = _unbuildable(network, config)
        if reason is not None:
            self._logger.log(1, reason)  # type: ignore[attr-defined]
            return None
        monitor = config.__dict__.get("progress_monitor")
        if monitor is not None and not _reported(monitor):
            return None
        tensors = [*network._inputs, *network._outputs]
        widened = _int8_ends(network) if os.environ.get("EDGECO_FAKE_INT8_ENDS") == "float" else []
        meta = {
            "widened": widened,
            "shapes": {tensor.name: list(tensor.shape) for tensor in network._inputs},
            "half": [tensor.name for tensor in tensors if tensor.dtype == DataType.HALF],  # noqa: F821
            "flags": sorted(config._flags),
            "strong": network._strong,
            "full": [
                tensor.name
                for layer in network._layers
                if layer.__dict__.get("precision") == DataType.FLOAT  # noqa: F821
                for tensor in layer._outputs
            ],
            "given full": [layer._outputs[place].name for layer in network._layers for place in layer._kept],
        }
        return IHostMemory(_model.pack(_version, meta, network._onnx))


def _int8_ends(network: INetworkDefinition) -> list[str]:
    return [t.name for t in (*network._inputs, *network._outputs) if t.dtype == DataType.INT8]  # noqa: F821


def _unbuildable(network: INetworkDefinition, config: IBuilderConfig) -> str | None:
    constrained = "PREFER_PRECISION_CONSTRAINTS" in config._flags
    told = any("precision" in layer.__dict__ for layer in network._layers)
    if network._strong and (constrained or told):
        return "precisions cannot be set for a strongly typed network"
    if told and not constrained:
        return "precisions of layers are ignored without the flag"
    if network._strong and config._flags & {"FP16", "INT8"}:
        return "precision flags cannot be set for a strongly typed network"
    if not network._strong and _model.quantises(network._onnx) and "INT8" not in config._flags:
        return "Q/DQ nodes need the INT8 builder flag"
    ends = _int8_ends(network)
    if ends and os.environ.get("EDGECO_FAKE_INT8_ENDS") == "no":
        return f"INT8 is not supported at the ends of a network: {ends[0]}"
    if any(size < 0 for tensor in network._inputs for size in tensor.shape):
        return "network has dynamic inputs, but no optimization profile has been defined"
    half = [t for t in (*network._inputs, *network._outputs) if t.dtype == DataType.HALF]  # noqa: F821
    typed = _model.typed_half(network._onnx)
    if any(tensor.name not in typed for tensor in half) and (network._strong or "FP16" not in config._flags):
        return "half inputs and outputs need the FP16 builder flag of a weakly typed network"
    if not network._strong and "FP16" not in config._flags and (typed or _model.halves(network._onnx)):
        return "FP16 in a weakly typed network needs the FP16 builder flag"
    return None


def _reported(monitor: Any) -> bool:
    monitor.phase_start("Building Engine", None, 10)
    for step in range(10):
        if not monitor.step_complete("Building Engine", step):
            monitor.phase_finish("Building Engine")
            return False
    monitor.phase_finish("Building Engine")
    return True


class Runtime(_Gated):
    def __init__(self, logger: ILogger) -> None:
        if not GPU.present:
            raise SystemError("the real one ends the process here")
        self._logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> ICudaEngine | None:
        GPU.current()
        made = _model.unpack(plan, _version)
        if isinstance(made, str):
            self._logger.log(1, made)  # type: ignore[attr-defined]
            return None
        return ICudaEngine(made, self._logger)


class ICudaEngine(_Gated):
    def __init__(self, program: _model.Program, logger: ILogger) -> None:
        self._program, self._logger = program, logger

    @property
    def num_io_tensors(self) -> int:
        return len(self._program.shapes)

    def get_tensor_name(self, number: int) -> str:
        return list(self._program.shapes)[number]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._program.shapes[name]

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(DataType, _DTYPES[self._program.stored(name).name])  # noqa: F821

    def create_execution_context(self, *strategy: Any) -> IExecutionContext:
        GPU.current()
        return IExecutionContext(self._program, self._logger)

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self._program)


class EngineInspector(_Gated):
    def __init__(self, program: _model.Program) -> None:
        self._program = program

    def get_engine_information(self, kind: Any) -> str:
        return json.dumps({"Layers": self._program.nodes})


class IExecutionContext(_Gated):
    def __init__(self, program: _model.Program, logger: ILogger) -> None:
        self._program, self._logger, self._addresses = program, logger, dict[str, int]()
        self._ran = False

    def set_tensor_address(self, name: str, address: int) -> bool:
        if address % ALIGNMENT or name not in self._program.shapes:
            self._logger.log(1, f"the address of {name} is not aligned, or there is no such tensor")  # type: ignore[attr-defined]
            return False
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        GPU.current()
        reason = self._program.clash(self._addresses)
        if reason is not None:
            self._logger.log(1, reason)  # type: ignore[attr-defined]
            return False
        if GPU.recording(stream) and not self._ran:
            self._logger.log(1, "the first run prepares what cannot be recorded")  # type: ignore[attr-defined]
            return False
        addresses = dict(self._addresses)
        GPU.log.append("enqueue")
        GPU.enqueue(stream, lambda: self._run(addresses))
        return True

    def _run(self, addresses: dict[str, int]) -> None:
        if os.environ.get("EDGECO_FAKE_DIES") in self._program.meta["flags"]:
            os.kill(os.getpid(), signal.SIGSEGV)
        self._program.run(addresses, GPU)
        self._ran = True


for _name in [name for name in globals() if name in ("IProgressMonitor",) and name not in _facts["names"]]:
    del globals()[_name]
