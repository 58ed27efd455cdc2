"""From a step graph and its export to the records and members of a bundle."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors.numpy import save

from edgeco.bundle import manifest as records
from edgeco.continual.answers import warm_from
from edgeco.continual.convert import StepGraph
from edgeco.continual.history import History
from edgeco.errors import ConversionError, SpecError
from edgeco.export.exported import Exported
from edgeco.export.onnx import WHOLE
from edgeco.export.tensorrt_forms import Form, form_members
from edgeco.graph.cost import fused_layers, layer_costs, total_macs
from edgeco.spec import BuildSpec

_DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.int8: "int8", torch.uint8: "uint8"}

WEIGHTS = "weights.safetensors"
GRAPH = "step.fp32.onnx"
PHASE = "step.fp32.{}.onnx"
"""Names of the graphs where there are several."""
GOLDEN = "golden.safetensors"
REPORT = "report.json"


def history_record(history: History) -> records.History:
    """What the manifest says of a history."""
    ages = history.ages if history.storage == "slots" else (None,)
    return records.History(
        name=history.name,
        storage=history.storage,
        shape=history.shape,
        dtype=_dtype(history.dtype),  # type: ignore[arg-type]
        depth=history.depth,
        reads=tuple(records.Read(name=n, age=a) for n, a in zip(history.inputs, ages, strict=True)),
        write=history.output,
        border=_finite(history.border, history.dtype),
        starts_at=history.starts_at,
        before=history.before,
        rows_per_stream=history.rows_per_stream,
        buffers=history.buffers,
        rate=history.rate,
        phase=history.phase,
    )


def _finite(border: float, dtype: torch.dtype) -> float:
    """JSON has no infinities; the least number of the type stands for minus infinity in a maximum."""
    limits = torch.finfo(dtype)
    return min(max(border, limits.min), limits.max)


def _dtype(dtype: torch.dtype) -> str:
    if dtype not in _DTYPES:
        raise ConversionError(f"The network computes in {dtype}; convert it to float32 before building.")
    return _DTYPES[dtype]


def manifest_of(
    name: str,
    spec: BuildSpec,
    step: StepGraph,
    preprocessing: records.Preprocessing | None,
    labels: tuple[str, ...] | None,
    parameters: int,
    clip_macs: int,
    provenance: dict[str, Any],
) -> records.Manifest:
    """The manifest, but for variants, golden frames and members."""
    inputs = []
    for item in step.clip.inputs:
        rest = tuple(n for i, n in enumerate(item.shape) if i not in (0, item.time_dim))
        image = preprocessing is not None
        inputs.append(
            records.Input(
                name=item.name,
                shape=(*rest[1:], rest[0]) if image else rest,
                dtype="uint8" if image else _dtype(item.dtype),  # type: ignore[arg-type]
                kind="image" if image else "array",
            )
        )
    outputs = outputs_of(step)
    if labels is not None:
        check_labels(labels, outputs)
    timelines = [a.timeline for a in step.answers]
    field = max(t.receptive_field for t in timelines)
    state = sum(history_bytes(h) for h in step.histories)
    return records.Manifest(
        schema_version=records.SCHEMA_VERSION,
        name=name,
        inputs=tuple(inputs),
        outputs=outputs,
        histories=tuple(history_record(h) for h in step.histories),
        timeline=records.Timeline(
            clip_length=step.clip.length,
            receptive_field=field,
            delay=max(t.delay for t in timelines),
            valid_from=max(t.starts_at for t in timelines),
            warm_from=warm_from(step.answers),
            stride=len(step.schedule),
            period=step.period,
            fps=spec.fps,
            start=spec.start,
        ),
        variants={},
        golden=records.Golden(member=GOLDEN, steps=1),
        costs=records.Costs(
            parameters=parameters,
            clip_macs=clip_macs,
            step_macs=step_macs(step),
            state_bytes=state,
            layers=layer_records(step),
        ),
        members={},
        preprocessing=preprocessing,
        labels=labels,
        activation=spec.activation or ("softmax" if labels else "none"),
        provenance=provenance,
    )


def step_macs(step: StepGraph) -> int:
    """Multiply-accumulates of a step for one row, the mean over the phases."""
    totals = [total_macs(phase.module.graph, step.clip.batch) for phase in step.phases]
    return sum(totals[number] for number in step.schedule if number is not None) // len(step.schedule)


def step_layers(step: StepGraph) -> list[dict[str, Any]]:
    """Operators of a step and the multiply-accumulates of each, the mean over the phases."""
    due = [step.phases[number].module.graph.nodes for number in step.schedule if number is not None]
    turns = Counter(node.name for nodes in due for node in nodes)
    layers = layer_costs(step.module.graph, step.clip.batch)
    return [{"op": layer.op, "macs": layer.macs * turns[layer.name] // len(step.schedule)} for layer in layers]


def layer_records(step: StepGraph) -> tuple[records.Layer, ...]:
    """What each kernel of a step costs, and in which steps it runs."""
    due = [
        {node.name for node in step.phases[number].module.graph.nodes} if number is not None else set()
        for number in step.schedule
    ]
    frames = [item.name for item in step.clip.inputs]
    return tuple(
        records.Layer(
            op=layer.op.removeprefix("aten."),
            macs=layer.macs,
            reads=layer.reads,
            writes=layer.writes,
            weights=layer.weights,
            steps=steps,
        )
        for layer in fused_layers(step.module.graph, step.clip.batch, frames)
        if (steps := tuple(place for place, names in enumerate(due) if layer.nodes[0] in names))
    )


def history_bytes(history: History) -> int:
    """Bytes of all buffers of a history, for one stream."""
    return history.buffers * history.rows_per_stream * math.prod(history.shape) * history.dtype.itemsize


def outputs_of(step: StepGraph) -> tuple[records.Output, ...]:
    """What the manifest says of the network's answers."""
    end = next(n for n in step.module.graph.nodes if n.op == "output").args[0]
    found = []
    for answer, node in zip(step.answers, end[0], strict=True):
        made = node.meta["val"]
        shape = tuple(int(n) for n in made.shape)
        if shape[0] % step.clip.batch:
            raise ConversionError(
                f"The output {answer.name!r} does not have the batch as its first axis; permute it in the network."
            )
        rows = shape[0] // step.clip.batch
        found.append(
            records.Output(
                name=answer.name,
                shape=shape[1:] if rows == 1 else (rows, *shape[1:]),
                dtype="float32" if made.dtype in WHOLE else _dtype(made.dtype),  # type: ignore[arg-type]
                valid_from=answer.timeline.starts_at,
                delay=max(answer.timeline.delay, 0),
                rate=answer.timeline.rate,
            )
        )
    return tuple(found)


