"""The other way to keep the past of a convolution: one tensor of all its elements, shifted by the graph in each step.

edgeco binds each element by itself and rotates addresses (``slots``), or copies the newest over the oldest (``ring``).
Here the same step graph is rewritten to take and give whole stacks, so that both can be timed side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from gpu_steps import PAST, SHIFTED
from onnx import helper, numpy_helper

from edgeco.bundle import Bundle
from edgeco.bundle.manifest import History, Manifest
from edgeco.errors import EngineError
from edgeco.runtime.verify import relative_difference


def stacked(model: bytes, manifest: Manifest) -> bytes:
    """A step graph in which every history is one input and one output, (depth, rows, *shape), newest first."""
    proto = onnx.load_from_string(model)
    for history in manifest.histories:
        _stack(proto.graph, history)
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def _stack(graph: Any, history: History) -> None:
    slots = history.storage == "slots"
    reads = {read.name: read.age or 1 for read in history.reads}
    values = {value.name: value for value in (*graph.input, *graph.output)}
    example = values[history.write].type.tensor_type
    element = [d.dim_param or d.dim_value for d in example.shape.dim]
    past, new, name = history.name + PAST, history.name + SHIFTED, history.name
    for side, dropped, added in ((graph.input, reads, past), (graph.output, {history.write: 0}, new)):
        kept = [value for value in side if value.name not in dropped]
        del side[:]
        shape = [history.depth, *element]
        side.extend([*kept, helper.make_tensor_value_info(added, example.elem_type, shape)])
    taken = []
    if not slots:  # a ring is read whole, in whatever order
        taken.append(helper.make_node("Identity", [past], list(reads)))
    for read, age in reads.items() if slots else ():
        index = f"{name}_at{age}"
        graph.initializer.append(numpy_helper.from_array(np.array(age - 1, np.int64), index))
        taken.append(helper.make_node("Gather", [past, index], [read], axis=0))
    body = [*taken, *graph.node]
    axes = f"{name}_axis"
    graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), axes))
    body.append(helper.make_node("Unsqueeze", [history.write, axes], [f"{name}_top"]))
    parts = [f"{name}_top"]
    if history.depth > 1:
        last = f"{name}_last"
        graph.initializer.append(numpy_helper.from_array(np.array([history.depth - 1], np.int64), last))
        body.append(helper.make_node("Slice", [past, axes, last, axes], [f"{name}_rest"]))
        parts.append(f"{name}_rest")
    body.append(helper.make_node("Concat", parts, [new], axis=0))
    del graph.node[:]
    graph.node.extend(body)


@dataclass
class Stacks:
    """A stacked graph stepped by ONNX Runtime: the oracle of the rewriting."""

    model: bytes
    manifest: Manifest

    def answers(self, frames: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Answers to frames from reset, by output name."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])
        held = {value.name: value for value in session.get_inputs()}
        stacks, state = self.manifest.histories, {}
        for history in stacks:
            kind = "float16" if "16" in held[history.name + PAST].type else "float32"
            rows = history.rows_per_stream
            state[history.name + PAST] = np.full((history.depth, rows, *history.shape), history.border, kind)
        names = [value.name for value in session.get_outputs()]
        given: dict[str, list[np.ndarray]] = {entry.name: [] for entry in self.manifest.outputs}
        for step in range(len(next(iter(frames.values())))):
            feeds = {name: values[step][None] for name, values in frames.items()}
            made = dict(zip(names, session.run(names, {**feeds, **state}), strict=True))
            for history in stacks:
                if step < history.starts_at:
                    made[history.name + SHIFTED][0] = history.border
                state[history.name + PAST] = made[history.name + SHIFTED]
            for name, values in given.items():
                values.append(made[name][0])
        return {name: np.stack(values) for name, values in given.items()}


def checked(bundle: Bundle, variant: str, steps: int = 100) -> bytes:
    """The stacked graph of a variant, held against the bundle's golden answers.

    Raises:
        EngineError: it gives others; a mistake of the rewriting.
    """
    manifest = bundle.manifest
    made = stacked(bundle.onnx(variant), manifest)
    frames, answers = bundle.golden()
    given = Stacks(made, manifest).answers({name: values[:steps] for name, values in frames.items()})
    for output in manifest.outputs:
        first = manifest.timeline.first_answer(output)
        off, _ = relative_difference(given[output.name][first:], answers[output.name][first:steps])
        if not off <= manifest.variants[variant].tolerance:
            raise EngineError(f"the stacked graph of {manifest.name}, {variant}, is off by {off:.1e}")
    return made


def can_be_stacked(manifest: Manifest) -> bool:
    """Whether there are slots, and nothing but what the rewriting is written for."""
    kinds = {history.storage for history in manifest.histories}
    plain = all(history.rate == 1 and history.before == "border" for history in manifest.histories)
    return "slots" in kinds and kinds <= {"slots", "ring"} and plain and manifest.timeline.stride == 1
