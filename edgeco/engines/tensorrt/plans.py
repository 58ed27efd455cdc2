"""A plan for a graph on this device: from the cache, or compiled now and kept."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeco import __version__
from edgeco.engines.cuda.protocol import Cuda
from edgeco.engines.tensorrt.api import Api
from edgeco.engines.tensorrt.build import Say
from edgeco.engines.tensorrt.cache import FORMAT, PlanCache, Sidecar
from edgeco.engines.tensorrt.compiling import compile_in_child
from edgeco.engines.tensorrt.logger import last_words, make_logger
from edgeco.engines.tensorrt.order import Order, network_key, plan_key
from edgeco.engines.tensorrt.verdict import Refused, Verdict
from edgeco.errors import EngineError, WriteError


@dataclass(frozen=True)
class Plan:
    """A plan ready to run: TensorRT's engine, what keeps it alive, its inputs and outputs as TensorRT made them (shape
    and type by name), and where it came from."""

    engine: Any
    runtime: Any
    logger: Any
    tensors: dict[str, tuple[tuple[int, ...], str]]
    sidecar: Sidecar
    cached: bool


class Plans:
    """Opens plans for one GPU and one TensorRT.

    Args:
        api: the installed TensorRT.
        cuda: the GPU.
        cache: where plans are kept.
        say: called with what takes long.
        network: the network's name, for the sidecar.
        cancel: asked during a compilation whether to give up.
    """

    def __init__(
        self, api: Api, cuda: Cuda, cache: PlanCache, say: Say, network: str,
        cancel: Callable[[], bool] | None = None,
    ) -> None:  # fmt: skip
        self.api, self.cuda, self.cache = api, cuda, cache
        self._say, self._network, self._cancel = say, network, cancel

    def open(self, onnx: bytes, order: Order, fresh: bool = False, exactly: bool = False) -> Plan:
        """A plan for a graph.

        Args:
            onnx: the complete model.
            order: how it is compiled, if it must be.
            fresh: compile it even if there is one.
            exactly: likewise if there is one that was compiled with other options.

        Raises:
            Refused: TensorRT does not take the graph.
            EngineError: it cannot be compiled for another reason, or not be loaded even when just compiled.
        """
        device = self.cuda.device
        key = plan_key(onnx, order, self.api.text, device.name, device.capability)
        with self._locked(key):
            found = None if fresh else self.cache.load(key, self.api.version)
            if exactly and isinstance(found, tuple) and found[1].order != order:
                found = "the kept plan was compiled with other options"
            if isinstance(found, str):
                self._say(f"{found}; compiling again")
            elif found is not None:
                opened = self._deserialise(*found, cached=True)
                if opened is not None:
                    return opened
                self._say("the kept plan does not load; compiling again")
            self.cache.discard(key)
            plan, sidecar = self._compile(key, onnx, order)
            opened = self._deserialise(plan, sidecar, cached=False)
            if opened is None:
                self.cache.discard(key)
                raise EngineError(f"TensorRT {self.api.text} does not load the plan that it has just compiled")
            return opened

    def refusal(
        self,
        orders: Mapping[bytes, Order],
        types: Mapping[str, str],
        compiled: Callable[[], Sequence[Plan]],
        again: bool,
    ) -> str | None:
        """Why TensorRT does not take some graphs as they are; None if it does. Remembered, whatever the rows.

        Args:
            orders: the graphs, and how they would be compiled.
            types: that their inputs and outputs should have.
            compiled: compiles them.
            again: find out even what is remembered.
        """
        device = self.cuda.device
        key = network_key(orders, self.api.text, device.name, device.capability)
        known = None if again else self.cache.verdict(key)
        if known is not None:
            return known.refused
        try:
            reason = next((text for plan in compiled() for text in _other_types(plan, types)), None)
        except Refused as error:
            reason = str(error)
        verdict = Verdict(format=1, network=self._network, tensorrt=self.api.text, gpu=device.name, refused=reason)
        try:
            self.cache.judge(key, verdict)
        except WriteError as error:
            self._say(f"whether INT8 states are taken is not remembered: {error}")
        return reason

    def _locked(self, key: str) -> contextlib.AbstractContextManager[None]:
        return self.cache.lock(key, lambda: self._say("waiting for another process that compiles this network"))

    def _compile(self, key: str, onnx: bytes, order: Order) -> tuple[bytes, Sidecar]:
        device = self.cuda.device
        self._say(
            f"compiling {self._network} for {device.name} ({order.precision}), once; "
            "this takes from half a minute to many minutes on a small board"
        )
        major, minor = device.capability
        name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{self.api.text}-{device.name}-{major}.{minor}")
        plan, layers, seconds = compile_in_child(onnx, order, self.cache.timing(name), self._say, self._cancel)
        sidecar = Sidecar(
            format=FORMAT,
            key=key,
            plan_sha256=hashlib.sha256(plan).hexdigest(),
            onnx_sha256=hashlib.sha256(onnx).hexdigest(),
            network=self._network,
            tensorrt=self.api.text,
            gpu=device.name,
            capability=device.capability,
            driver=device.driver,
            edgeco=__version__,
            order=order,
            seconds=seconds,
            size=len(plan),
        )
        try:
            self.cache.store(key, plan, layers, sidecar)
        except WriteError as error:
            self._say(f"the plan serves this once and is not kept: {error}")
        return plan, sidecar

    def _deserialise(self, plan: bytes, sidecar: Sidecar, cached: bool) -> Plan | None:
        trt = self.api.trt
        with self.cuda:
            logger = make_logger(trt)
            runtime = trt.Runtime(logger)
            engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            last_words(logger)
            return None
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        tensors = {name: (tuple(engine.get_tensor_shape(name)), self._dtype(engine, name)) for name in names}
        return Plan(engine, runtime, logger, tensors, sidecar, cached)

    def _dtype(self, engine: Any, name: str) -> str:
        kind = engine.get_tensor_dtype(name)
        return self.api.dtypes.get(kind, str(kind))


def _other_types(plan: Plan, types: Mapping[str, str]) -> list[str]:
    """What TensorRT made another type of than it was told, without a word."""
    made = {name: dtype for name, (_, dtype) in plan.tensors.items()}
    return [
        f"it makes {made[name]} of {name!r}, which is {dtype}"
        for name, dtype in types.items()
        if made.get(name, dtype) != dtype
    ]