def check_labels(labels: tuple[str, ...], outputs: tuple[records.Output, ...]) -> None:
    """Raises SpecError unless there is one label per class."""
    classes = outputs[0].shape[-1] if outputs[0].shape else 1
    if len(labels) != classes:
        raise SpecError(
            f"There are {len(labels)} labels, but the network's answer has {classes} numbers; give one label per class."
        )


def members_of(
    manifest: records.Manifest,
    exported: Exported,
    frames: np.ndarray[Any, Any],
    answers: dict[str, np.ndarray[Any, Any]],
    report: dict[str, Any],
    tolerance: float,
    forms: Sequence[Form] = (),
) -> tuple[records.Manifest, dict[str, bytes]]:
    """The completed manifest and the members it names."""
    golden = {f"frame.{manifest.inputs[0].name}": np.ascontiguousarray(frames)}
    golden |= {f"answer.{name}": np.ascontiguousarray(value) for name, value in answers.items()}
    steps = len(next(iter(answers.values())))
    golden_record = records.Golden(member=GOLDEN, steps=steps, frames=len(frames))
    names = [GRAPH if len(exported.graphs) == 1 else PHASE.format(i) for i in range(len(exported.graphs))]
    members = {
        **dict(zip(names, exported.graphs, strict=True)),
        WEIGHTS: save({k: np.ascontiguousarray(v) for k, v in exported.weights.items()}),
        GOLDEN: save(golden),
        REPORT: json.dumps(report, indent=1).encode(),
    }
    graphs = tuple("" if number is None else names[number] for number in exported.schedule)
    variants = {"fp32": records.Variant(graphs=graphs, weights=WEIGHTS, tolerance=tolerance)}
    described, more = form_members(manifest, forms, WEIGHTS)
    variants |= described
    for name, content in more.items():
        members[name] = content if isinstance(content, bytes) else save(content)
    return msgspec.structs.replace(manifest, variants=variants, golden=golden_record), members
