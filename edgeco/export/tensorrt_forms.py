"""The forms of a step network that TensorRT takes, beside the one every engine does, and how far they drift from it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from edgeco.bundle.manifest import Manifest, Stored, Variant
from edgeco.errors import CheckFailed
from edgeco.export.check import rollout
from edgeco.export.exported import Exported
from edgeco.export.half import LIMIT, full_weights, half_graph, half_weights
from edgeco.export.opset17 import opset17
from edgeco.export.rounded import rounded_graph

PLAIN, HALF = "trt-fp32", "trt-fp16"
"""Names of the variants: FP32 numbers at opset 17, and FP16 written into the same graph."""

STEPS = 100
"""Steps over which a form is compared with the FP32 graph: drift of states shows late."""

PLAIN_LIMIT, HALF_LIMIT = 1e-5, 0.05
"""Greatest difference from FP32, relative to the greatest magnitude of the answers, with which a form is written."""

LEAST_TOLERANCE, SPARE = 0.01, 4.0
"""What a device may differ by in FP16: its kernels add up in another order than the one that was measured."""


@dataclass(frozen=True)
class Form:
    """A variant to be written: its graphs and weights, its drift as measured, and its tolerance on a device.

    Attributes:
        histories: those that it stores in another type than the manifest says.
        told: what the build report says of it.
        rounded: graphs in FP32 that round like it, where it computes what a processor does not.
    """

    name: str
    exported: Exported
    drift: float
    tolerance: float
    shares_weights: bool
    histories: dict[str, Stored] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    rounded: Exported | None = None


def tensorrt_forms(
    exported: Exported,
    manifest: Manifest,
    frames: np.ndarray[Any, Any],
    tolerance: float,
    beyond: Collection[str] = (),
) -> list[Form]:
    """Both forms, each compared with the exported graph over a stream from reset.

    Args:
        exported: the FP32 graphs.
        manifest: what describes them.
        frames: a few frames as the graph takes them.
        tolerance: of FP32 on a device.
        beyond: tensors that were seen to leave FP16's range (``edgeco.calibration.half_range``), which stay in FP32.

    Raises:
        ConversionError: an operator or a weight has no such form.
        CheckFailed: a form gives other answers.
    """
    graphs = tuple(opset17(graph) for graph in exported.graphs)
    plain = Exported(graphs, exported.schedule, exported.weights)
    half, rounded = half_form(exported, graphs, manifest, beyond)
    steps = max(STEPS, 2 * manifest.timeline.receptive_field)
    stream = frames[np.arange(steps) % len(frames)]
    expected = rollout(exported.phases(), manifest, stream)
    off = {PLAIN: _drift(PLAIN, plain, manifest, stream, expected, PLAIN_LIMIT)}
    _drift(HALF, half, manifest, stream, expected, HALF_LIMIT)  # the graph as it is, which runs, in FP32 on a processor
    off[HALF] = _drift(HALF, rounded, manifest, stream, expected, HALF_LIMIT)
    return [
        Form(PLAIN, plain, off[PLAIN], tolerance, True),
        Form(HALF, half, off[HALF], max(LEAST_TOLERANCE, SPARE * off[HALF]), False, rounded=rounded),
    ]


def half_form(
    exported: Exported, graphs: Sequence[bytes], manifest: Manifest, beyond: Collection[str] = ()
) -> tuple[Exported, Exported]:
    """The form in FP16, and one in FP32 that rounds like it.

    Args:
        exported: weights and schedule.
        graphs: in opset 17.
        manifest: what describes them.
        beyond: tensors that leave FP16's range.

    Raises:
        ConversionError: a weight does.
    """
    wide, exact = wide_tensors(manifest, graphs, beyond)
    full = full_weights(graphs, exported.weights, exact)
    halves = tuple(half_graph(graph, exported.weights, full, wide, exact) for graph in graphs)
    half = Exported(halves, exported.schedule, half_weights(exported.weights, full))
    narrowed = {name: array.astype(exported.weights[name].dtype) for name, array in half.weights.items()}
    rounded = Exported(tuple(rounded_graph(graph, exact) for graph in graphs), exported.schedule, narrowed)
    return half, rounded


PRODUCTS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
"""Stay FP16 also where states go round: their sums are kept in FP32 by the hardware, and they are the work."""


SUMS = ("ReduceSum", "ReduceMean", "CumSum")
"""Add up a window: what they give may be many times what goes in."""


def wide_tensors(
    manifest: Manifest, graphs: Sequence[bytes], beyond: Collection[str] = ()
) -> tuple[frozenset[str], frozenset[str]]:
    """Inputs and outputs that keep FP32, and results that are computed in it.

    Those are frames and answers; states that are computed from themselves, in which every rounding would stay, with
    what lies on the way to their next value; states whose window is summed up, with the sum until it is divided; and
    what leaves FP16's range.
    """
    names = [entry.name for entry in manifest.inputs] + [entry.name for entry in manifest.outputs]
    exact: set[str] = set(beyond)
    for body in (onnx.ModelProto.FromString(graph).graph for graph in graphs):
        for history in manifest.histories:
            own = [read.name for read in history.reads]
            after = _after(body, own)
            if history.write in after:
                names += [history.write, *own]
                before = _before(body, history.write)
                round_trip = [n for n in body.node if after.intersection(n.output) and before.intersection(n.output)]
                exact |= {node.output[0] for node in round_trip if node.op_type not in PRODUCTS}
            elif _summed(body, own) or {history.write, *own} & set(beyond):
                names += [history.write, *own]
        exact |= _sums(body)
    return frozenset(names), frozenset(exact)


def _summed(body: onnx.GraphProto, reads: Sequence[str]) -> bool:
    readers = [node for node in body.node if set(reads).intersection(node.input)]
    return bool(readers) and all(node.op_type in SUMS for node in readers)


def _sums(body: onnx.GraphProto) -> set[str]:
    """Results on the way from the sum over a window to the number that is handed on."""
    going, found = set[str](), set[str]()
    for node in body.node:
        if node.op_type in SUMS or (node.op_type in ("Add", "Sub") and going.intersection(node.input)):
            going.add(node.output[0])
        elif node.op_type in ("Mul", "Div") and going.intersection(node.input):
            found.add(node.output[0])
    return going | found


def _after(body: onnx.GraphProto, names: Sequence[str]) -> set[str]:
    """Some tensors and everything that is computed from them."""
    reached = set(names)
    for node in body.node:
        if reached.intersection(node.input):
            reached.update(node.output)
    return reached


def _before(body: onnx.GraphProto, name: str) -> set[str]:
    """A tensor and everything that it is computed from."""
    reached = {name}
    for node in reversed(body.node):
        if reached.intersection(node.output):
            reached.update(node.input)
    return reached


def _drift(
    name: str, form: Exported, manifest: Manifest, stream: np.ndarray[Any, Any],
    expected: dict[str, np.ndarray[Any, Any]], limit: float,
) -> float:  # fmt: skip
    given = rollout(form.phases(), manifest, stream)
    worst = 0.0
    for output in manifest.outputs:
        right = expected[output.name][output.valid_from :]
        scale = max(float(np.abs(right).max()), 1e-12)
        off = float(np.abs(given[output.name][output.valid_from :] - right).max()) / scale
        worst = worst if off <= worst else off  # NaN too: nothing is at most as great
    if not worst <= limit:
        raise CheckFailed(
            f"The form {name} differs from FP32 by {worst:.2g} over {len(stream)} steps, where {limit:g} is accepted; "
            "build without --tensorrt, or train the network for FP16."
        )
    return worst


def half_histories(manifest: Manifest, graphs: Sequence[bytes]) -> dict[str, Stored]:
    """The histories that typed graphs keep in FP16 where the manifest says FP32, and their borders in that type."""
    types: dict[str, int] = {}
    for body in (onnx.ModelProto.FromString(graph).graph for graph in graphs):
        types |= {value.name: value.type.tensor_type.elem_type for value in (*body.input, *body.output)}
    made = {}
    for history in manifest.histories:
        own = {types.get(name) for name in (history.write, *(read.name for read in history.reads))}
        if history.dtype == "float32" and own == {onnx.TensorProto.FLOAT16}:
            made[history.name] = Stored(dtype="float16", border=min(max(history.border, -LIMIT), LIMIT))
    return made


def form_members(manifest: Manifest, forms: Sequence[Form], shared: str) -> tuple[dict[str, Variant], dict[str, Any]]:
    """What the manifest says of each form, and the new members: graphs as bytes, weights as arrays by name.

    Args:
        manifest: of the network.
        forms: those to be written.
        shared: the member with the FP32 weights.
    """
    variants, members = dict[str, Variant](), dict[str, Any]()
    for form in forms:
        several = len(form.exported.graphs) > 1
        names = [f"step.{form.name}{f'.{i}' if several else ''}.onnx" for i in range(len(form.exported.graphs))]
        members |= dict(zip(names, form.exported.graphs, strict=True))
        weights = shared if form.shares_weights else _same(members, form.exported.weights)
        if weights is None:
            weights = f"weights.{form.name}.safetensors"
            members[weights] = form.exported.weights
        graphs = tuple("" if number is None else names[number] for number in form.exported.schedule)
        histories = half_histories(manifest, form.exported.graphs) | form.histories
        variants[form.name] = Variant(graphs=graphs, weights=weights, tolerance=form.tolerance, histories=histories)
    return variants, members


def _same(members: dict[str, Any], weights: dict[str, np.ndarray[Any, Any]]) -> str | None:
    """A member that holds the same weights already."""
    for name, other in members.items():
        if not isinstance(other, dict) or other.keys() != weights.keys():
            continue
        if all(other[k].dtype == array.dtype and np.array_equal(other[k], array) for k, array in weights.items()):
            return name
    return None
