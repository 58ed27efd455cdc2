"""From an ONNX graph to a plan, in the typing that the installed version needs. Runs in the child process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeco.engines.tensorrt.api import Api
from edgeco.engines.tensorrt.logger import last_words, make_logger
from edgeco.engines.tensorrt.order import Order
from edgeco.engines.tensorrt.progress import make_monitor
from edgeco.engines.tensorrt.verdict import Refused, failure
from edgeco.errors import EngineError

Say = Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """A plan, the timing cache grown by it, what the layers became (JSON text) and the seconds it took."""

    plan: bytes
    timing: bytes
    layers: str
    seconds: float


def build_plan(api: Api, onnx: bytes, order: Order, timing: bytes, say: Say, cancelled: Callable[[], bool]) -> Built:
    """Compile one graph. A GPU must be there: constructing TensorRT's objects without one can end the process.

    Raises:
        Refused: TensorRT does not take the graph, or finds no kernels for it.
        EngineError: it was cancelled, or memory does not suffice.
    """
    start = time.monotonic()
    trt = api.trt
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(api.creation_flags(order.strong))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        raise Refused(f"TensorRT {api.text} refuses the graph: {_parse_error(parser, logger)}")
    _fix_tensors(api, network, order)
    config = builder.create_builder_config()
    _configure(api, config, order)
    if order.full and not order.strong and order.precision != "fp32":
        _keep_full(trt, network, config, order)
    _set_timing(config, timing)
    if api.monitored:
        config.progress_monitor = make_monitor(trt, say, cancelled)
    serialised = builder.build_serialized_network(network, config)
    if serialised is None:
        if cancelled():
            raise EngineError("the compilation was cancelled")
        reason = last_words(logger)
        raise failure(f"TensorRT {api.text} cannot compile the graph: {reason}", reason)
    plan = bytes(serialised)
    grown = config.get_timing_cache()
    kept = b"" if grown is None else bytes(grown.serialize())
    return Built(plan, kept, _layers(trt, logger, plan), time.monotonic() - start)


def _set_timing(config: Any, kept: bytes) -> None:
    """What earlier builds learned; one that is damaged, or of another driver, is begun anew."""
    for data in (kept, b"") if kept else (b"",):
        cache = config.create_timing_cache(data)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return


def _parse_error(parser: Any, logger: Any) -> str:
    if parser.num_errors:
        return " ".join(str(parser.get_error(0).desc()).split())
    return last_words(logger)


def _fix_tensors(api: Api, network: Any, order: Order) -> None:
    """Static shapes, and FP16 where the states are kept so: a weak network's inputs and outputs are FP32 otherwise."""
    trt = api.trt
    tensors = [network.get_input(number) for number in range(network.num_inputs)]
    for tensor in tensors:
        tensor.shape = order.shapes[tensor.name]
    tensors += [network.get_output(number) for number in range(network.num_outputs)]
    for tensor in tensors:
        tensor.allowed_formats = 1 << int(trt.TensorFormat.LINEAR)
        if tensor.name in order.half and not order.strong:
            tensor.dtype = trt.DataType.HALF


def _keep_full(trt: Any, network: Any, config: Any, order: Order) -> None:
    """Layers that the typed form computes in FP32: the flags alone would let TensorRT take FP16 for them too.

    Preferred and not obeyed: where there is no kernel for it a plan is worth more than none.
    """
    config.set_flag(trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)
    full, half = set(order.full), set(order.half)
    for number in range(network.num_layers):
        layer = network.get_layer(number)
        for place in range(layer.num_outputs):
            tensor = layer.get_output(place)
            if tensor is None or tensor.name not in full:
                continue
            layer.precision = trt.DataType.FLOAT
            if tensor.name not in half:  # a state is written in the type that it is kept in
                layer.set_output_type(place, trt.DataType.FLOAT)


def _configure(api: Api, config: Any, order: Order) -> None:
    trt = api.trt
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, order.workspace)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if hasattr(config, "builder_optimization_level"):
        config.builder_optimization_level = order.level
    if hasattr(config, "max_aux_streams"):
        config.max_aux_streams = 0  # a step's layers are too small to run beside each other, and one stream is captured
    if order.tactics is not None:
        sources = 0
        for name in order.tactics:
            if not hasattr(trt.TacticSource, name):
                raise EngineError(f"TensorRT {api.text} has no tactic source {name!r}; leave it out")
            sources |= 1 << int(getattr(trt.TacticSource, name))
        config.set_tactic_sources(sources)
    if order.precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)  # on by default, and three digits less than FP32
    if order.strong:
        return  # the flags below are errors beside a typed graph, where they exist at all
    if order.precision in ("fp16", "int8"):
        config.set_flag(trt.BuilderFlag.FP16)
    if order.int8:
        config.set_flag(trt.BuilderFlag.INT8)


def _layers(trt: Any, logger: Any, plan: bytes) -> str:
    """What the engine's inspector says; empty if the plan just made cannot be read, which the caller will find out."""
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    if engine is None:
        return ""
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
