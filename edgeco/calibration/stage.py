"""The stage of a build that calibrates: between the gates of the FP32 graphs and the forms made from them."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from edgeco.bundle.manifest import Manifest
from edgeco.bundle.ranges import Ranges
from edgeco.calibration.calibrating import Plan, Watch, find_ranges
from edgeco.calibration.rollout import Progress
from edgeco.errors import SpecError
from edgeco.export.exported import Exported
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


def calibrate_build(exported: Exported, manifest: Manifest, plan: Plan, say: Callable[[str], None]) -> Ranges:
    """Ranges of the graphs that a build has just exported.

    Args:
        exported: the FP32 graphs.
        manifest: what describes them.
        plan: what to calibrate on.
        say: told every few seconds how far it is.

    Raises:
        SourceError, DataError, FrameError: a recording is not usable.
        CalibrationError: no frames; a tensor that is NaN or infinite; streams too short.
    """
    say("calibrating")
    last = [monotonic()]

    def tell(done: Progress) -> None:
        if monotonic() - last[0] >= _APART:
            last[0] = monotonic()
            say(f"calibrating: {done.frames} frames, stream {done.stream + 1} of {done.streams}")

    return find_ranges(exported, manifest, plan, Watch(tell))
