"""The build stage from end to end: the one place that knows the order of things.

trace, fold norms and frames, derive the step network, hold it against the clip network, export, hold the export
against the step network, calibrate, write the bundle. Each gate refuses to go on.

It is not called ``build``: importing the module would then put it in the place of ``edgeco.build``, the function.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from edgeco import __version__
from edgeco.bundle import write_bundle
from edgeco.bundle.manifest import SCHEMA_VERSION, Manifest, Preprocessing
from edgeco.bundle.ranges import RANGES
from edgeco.calibration.calibrating import summarize
from edgeco.calibration.sources import shown_source
from edgeco.calibration.speed import preferred
from edgeco.calibration.stage import plan_of, precision_stage
from edgeco.continual.convert import StepGraph, convert_graph, trace_network
from edgeco.continual.gate import gate
from edgeco.continual.program import StepProgram, exact_mode
from edgeco.devices.catalogue import find_profile
from edgeco.devices.target import check_fits, target_of
from edgeco.errors import SpecError
from edgeco.export.check import ENGINE_TOLERANCE, engine_gate
from edgeco.export.compare import Comparison
from edgeco.export.fold import fold_norms
from edgeco.export.frame_input import FrameInput, fold_frame
from edgeco.export.merge import merge_graph_convolutions
from edgeco.export.onnx import export_onnx
from edgeco.export.package import check_labels, manifest_of, members_of, outputs_of, step_layers
from edgeco.export.widen import widen_depthwise
from edgeco.factory import carried_fields, find_factory
from edgeco.files import check_target
from edgeco.graph.cost import layer_costs
from edgeco.spec import BuildSpec, Variant, make_spec, read_labels
from edgeco.stages import make

DISTINCT_FRAMES = 7
"""Golden frames kept, shown in turn: a prime, so that they never fall into step with the histories' period."""

Progress = Callable[[str], None]


@dataclass
class BuildReport:
    """What a build did and measured; kept in the bundle as ``report.json``.

    Attributes:
        lines: one per operator that mixes time: operator, source line, exactness, form, delay.
        exactness: what holds of every answer: exact, unpadded or causal.
        pinned: why the network takes no other clip length, or None.
        step_difference: step network against clip network on one clip padded as the clip network pads it, relative.
        engine_difference: exported graph against the torch runner over the golden frames, relative.
        folded_norms: batch norms folded into convolutions.
        merged_graph_convolutions: sums of graph convolutions computed as one.
        widened_depthwise: depthwise convolutions widened with zero channels to whole blocks.
        clip_layers, step_layers: multiply-accumulates per layer; drifts: from FP32 of each form for TensorRT, relative.
        target: the device it was built for and what suits it, None if none was named.
        weights: what of the checkpoint was matched; pruning: what a plan took out; None where none was given.
        calibration: what was calibrated on and found, None if nothing was.
        forms: what each INT8 form holds, and how it drifts.
    """

    name: str
    path: str
    exactness: str
    pinned: str | None
    step_difference: float
    engine_difference: float
    folded_norms: int
    merged_graph_convolutions: int
    widened_depthwise: int
    receptive_field: int
    delay: int
    valid_from: int
    clip_macs: int
    step_macs: int
    parameters: int
    lines: list[dict[str, Any]] = field(default_factory=list)
    clip_layers: list[dict[str, Any]] = field(default_factory=list)
    step_layers: list[dict[str, Any]] = field(default_factory=list)
    target: dict[str, Any] | None = None
    drifts: dict[str, float] = field(default_factory=dict)
    weights: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None
    forms: dict[str, Any] = field(default_factory=dict)
    pruning: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def resolve(fields: dict[str, Any]) -> tuple[BuildSpec, Any]:
    """Complete plain fields by what the factory carries; returns the specification and the factory.

    Raises:
        SpecError: the fields are not usable, or the clip's shape is given nowhere.
    """
    given = {k: v for k, v in fields.items() if v is not None}
    if "model" not in given:
        raise SpecError("No model was given; name one, as in 'edgeco build net.py:make -o net.edgeco'.")
    factory = find_factory(str(given["model"]))
    fields = {**carried_fields(factory), **given}
    if "device" in fields:
        fields = _for_device(fields)
    spec = make_spec(fields)
    if spec.clip is None:
        raise SpecError(
            "The clip's shape is not known: give --clip, as 3,16,112,112 for channels, frames, height, width."
        )
    exact_mode(spec.exact)
    if not 1 <= spec.time_dim <= len(spec.clip):
        raise SpecError(
            f"time_dim {spec.time_dim} does not fit clips of shape (batch, {', '.join(map(str, spec.clip))})."
        )
    return spec, factory


