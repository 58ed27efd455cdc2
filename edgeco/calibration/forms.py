"""The INT8 forms of a step network: one for processors, two typings for TensorRT, each held against FP32 on a stream.

=======================  ==================================================================================
``int8``                 for ONNX Runtime: uint8 numbers and histories, int8 weights, Q and DQ that it fuses
``trt-int8``             for TensorRT below 10.12: FP32 with Q and DQ, opset 17, int8 histories
``trt-int8-typed``       for TensorRT from 10.12 on: FP16 with Q and DQ, opset 20, int8 histories
``…-float-states``       either with float histories, for a TensorRT that takes no int8 at its ends
=======================  ==================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
import numpy as np
import onnx

from edgeco.bundle.manifest import Manifest, Variant
from edgeco.bundle.ranges import Ranges
from edgeco.calibration.bias import bias_shifts
from edgeco.calibration.drift import Drift, Limits, check_drift, drift_stream, drifts, to_and_fro
from edgeco.calibration.equalise import equalise
from edgeco.calibration.grid import Kind
from edgeco.calibration.half_range import half_range
from edgeco.calibration.insertion import Quantised, quantise
from edgeco.calibration.names import check_inputs
from edgeco.calibration.network import Graph, Key, folded_weights
from edgeco.calibration.placement import Placement, label, layers_of, place
from edgeco.calibration.settle import last_layers, last_shifts
from edgeco.calibration.speed import step_milliseconds
from edgeco.export.check import rollout
from edgeco.export.exported import Exported
from edgeco.export.half import full_weights, half_graph, half_weights
from edgeco.export.lint import check_lint
from edgeco.export.opset17 import bytes_cast_first, opset17
from edgeco.export.rounded import rounded_graph
from edgeco.export.tensorrt_forms import LEAST_TOLERANCE, SPARE, Form, wide_tensors

Array = np.ndarray[Any, Any]
Target = Literal["cpu", "trt-weak", "trt-strong"]

CPU, WEAK, STRONG = "int8", "trt-int8", "trt-int8-typed"
FLOAT_STATES = "-float-states"
NAMES: dict[Target, str] = {"cpu": CPU, "trt-weak": WEAK, "trt-strong": STRONG}

GOLDEN_SPARE = 2.0
"""How many times the form's own difference at the golden frames a device may be off there."""

FAR = 0.3
"""Difference at the golden frames from which on it is told: a tolerance that allows it is hardly one."""
SAMPLE = 48
"""Frames beyond the first valid answer over which channels are looked at."""


@dataclass(frozen=True)
class Prepared:
    """A network made ready to be quantised: its weights turned and equalised, its ranges to match.

    Attributes:
        source: the graphs as exported, to be compared with.
        exported: the same function, with equal channels before depthwise layers.
        equalised: the histories whose channels were made equal.
        frames: a stream for statistics and comparisons.
    """

    source: Exported
    exported: Exported
    manifest: Manifest
    ranges: Ranges
    frames: Array
    equalised: tuple[str, ...]

    @property
    def sample(self) -> Array:
        """A short stream over which channels are looked at."""
        return to_and_fro(self.frames, self.manifest.timeline.valid_from + SAMPLE)


def prepare(exported: Exported, manifest: Manifest, ranges: Ranges, frames: Array) -> Prepared:
    """Everything that all INT8 forms share.

    Raises:
        CalibrationError: the ranges are of another network, or there is more than one input.
    """
    ranges.check_model(exported)
    check_inputs(manifest)
    folded = folded_weights(exported)
    made, own, done = equalise(folded, manifest, ranges, to_and_fro(frames, manifest.timeline.valid_from + SAMPLE))
    return Prepared(exported, made, manifest, own, frames, tuple(done))


