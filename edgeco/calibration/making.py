"""The forms that a calibration writes into a bundle, and what INT8 leaves in float for the sake of a budget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from edgeco.bundle import Bundle
from edgeco.bundle.ranges import Ranges
from edgeco.calibration.drift import LEAST_COSINE, Limits, drift_stream
from edgeco.calibration.forms import Prepared, Target, prepare, quantised_forms
from edgeco.calibration.half_drift import with_half_drift
from edgeco.calibration.half_range import blocked
from edgeco.calibration.names import check_inputs, check_names
from edgeco.calibration.recordings import Array, Recording
from edgeco.calibration.sensitivity import Sensitivity, sensitivities, within_budget
from edgeco.calibration.variants import frames_to_compare, kept_float, targets_for, targets_in
from edgeco.errors import CheckFailed, SpecError
from edgeco.export.exported import Exported
from edgeco.export.tensorrt_forms import HALF, Form, tensorrt_forms

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What to write beside the ranges.

    Args:
        precision: ``fp16``, for TensorRT, and ``int8``; INT8 forms that a bundle has are made again in any case.
        keep_float: names of layers, tensors and histories that INT8 leaves alone, besides those that the forms of the
            bundle leave alone already.
        forget_float: do not leave alone what the forms of the bundle do.
        budget: mean relative error of INT8 that is accepted; the layers that cost most are left in float until it is
            kept. None: none is.
        sensitivity: tell what each layer and history costs.
        least_cosine: what every answer of a form must have with FP32's.
    """

    precision: tuple[str, ...] = ()
    keep_float: tuple[str, ...] = ()
    budget: float | None = None
    sensitivity: bool = False
    forget_float: bool = False
    least_cosine: float = LEAST_COSINE


@dataclass(frozen=True)
class Made:
    """The forms to write, what of them was left in float to keep a budget, and what each layer costs if asked."""

    forms: tuple[Form, ...] = ()
    kept: tuple[str, ...] = ()
    sensitivities: tuple[Sensitivity, ...] = ()


def check_wanted(bundle: Bundle, exported: Exported, wanted: Wanted, alone: bool = False) -> None:
    """Say what cannot be wanted of a bundle before the minutes that a calibration takes.

    Args:
        bundle: what is to be calibrated.
        exported: its FP32 graphs.
        wanted: which forms.
        alone: whether ranges are written and no forms.

    Raises:
        SpecError: a budget that is none, a name of nothing, or a wish for INT8 where nothing is made in INT8.
        CalibrationError: INT8 of a network that it is not made for.
    """
    if wanted.budget is not None and not 0 < wanted.budget < 1:
        raise SpecError(f"The budget is {wanted.budget}; give a mean relative error above 0 and below 1, as 0.01.")
    if alone:
        if wanted != Wanted():
            raise SpecError("A .json file holds ranges and no form of a network; write to a bundle, or ask for none.")
        return
    if _targets(bundle, wanted):
        check_inputs(bundle.manifest)
        check_names(exported, bundle.manifest, wanted.keep_float)
    elif wanted.budget is not None or wanted.sensitivity or wanted.keep_float or wanted.forget_float:
        raise SpecError("A budget, what layers cost and what stays in float are of INT8; add --precision int8.")


def _targets(bundle: Bundle, wanted: Wanted) -> tuple[Target, ...]:
    """What INT8 is made for: what is asked for, else what a bundle has it for already."""
    if "int8" not in wanted.precision:
        return targets_in(bundle)
    trt = "fp16" in wanted.precision or any(name.startswith("trt") for name in bundle.manifest.variants)
    return targets_for(None, tensorrt=trt)


def make_forms(
    bundle: Bundle, exported: Exported, ranges: Ranges, recordings: Sequence[Recording], wanted: Wanted, say: Say
) -> Made:
    """The forms of a bundle's network that are asked for, made from its ranges.

    Args:
        bundle: what is calibrated.
        exported: its FP32 graphs.
        ranges: of these.
        recordings: what forms are compared on; the golden frames where there are none.
        wanted: which forms.
        say: told what is being done.

    Raises:
        ConversionError: an operator or a weight has no such form.
        CheckFailed: a form drifts further from FP32 than it may, or the budget cannot be kept.
    """
    manifest = bundle.manifest
    shown = bundle.golden()[0][manifest.inputs[0].name]
    golden = shown[: manifest.golden.frames]
    frames = frames_to_compare(manifest, recordings, golden)
    limits = Limits(cosine=wanted.least_cosine)
    forms: list[Form] = []
    if "fp16" in wanted.precision or _is_outdated(bundle, ranges):
        say("writing the forms for TensorRT")
        tolerance = manifest.variants["fp32"].tolerance
        forms += tensorrt_forms(exported, manifest, golden, tolerance, blocked(ranges))
        forms = with_half_drift(forms, exported, manifest, frames, limits)
    targets = _targets(bundle, wanted)
    if not targets:
        return Made(tuple(forms))
    before = () if wanted.forget_float else kept_float(bundle)
    keep = tuple(dict.fromkeys((*before, *wanted.keep_float)))
    kept, told = _chosen(prepare(exported, manifest, ranges, frames), frames, targets[0], wanted, keep, say)
    forms += quantised_forms(
        exported,
        manifest,
        ranges,
        frames,
        targets=targets,
        keep_float=(*keep, *kept),
        limits=limits,
        golden=shown,
        say=say,
    )
    return Made(tuple(forms), kept, told)


def _is_outdated(bundle: Bundle, ranges: Ranges) -> bool:
    """Whether a bundle has FP16 forms that keep other tensors in FP32 than new ranges ask for."""
    before = bundle.ranges()
    known = frozenset[str]() if before is None else blocked(before)
    return HALF in bundle.manifest.variants and blocked(ranges) != known


def _chosen(
    prepared: Prepared, frames: Array, target: Target, wanted: Wanted, keep: Collection[str], say: Say
) -> tuple[tuple[str, ...], tuple[Sensitivity, ...]]:
    """What to leave in float to keep the budget, and what each layer costs if that is asked."""
    if wanted.budget is None and not wanted.sensitivity:
        return (), ()
    stream = drift_stream(frames, prepared.manifest)

    def tell(done: int, names: int, name: str) -> None:
        say(f"{name} in float, {done + 1} of {names}")

    told: tuple[Sensitivity, ...] = ()
    if wanted.sensitivity:
        told = tuple(sensitivities(prepared, target, stream, keep, tell))
    if wanted.budget is None:
        return (), told
    choice = within_budget(prepared, target, stream, wanted.budget, keep, tell)
    if not choice.within:
        raise CheckFailed(
            f"INT8 errs by {choice.error:.2g} with all that helps left in float, and the budget is {wanted.budget:g}; "
            "calibrate on more recordings or with another method, or accept more."
        )
    return choice.keep_float, told