def _for_device(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with those that follow from the device; what it cannot do is refused first."""
    asked = fields.get("precision", ())
    target = target_of(find_profile(str(fields["device"])), [asked] if isinstance(asked, str) else asked)
    implied = {
        "precision": [v for v in get_args(Variant) if v in ("fp32", target.precision)],
        "tensorrt": target.tensorrt is not None,
    }
    return {**implied, **fields, "device": target.device}


def build(
    spec: BuildSpec | dict[str, Any], out: str | os.PathLike[str], progress: Progress | None = None
) -> BuildReport:
    """Build a bundle from an ordinary clip network.

    Args:
        spec: a specification, or its fields.
        out: the bundle to write.
        progress: called with what is being done, before each stage.

    Raises:
        SpecError: the specification is not usable.
        ConversionError: the network cannot be made or converted.
        CheckFailed: a gate found the result to differ.
        WriteError: the bundle cannot be written.
    """
    say = progress or (lambda text: None)
    fields = msgspec.to_builtins(spec) if isinstance(spec, BuildSpec) else spec
    spec, factory = resolve(fields)
    labels = read_labels(spec.labels)
    check_target(out)
    plan_of(spec)  # what cannot be calibrated is refused first
    made = make(spec, factory, say)
    labels = labels or made.labels
    work = _Work(spec, made.net, spec.name or str(getattr(factory, "__name__", "network")))
    say("tracing the network")
    for stage in ("fold", "step"):
        made.journey.enter(stage)
    work.derive()
    say("exporting")
    exported = export_onnx(work.graph, work.frame)
    if labels is not None:
        check_labels(labels, outputs_of(work.graph))
    say("comparing the step network with the clip network")
    step_difference = work.compare()
    say("answering the golden frames")
    frames, answers = work.golden()
    macs = sum(layer.macs for layer in work.clip_layers)
    manifest = manifest_of(
        work.name, spec, work.graph, work.preprocessing, labels, work.parameters(), macs, _provenance(spec)
    )
    if spec.device is not None:
        check_fits(find_profile(spec.device), manifest)
    engine_difference = engine_gate(exported, manifest, frames, answers)
    report = work.report(str(out), manifest, step_difference, engine_difference)
    report.weights, report.pruning = made.weights, made.pruning
    if spec.calibrate:
        made.journey.enter("calibrate")
    ranges, forms = precision_stage(exported, manifest, spec, frames, ENGINE_TOLERANCE, say)
    report.calibration = None if ranges is None else summarize(ranges).to_json()
    report.drifts.update({form.name: form.drift for form in forms})
    report.forms.update({form.name: form.told for form in forms if form.told})
    manifest = msgspec.structs.replace(manifest, preferred=preferred(forms))
    say("writing the bundle")
    made.journey.enter("export")
    manifest, members = members_of(manifest, exported, frames, answers, report.to_json(), ENGINE_TOLERANCE, forms)
    write_bundle(out, manifest, members if ranges is None else members | {RANGES: ranges.to_json()})
    return report


class _Work:
    """A network on its way through the build."""

    def __init__(self, spec: BuildSpec, net: nn.Module, name: str) -> None:
        assert spec.clip is not None
        self.spec, self.net, self.name = spec, net, name
        self.clip_shape = spec.clip
        self.image = (spec.input or _guess_input(spec)) == "image"
        if self.image and (len(spec.clip) != 4 or spec.time_dim != 2 or spec.clip[0] not in (1, 3)):
            raise SpecError(
                f"An image network takes clips (1 or 3 channels, frames, height, width); this one takes {spec.clip}."
            )
        if self.image and spec.colour is not None and (spec.colour == "gray") != (spec.clip[0] == 1):
            raise SpecError(
                f"colour {spec.colour!r} does not fit clips of {spec.clip[0]} channels: gray has 1, rgb and bgr have 3."
            )
        pictured = [name for name in _PICTURED if getattr(spec, name) is not None]
        if not self.image and pictured:
            raise SpecError(
                f"{pictured[0]} says how pictures are prepared, but the input is given as an array; leave one out."
            )
        self.mean = spec.mean or (0.0,)
        self.std = spec.std or (1.0,)
        self.frame: FrameInput | None = None
        self.preprocessing: Preprocessing | None = None

    def derive(self) -> None:
        """Trace, fold, widen, and derive the step graph."""
        clip = trace_network(self.net, torch.zeros(1, *self.clip_shape), self.spec.time_dim)
        self.folded = fold_norms(clip)
        self.clip_layers = layer_costs(clip.graph, clip.batch)  # of the user's network, not of the merged and widened
        self.merged = merge_graph_convolutions(clip)
        self.folded += fold_norms(clip)
        self.widened = widen_depthwise(clip)
        if self.image:
            colour = self.spec.colour or ("gray" if self.clip_shape[0] == 1 else "rgb")
            self.frame = fold_frame(clip, self.mean, self.std, colour)
            self.preprocessing = Preprocessing(
                size=(self.clip_shape[2], self.clip_shape[3]),
                colour=self.frame.colour,  # type: ignore[arg-type]
                resize=self.spec.resize or "crop",
                interpolation=self.spec.interpolation or "linear",
                roi=self.spec.roi,
                mean=tuple(self.mean),
                std=tuple(self.std),
            )
        exact, window = exact_mode(self.spec.exact), self.spec.window
        finish = gate if self.spec.gated else (lambda graph: graph)
        self.plain: StepGraph = finish(convert_graph(clip, exact=exact))
        self.graph = finish(convert_graph(clip, window=window, exact=exact)) if window else self.plain
        self.program = StepProgram(self.net, self.graph, self.spec.start)

    def compare(self) -> float:
        """The step network, at the network's own window, against the clip network: relative, or CheckFailed."""
        program = StepProgram(self.net, self.plain)
        make = self._pixels if self.image else self._numbers
        comparison = Comparison(
            self.net, program, self.spec.time_dim, self.clip_shape, make, self._normalised, self._entering
        )
        return comparison.difference()

    def _pixels(self, shape: list[int]) -> Tensor:
        return torch.randint(0, 256, shape, generator=self._generator()).float()

    def _numbers(self, shape: list[int]) -> Tensor:
        return torch.randn(shape, generator=self._generator())

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.spec.seed)

    def _normalised(self, raw: Tensor) -> Tensor:
        """What the clip network takes for pixels 0 … 255 in its own colour order."""
        if not self.image:
            return raw
        column = (-1, 1, 1, 1)
        return (raw / 255 - torch.tensor(self.mean).reshape(column)) / torch.tensor(self.std).reshape(column)

    def _entering(self, raw: Tensor) -> Tensor:
        """What the step graph takes for the same pixels, after its own subtraction of the mean."""
        if self.frame is None:
            return raw
        flipped = raw.flip(1) if self.frame.colour != (self.spec.colour or "rgb") and raw.shape[1] == 3 else raw
        return flipped - torch.tensor(self.frame.mean).reshape(-1, 1, 1, 1)

    def golden(self) -> tuple[np.ndarray[Any, Any], dict[str, np.ndarray[Any, Any]]]:
        """Frames as the graph takes them and the torch runner's answers, from reset."""
        steps = self.graph_valid_from + self.spec.golden
        distinct = min(steps, DISTINCT_FRAMES)
        frames = _golden_frames(self.spec.seed, distinct, self._frame_shape(), self.image)
        state = self.program.begin([self._frame_entering(frames[0])])
        answers: dict[str, list[Tensor | None]] = {a.name: [] for a in self.graph.answers}
        with torch.no_grad():
            for i in range(steps):
                made, state = self.program.step([self._frame_entering(frames[i % distinct])], state)
                for answer, value in zip(self.graph.answers, made, strict=True):
                    answers[answer.name].append(None if value is None else value[0])
        return frames, {name: _standing(values) for name, values in answers.items()}

    def _frame_entering(self, frame: np.ndarray[Any, Any]) -> Tensor:
        """What the step graph takes for a golden frame, after its own subtraction of the mean."""
        entering = torch.from_numpy(frame).float()
        if self.frame is not None:
            entering = entering.permute(2, 0, 1) - torch.tensor(self.frame.mean).reshape(-1, 1, 1)
        return entering[None]

    @property
    def graph_valid_from(self) -> int:
        return max(a.timeline.starts_at for a in self.graph.answers)

    def _frame_shape(self) -> tuple[int, ...]:
        rest = [n for i, n in enumerate(self.clip_shape, start=1) if i != self.spec.time_dim]
        return (*rest[1:], rest[0]) if self.image else tuple(rest)

    def parameters(self) -> int:
        """Trainable numbers of the network."""
        return sum(p.numel() for p in self.net.parameters())

    def report(self, path: str, manifest: Manifest, step: float, engine: float) -> BuildReport:
        """The build report."""
        return BuildReport(
            name=self.name,
            path=os.path.basename(path),
            exactness=self.program.exactness,
            pinned=self.graph.clip.pinned,
            step_difference=step,
            engine_difference=engine,
            folded_norms=self.folded,
            merged_graph_convolutions=self.merged,
            widened_depthwise=self.widened,
            receptive_field=self.program.receptive_field,
            delay=self.program.delay,
            valid_from=self.program.valid_from,
            clip_macs=manifest.costs.clip_macs,
            step_macs=manifest.costs.step_macs,
            parameters=manifest.costs.parameters,
            lines=[{**asdict(note), "where": _short(note.where)} for note in self.graph.report],
            clip_layers=[{**asdict(c), "where": _short(c.where)} for c in self.clip_layers],
            step_layers=step_layers(self.graph),
            target=manifest.provenance.get("target"),
        )