def quantised_forms(
    exported: Exported,
    manifest: Manifest,
    ranges: Ranges,
    frames: Array,
    *,
    targets: Sequence[Target] = ("cpu", "trt-weak", "trt-strong"),
    keep_float: Collection[str] = (),
    limits: Limits | None = None,
    golden: Array | None = None,
    say: Callable[[str], None] | None = None,
) -> list[Form]:
    """The INT8 forms for some targets, each compared with FP32 over at least ten receptive fields.

    Args:
        exported: the FP32 graphs.
        manifest: what describes them.
        ranges: of every tensor and history, by ``edgeco.calibration.rollout.observe``.
        frames: a recording, (steps, *shape) as the network takes them, that is compared on.
        targets: what the forms are for.
        keep_float: names of layers, tensors and histories that stay in float.
        limits: beyond which a form is refused.
        golden: the stream that every device is held to, (steps, *shape): a form's tolerance covers what it differs
            by there already. Such frames may lie beyond what was calibrated on.
        say: told what is being done.

    Raises:
        CalibrationError: the ranges are of another network, or name no tensor that is needed.
        ConversionError: an operator has no such form.
        CheckFailed: a form drifts further from FP32 than it may.
    """
    tell = say or (lambda text: None)
    tell("looking at channels")
    prepared = prepare(exported, manifest, ranges, frames)
    stream = drift_stream(frames, manifest)
    tell("answering in FP32")
    expected = rollout(exported.phases(), manifest, stream)
    right = {} if golden is None else rollout(exported.phases(), manifest, golden)
    made = []

    def finished(form: Form, runs: Exported, found: Sequence[Drift]) -> Form:
        shown = [] if golden is None else measured(runs, prepared.manifest, form, golden, right)
        if (worst := max((drift.error for drift in shown), default=0.0)) > FAR:
            tell(
                f"{form.name} differs by {worst:.0%} from FP32 at the golden frames, which lie beyond what was "
                "calibrated on, so that 'edgeco verify' can say little of it; calibrate on such frames, if they are met"
            )
        return _finished(form, found, shown)

    for target in targets:
        tell(f"quantising for {target}")
        form, runs = quantised_form(prepared, target, keep_float)
        _check_rules(form, target)
        found = measured(runs, prepared.manifest, form, stream, expected)
        check_drift(form.name, found, limits or Limits(), REMEDY.format(len(form.told["floats"])))
        if target == "cpu":
            tell("timing a step in FP32 and in INT8")
            pair = {"fp32": (exported, manifest), form.name: (form.exported, described(manifest, form))}
            form.told["milliseconds"] = step_milliseconds(pair)
        made.append(finished(form, runs, found))
        if target != "cpu":
            other, runs = quantised_form(prepared, target, keep_float, histories=False)
            _check_rules(other, target)
            made.append(finished(other, runs, found))
    return made


def _finished(form: Form, found: Sequence[Drift], golden: Sequence[Drift]) -> Form:
    """A form with its drift, and what a device may differ by: its kernels round at other places."""
    off = max(drift.error for drift in found)
    shown = max((drift.error for drift in golden), default=0.0)
    tolerance = max(LEAST_TOLERANCE, SPARE * off, GOLDEN_SPARE * shown)
    told = {**form.told, "drift": [drift.to_json() for drift in found]}
    return replace(form, drift=off, tolerance=tolerance, told=told)


REMEDY = (
    "{} layers and histories are in float already; keep more so (--keep-float), let the build choose "
    "(--float-budget), calibrate on more data, accept less (--least-cosine), or leave INT8 out."
)
OLDEST: dict[Target, str] = {"trt-weak": "8.6.1", "trt-strong": "10.12.0"}
"""The first version that each typing is for, whose rules it must keep."""


def _check_rules(form: Form, target: Target) -> None:
    if target in OLDEST:
        for number in range(len(form.exported.graphs)):
            check_lint(form.exported.model(number), OLDEST[target], form.name)


def measured(runs: Exported, manifest: Manifest, form: Form, stream: Array, expected: dict[str, Array]) -> list[Drift]:
    """The drift of a form: of what it computes, run on a processor."""
    own = described(manifest, form)
    return drifts(manifest, expected, rollout(runs.phases(), own, stream))


def described(manifest: Manifest, form: Form) -> Manifest:
    """The manifest with the histories as a form stores them."""
    variant = Variant(graphs=(), weights="", tolerance=1.0, histories=form.histories)
    return msgspec.structs.replace(manifest, variants={form.name: variant}).of_variant(form.name)


