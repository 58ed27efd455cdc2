"""The stage of a build that makes other precisions: between the gates of the FP32 graphs and the writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

import numpy as np

from edgeco.bundle.manifest import Manifest
from edgeco.bundle.ranges import Ranges
from edgeco.calibration.calibrating import Plan, Watch, find_ranges, recordings_of
from edgeco.calibration.drift import LEAST_COSINE, SHORTEST, Limits, to_and_fro
from edgeco.calibration.forms import Prepared, prepare, quantised_forms
from edgeco.calibration.half_drift import with_half_drift
from edgeco.calibration.half_range import blocked
from edgeco.calibration.names import check_inputs, check_names
from edgeco.calibration.recordings import Array, Recording
from edgeco.calibration.rollout import Progress
from edgeco.calibration.sensitivity import within_budget
from edgeco.calibration.variants import frames_to_compare, targets_for
from edgeco.devices.catalogue import find_profile
from edgeco.devices.target import target_of
from edgeco.errors import SpecError
from edgeco.export.exported import Exported
from edgeco.export.tensorrt_forms import Form, tensorrt_forms
from edgeco.spec import BuildSpec

_APART = 10.0
"""Seconds between two messages of progress."""


def plan_of(spec: BuildSpec) -> Plan | None:
    """What a specification says of calibration; None where it asks for none.

    Raises:
        SpecError: INT8 is asked for and nothing to calibrate on is named.
    """
    if not spec.calibrate:
        if "int8" in spec.precision:
            raise SpecError(
                "INT8 rests on what the network meets: name recordings to calibrate on with --calibrate, such as a "
                "video, a folder of them, or a camera."
            )
        return None
    return Plan(
        sources=spec.calibrate,
        method=spec.calibration_method,
        streams=spec.calibration_streams,
        frames=spec.calibration_frames,
        reset=spec.calibration_reset,
        seed=spec.seed,
    )


def precision_stage(
    exported: Exported, manifest: Manifest, spec: BuildSpec, frames: Array, tolerance: float, say: Callable[[str], None]
) -> tuple[Ranges | None, list[Form]]:
    """Ranges, where there is something to calibrate on, and the forms beside FP32 that a specification asks for.

    Args:
        exported: the FP32 graphs.
        manifest: what describes them.
        spec: what is to be built.
        frames: a few frames as the graph takes them.
        tolerance: of FP32 on a device.
        say: told what is being done.

    Raises:
        SourceError, DataError, FrameError: a recording is not usable.
        CalibrationError: no frames; a tensor that is NaN or infinite; streams too short.
        ConversionError: an operator or a weight has no such form.
        CheckFailed: a form gives other answers.
    """
    plan = plan_of(spec)
    if "int8" in spec.precision:
        check_inputs(manifest)
        check_names(exported, manifest, spec.keep_float)
    recordings = [] if plan is None else recordings_of(manifest, plan)
    ranges = None if plan is None else _calibrated(exported, manifest, plan, recordings, say)
    stream = frames if plan is None else frames_to_compare(manifest, recordings, frames)
    limits = Limits(cosine=LEAST_COSINE if spec.least_cosine is None else spec.least_cosine)
    forms: list[Form] = []
    if spec.tensorrt or "fp16" in spec.precision:
        say("writing the forms for TensorRT")
        beyond = frozenset[str]() if ranges is None else blocked(ranges)
        forms += tensorrt_forms(exported, manifest, frames, tolerance, beyond)
        if plan is not None:
            forms = with_half_drift(forms, exported, manifest, stream, limits)
    if plan is not None and ranges is not None and "int8" in spec.precision:
        typings = None if spec.device is None else target_of(find_profile(spec.device)).typings
        targets = targets_for(typings, tensorrt=bool(forms))
        keep = spec.keep_float
        if spec.float_budget is not None:
            prepared = prepare(exported, manifest, ranges, stream)
            keep += _chosen(prepared, stream, spec.float_budget, keep, say)
        golden = frames[np.arange(manifest.timeline.valid_from + spec.golden) % len(frames)]
        forms += quantised_forms(
            exported,
            manifest,
            ranges,
            stream,
            targets=targets,
            keep_float=keep,
            limits=limits,
            golden=golden,
            say=say,
        )
    return ranges, forms


def _chosen(
    prepared: Prepared, stream: Array, budget: float, keep: tuple[str, ...], say: Callable[[str], None]
) -> tuple[str, ...]:
    """What to keep in float so that the error of INT8 stays within a budget, by leaving out one layer at a time."""
    timeline = prepared.manifest.timeline
    steps = timeline.valid_from + max(timeline.receptive_field, SHORTEST)

    def tell(done: int, count: int, name: str) -> None:
        say(f"leaving {name} in float, {done + 1} of {count}")

    choice = within_budget(prepared, "cpu", to_and_fro(stream, steps), budget, keep, tell)
    if not choice.within:
        say(f"the error is {choice.error:.2g} with {len(choice.keep_float)} names in float, above {budget:g} still")
    return choice.keep_float


def _calibrated(
    exported: Exported, manifest: Manifest, plan: Plan, recordings: Sequence[Recording], say: Callable[[str], None]
) -> Ranges:
    say("calibrating")
    last = [monotonic()]

    def tell(done: Progress) -> None:
        if monotonic() - last[0] >= _APART:
            last[0] = monotonic()
            say(f"calibrating: {done.frames} frames, stream {done.stream + 1} of {done.streams}")

    return find_ranges(exported, manifest, plan, Watch(tell), recordings)