def _short(where: str) -> str:
    """A source line without the folders of the machine that built the bundle."""
    path, separator, rest = where.partition(":")
    return os.path.basename(path) + separator + rest if os.sep in path else where


_PICTURED = ("mean", "std", "colour", "resize", "interpolation", "roi")
"""Fields that only an image network has."""


def _guess_input(spec: BuildSpec) -> str:
    clip = spec.clip or ()
    pictured = any(getattr(spec, name) is not None for name in _PICTURED)
    return "image" if pictured or (len(clip) == 4 and clip[0] in (1, 3) and min(clip[2:]) >= 32) else "array"


def _golden_frames(seed: int, steps: int, shape: tuple[int, ...], image: bool) -> np.ndarray[Any, Any]:
    """Frames that change smoothly over space and at every step."""
    rng = np.random.default_rng(seed)
    if not image:
        return rng.standard_normal((steps, *shape)).astype(np.float32)
    coarse = rng.integers(0, 256, (steps, -(-shape[0] // 8), -(-shape[1] // 8), shape[2]))
    return coarse.repeat(8, 1).repeat(8, 2)[:, : shape[0], : shape[1]].astype(np.uint8)


def _standing(values: list[Tensor | None]) -> np.ndarray[Any, Any]:
    """Answers of every step, one that does not come at every step standing until the next."""
    shown = torch.zeros_like(next(value for value in values if value is not None))
    filled = []
    for value in values:
        shown = shown if value is None else value
        filled.append(shown.numpy())
    return np.stack(filled).astype(np.float32)


def _provenance(spec: BuildSpec) -> dict[str, Any]:
    import onnx

    fields = {k: v for k, v in msgspec.to_builtins(spec, enc_hook=repr).items() if v not in (None, {}, [])}
    for key in ("weights", "model", "labels", "plan", "pack"):
        if isinstance(fields.get(key), str):
            fields[key] = os.path.basename(fields[key])
    if "calibrate" in fields:
        fields["calibrate"] = [shown_source(source) for source in spec.calibrate]
    return {
        "edgeco": __version__,
        "torch": str(torch.__version__),
        "onnx": onnx.__version__,
        "python": platform.python_version(),
        "spec": fields,
        "schema": SCHEMA_VERSION,
        **({} if spec.device is None else {"target": msgspec.to_builtins(target_of(find_profile(spec.device)))}),
    }