def quantised_form(
    prepared: Prepared, target: Target, keep_float: Collection[str] = (), histories: bool = True, correct: bool = True
) -> tuple[Form, Exported]:
    """One form, not yet compared, and the graphs that show on a processor what it computes.

    Args:
        prepared: the network.
        target: what it is for.
        keep_float: names that stay in float.
        histories: whether histories are stored in codes.
        correct: whether the biases make up for the rounding of weights.
    """
    kind: Kind = "cpu" if target == "cpu" else "trt"
    source = _dialect(prepared.exported, target)
    graphs = [Graph(number, source, prepared.manifest) for number in range(len(source.graphs))]
    kept = set(keep_float) | (set() if kind == "cpu" else set(half_range(prepared.ranges).beyond))
    placement = place(graphs, prepared.manifest, kind, kept, histories)
    shifts = {}
    if correct and placement.layers:
        shifts = bias_shifts(source, graphs, prepared.manifest, placement, kind, prepared.sample)
    made = quantise(source, graphs, prepared.manifest, placement, prepared.ranges, kind, shifts)
    if correct and (last := last_layers(graphs, placement)):
        shifts = _settled(shifts, last, (source, prepared.manifest), made, prepared)
        made = quantise(source, graphs, prepared.manifest, placement, prepared.ranges, kind, shifts)
    name = NAMES[target] + ("" if histories else FLOAT_STATES)
    told = {**_told(graphs, placement, prepared), "kept_float": sorted(keep_float)}
    form = Form(name, made.exported, 0.0, LEAST_TOLERANCE, False, made.histories, told)
    if target != "trt-strong":
        return form, made.exported
    return _typed(form, made.exported, prepared)


def _settled(
    shifts: Mapping[Key, Array],
    last: Sequence[Key],
    right: tuple[Exported, Manifest],
    made: Quantised,
    prepared: Prepared,
) -> dict[Key, Array]:
    """The shifts of biases, with what sets the means of the last layers right."""
    own = described(prepared.manifest, Form("", made.exported, 0.0, LEAST_TOLERANCE, False, made.histories, {}))
    written = {history.write: f"{history.write}_made" for history in own.histories if history.name in made.histories}
    more = last_shifts(last, right, (made.exported, own), written, prepared.sample)
    return {**shifts, **{key: shifts.get(key, 0.0) + shift for key, shift in more.items()}}


def _dialect(exported: Exported, target: Target) -> Exported:
    """The graphs in the opset of a target."""
    if target == "cpu":
        return exported
    rewrite = opset17 if target == "trt-weak" else bytes_cast_first
    return Exported(tuple(rewrite(graph) for graph in exported.graphs), exported.schedule, exported.weights)


def _typed(form: Form, made: Exported, prepared: Prepared) -> tuple[Form, Exported]:
    """The strongly typed form, FP16 between Q and DQ; and FP32 graphs that round like it."""
    beyond = [key.split("@")[0] for key in half_range(prepared.ranges).beyond]
    wide, exact = wide_tensors(prepared.manifest, prepared.exported.graphs, beyond)
    full = full_weights(made.graphs, made.weights, exact)
    halves = tuple(half_graph(graph, made.weights, full, wide, exact) for graph in made.graphs)
    half = Exported(halves, made.schedule, half_weights(made.weights, full))
    narrowed = {name: array.astype(made.weights[name].dtype) for name, array in half.weights.items()}
    rounded = Exported(tuple(_rounded(graph, exact) for graph in made.graphs), made.schedule, narrowed)
    return replace(form, exported=half), rounded


def _rounded(graph: bytes, exact: frozenset[str]) -> bytes:
    """A graph that rounds to FP16; what DQ gives is left, for a code of 8 bits times a scale loses next to nothing."""
    nodes = onnx.ModelProto.FromString(graph).graph.node
    return rounded_graph(graph, exact | {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"})


def _told(graphs: Sequence[Graph], placement: Placement, prepared: Prepared) -> dict[str, Any]:
    """What the build report says of a form: by name what computes and is stored in INT8, and why the rest is not."""
    quantised = {
        label(graph, node): None
        for graph in graphs
        for node in layers_of(graph)
        if Key(graph.number, node.output[0]) in placement.layers
    }
    return {
        "layers": len(placement.layers),
        "quantised": list(quantised),
        "histories": sorted(placement.histories),
        "floats": dict(placement.floats),
        "equalised": list(prepared.equalised),
    }
