"""Calibration from what a user names to what a bundle keeps.

A bundle always holds the FP32 graphs, so it can be calibrated again without the network that it was built from.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgeco.bundle import open_bundle
from edgeco.bundle.manifest import Manifest
from edgeco.bundle.ranges import Method, Ranges
from edgeco.calibration.checkpoint import Checkpoint
from edgeco.calibration.half_range import HalfRange, half_range
from edgeco.calibration.making import Made, Wanted, check_wanted, make_forms
from edgeco.calibration.methods import METHOD, PERCENTILE
from edgeco.calibration.ranges import check_ranges, save_ranges
from edgeco.calibration.recordings import Recording
from edgeco.calibration.rollout import CalibrationStopped, Progress, observe
from edgeco.calibration.sources import Reading, open_recordings
from edgeco.calibration.variants import rewritten
from edgeco.export.exported import Exported, exported_of
from edgeco.files import check_target
from edgeco.runtime.pre import Prepare

KEPT = ".calibrating"
"""What is added to the result's name for the file from which an interrupted calibration goes on."""


@dataclass(frozen=True)
class Plan:
    """What to calibrate on, and how.

    Args:
        sources: paths and URIs; ``edgeco.calibration.sources`` says which.
        method: how INT8's range is chosen: ``max``, ``entropy``, ``percentile`` or ``mse``.
        percentile: share of magnitudes that the method of that name keeps, in percent.
        streams: at most so many recordings, of every class in proportion; None: all.
        frames, seconds: of each at most so much; None: all of it, of a live source half a minute.
        reset: frames after which the device resets a stream; None: never.
        fps: rate the network is held to; None: the bundle's; 0: every frame.
        seed: of the choice of recordings.
        pre: makes of a frame what the network takes; the bundle's preprocessing unless given.
        shape: (frames, *frame) of the case in each line of a .csv file, after its class; None where a line is a frame.
        threads: processor threads; None for the physical cores.
    """

    sources: tuple[str, ...]
    method: Method = METHOD
    percentile: float = PERCENTILE
    streams: int | None = None
    frames: int | None = None
    seconds: float | None = None
    reset: int | None = None
    fps: float | None = None
    seed: int = 0
    pre: Prepare | None = None
    shape: tuple[int, ...] | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Watch:
    """Who is told of progress, and asked whether to stop; and where an interrupted calibration is kept."""

    progress: Callable[[Progress], None] = lambda done: None
    say: Callable[[str], None] = lambda text: None
    stop: Callable[[], bool] = lambda: False
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True)
class Summary:
    """What a calibration found; kept in the build report.

    Attributes:
        percentile: share that the method of that name kept, in percent.
        dead: histories and tensors that were always 0.
        half: what FP16 cannot hold.
    """

    method: Method
    frames: int
    streams: int
    reset: int | None
    tensors: int
    histories: int
    percentile: float | None
    data: str
    sources: tuple[str, ...]
    dead: tuple[str, ...]
    half: HalfRange

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class CalibrationReport:
    """What ``calibrate_bundle`` did: what it wrote, what it found in how many seconds, and the forms it made."""

    bundle: str
    written: str
    ranges: Ranges = field(repr=False)
    summary: Summary
    seconds: float
    made: Made = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the ranges themselves."""
        return {
            "bundle": self.bundle,
            "written": self.written,
            "seconds": self.seconds,
            "drifts": {form.name: form.drift for form in self.made.forms},
            "kept_float": self.made.kept,
            "sensitivities": [one.to_json() for one in self.made.sensitivities],
            **self.summary.to_json(),
        }


def find_ranges(
    exported: Exported,
    manifest: Manifest,
    plan: Plan,
    watch: Watch | None = None,
    recordings: Sequence[Recording] | None = None,
) -> Ranges:
    """Ranges of an exported network, on the recordings of a plan.

    Args:
        exported: the FP32 graphs.
        manifest: what describes them.
        plan: what to calibrate on.
        watch: who is told and asked.
        recordings: those of the plan, where they are open already: a camera is opened once.

    Raises:
        SpecError: an option that is none.
        SourceError: a source cannot be opened, or a recording stops before its end.
        FrameError: a frame does not fit the network.
        CalibrationError: no frames; a tensor that is NaN or infinite; streams too short.
    """
    seen = watch or Watch()
    return observe(
        exported,
        manifest,
        recordings_of(manifest, plan, seen.stop) if recordings is None else recordings,
        method=plan.method,
        percentile=plan.percentile,
        reset=plan.reset,
        frames=plan.frames,
        threads=plan.threads,
        progress=seen.progress,
        checkpoint=seen.checkpoint,
        stop=seen.stop,
    )


def recordings_of(manifest: Manifest, plan: Plan, stop: Callable[[], bool] = lambda: False) -> list[Recording]:
    """The recordings of a plan, none of them read yet. Raises as ``find_ranges``."""
    reading = Reading(plan.fps, plan.seconds, plan.pre, stop, plan.shape)
    return open_recordings(plan.sources, manifest, reading, plan.streams, plan.seed)


def summarize(ranges: Ranges) -> Summary:
    """What is worth telling of ranges."""
    return Summary(
        method=ranges.method,
        frames=ranges.frames,
        streams=ranges.streams,
        reset=ranges.reset,
        tensors=len(ranges.tensors),
        histories=len(ranges.histories),
        percentile=ranges.percentile,
        data=ranges.data,
        sources=ranges.sources,
        dead=tuple(key for key, found in (ranges.histories | ranges.tensors).items() if found.dead),
        half=half_range(ranges),
    )


def calibrate_bundle(
    path: str | os.PathLike[str],
    plan: Plan | Ranges,
    out: str | os.PathLike[str] | None = None,
    watch: Watch | None = None,
    wanted: Wanted | None = None,
) -> CalibrationReport:
    """Calibrate a bundle, or give it ranges that were found before, and write it with them.

    INT8 forms that it has are made anew, since they rest on the ranges.

    Args:
        path: the bundle.
        plan: what to calibrate on; or ranges, which must be of this network with these weights.
        out: the bundle to write, or a ``.json`` file for the ranges alone; None: the bundle itself is replaced.
        watch: who is told and asked. Unless it says otherwise, an interrupted calibration is kept beside the result,
            and goes on when it is started again.
        wanted: forms to write besides.

    Raises:
        BundleError: the bundle is damaged.
        SpecError: what is wanted cannot be, or names what the network does not have.
        CalibrationError: the ranges are of another network, or none can be found; see ``find_ranges``.
        CalibrationStopped: interrupted on demand.
        CheckFailed: a form drifts further from FP32 than it may.
        WriteError: the result cannot be written; nothing is changed.
    """
    began = time.monotonic()
    bundle = open_bundle(path)
    exported = exported_of(bundle)
    target = Path(path if out is None else out)
    asked = wanted or Wanted()
    check_target(target)
    check_wanted(bundle, exported, asked, alone=target.suffix == ".json")
    seen = watch or Watch()
    recordings: list[Recording] = []
    if isinstance(plan, Ranges):
        ranges = plan
        check_ranges(ranges, exported, bundle.manifest)
    else:
        if seen.checkpoint is None:
            seen = replace(seen, checkpoint=Checkpoint(target.with_name(target.name + KEPT)))
        recordings = recordings_of(bundle.manifest, plan, seen.stop)
        ranges = find_ranges(exported, bundle.manifest, plan, seen, recordings)
    made = Made()
    if target.suffix == ".json":
        save_ranges(ranges, target)
    else:
        made = make_forms(bundle, exported, ranges, recordings, asked, _stoppable(seen))
        rewritten(bundle, ranges, summarize(ranges).to_json(), made.forms, target)
    if seen.checkpoint is not None:
        seen.checkpoint.remove()
    return CalibrationReport(str(path), str(target), ranges, summarize(ranges), time.monotonic() - began, made)


def _stoppable(watch: Watch) -> Callable[[str], None]:
    """Tells what is being done, unless it is to stop."""

    def say(text: str) -> None:
        if watch.stop():
            raise CalibrationStopped("Interrupted after the recordings; the same command goes on from there.")
        watch.say(text)

    return say
