"""Runs the FP32 step graphs with their inner tensors laid open, over one stream, as the product's engines would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from edgeco.bundle.manifest import Manifest
from edgeco.calibration.tensors import Observed
from edgeco.engines.host import HostMemory
from edgeco.engines.storage import open_storage, start_up
from edgeco.engines.threads import default_threads
from edgeco.errors import EngineError
from edgeco.export.exported import Exported

Array = np.ndarray[Any, Any]


class Probe:
    """One stream of a step network; tensors can be looked at after each step.

    Args:
        exported: the FP32 step graphs.
        manifest: what describes them.
        tensors: those to look at.
        threads: processor threads; None for the physical cores.
        fused: whether operators may be joined; in INT8 graphs what lies between them would not be there to look at.

    Raises:
        EngineError: ONNX Runtime refuses a graph.
    """

    def __init__(
        self,
        exported: Exported,
        manifest: Manifest,
        tensors: list[Observed],
        threads: int | None = None,
        fused: bool = True,
    ) -> None:
        self.manifest = manifest
        self.steps = 0
        self._schedule = exported.schedule
        self._memory = HostMemory()
        self._storages = [open_storage(self._memory, history, 1) for history in manifest.histories]
        self._frames = {entry.name: self._memory.allocate((1, *entry.shape), entry.dtype) for entry in manifest.inputs}
        due: list[list[tuple[int, str, int]]] = [[] for _ in exported.graphs]
        for place, item in enumerate(tensors):
            for (graph, name), start in item.starts.items():
                due[graph].append((place, name, start))
        self._due = due
        self._sessions = [
            _Opened(exported.model(number), [name for _, name, _ in due[number]], threads, fused)
            for number in range(len(exported.graphs))
        ]

    def reset(self) -> None:
        """Back to before the first step."""
        for storage in self._storages:
            storage.clear()
        self.steps = 0

    def take(self, frame: Mapping[str, Array]) -> None:
        """Write what the next steps read: an array of the input's shape and type for every input."""
        for name, buffer in self._frames.items():
            self._memory.write(buffer, frame[name][None])

    def step(self) -> list[tuple[int, Array]]:
        """One step; gives the tensors whose numbers count in it, by their place in the list, as they are computed."""
        step, number = self.steps, self._schedule[self.steps % len(self._schedule)]
        made = {} if number is None else self._run(number, step)
        self._advance(made, step)
        self.steps = step + 1
        due = [] if number is None else self._due[number]
        return [(place, made[name]) for place, name, start in due if step >= start]

    def past(self) -> dict[str, Array]:
        """Copies of all histories by name, oldest element first."""
        return {storage.history.name: storage.past(self.steps) for storage in self._storages}

    def load(self, past: Mapping[str, Array], steps: int) -> None:
        """Stand where the stream stood that gave ``past`` after so many steps."""
        for storage in self._storages:
            storage.load(past[storage.history.name], steps)
        self.steps = steps

    def _run(self, number: int, step: int) -> dict[str, Array]:
        buffers: dict[str, Any] = dict(self._frames)
        for storage in self._storages:
            buffers |= storage.inputs(step)
        opened = self._sessions[number]
        made = opened.run({name: buffers[name].array for name in opened.inputs})
        return made | {name: self._frames[name].array for name in opened.inputs if name in self._frames}

    def _advance(self, made: Mapping[str, Array], step: int) -> None:
        for storage in self._storages:
            if not storage.writes(step):
                continue
            for name, buffer in storage.outputs(step).items():
                self._memory.write(buffer, made[name])
            start_up(storage, step, step)
            storage.advance(step)


class _Opened:
    """A graph compiled with more outputs than it has."""

    def __init__(self, model: onnx.ModelProto, names: list[str], threads: int | None, fused: bool) -> None:
        import onnxruntime

        inputs = {value.name for value in model.graph.input}
        known = {value.name for value in model.graph.output}
        fresh = [name for name in dict.fromkeys(names) if name not in known | inputs]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in fresh)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = default_threads() if threads is None else threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if not fused:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        try:
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime raises many classes of its own, under no common root
            raise EngineError(f"ONNX Runtime refuses the graph with its tensors laid open: {error}") from error
        self.inputs = [argument.name for argument in self._session.get_inputs()]
        self.outputs = [argument.name for argument in self._session.get_outputs()]

    def run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        try:
            return dict(zip(self.outputs, self._session.run(self.outputs, feeds), strict=True))
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed while running: {error}") from error
