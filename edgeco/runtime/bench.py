"""How fast a bundle runs on this device: whole steps and the engine alone, measured side by side."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from edgeco.bundle import Bundle, open_bundle
from edgeco.devices.telemetry import Telemetry, TelemetryReport, idle_power, not_measured, open_telemetry
from edgeco.engines.selection import Options
from edgeco.engines.session import Session
from edgeco.errors import SpecError
from edgeco.runtime.model import Model, load_bundle
from edgeco.runtime.stream import Stream
from edgeco.runtime.timing import Summary, now

WARM_UP = 32
Frames = dict[str, np.ndarray[Any, Any]] | np.ndarray[Any, Any]


@dataclass(frozen=True)
class BenchReport:
    """Times in seconds, sizes in bytes, ``step_macs`` in multiply-accumulates per stream.

    ``step`` is a whole ``Stream.step`` with an array in hand (copy in, run, copies of the histories, copy out); ``run``
    is the engine alone over the same kind of buffers. ``overhead`` is the median of the differences of neighbours.
    ``telemetry`` is of whole steps alone, done over and over after the timing, a frame of it being one of one stream.
    """

    bundle: str
    engine: str
    variant: str
    threads: int
    rows: int
    steps: int
    load: float
    first_step: float
    step: Summary
    run: Summary
    overhead: float
    step_macs: int
    macs_per_second: float
    state_bytes: int
    peak_rss: int | None
    telemetry: TelemetryReport

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def bench(
    bundle: Bundle | str | os.PathLike[str],
    *,
    engine: str = "auto",
    threads: int | None = None,
    variant: str | None = None,
    precision: Literal["fp32", "fp16", "int8"] | None = None,
    rows: int = 1,
    steps: int = 200,
    warm_up: int = WARM_UP,
    energy: float = 0.0,
    telemetry: Telemetry | None = None,
    say: Callable[[str], None] | None = None,
) -> BenchReport:
    """Load a bundle and time it on its own golden frames.

    Args:
        bundle: an open bundle, or a path.
        engine: name of an engine, or "auto".
        threads: processor threads; None as for ``load``.
        variant: numeric form; None for the best for the engine.
        precision: of the numbers inside; None for what the bundle prefers on a processor, the faster of FP32 and INT8
            when they were timed, and for FP16 of TensorRT where the bundle has it.
        rows: streams in lock-step.
        steps: steps that are timed, after ``warm_up`` that are not.
        warm_up: steps before, enough to fill caches and to reach the processor's steady clock.
        energy: seconds of steps that power is measured over, after as many idle ones up to two; 0 for no measurement.
        telemetry: the device's sensors; opened here if None.
        say: called with what takes long.

    Raises:
        SpecError: ``rows`` or ``steps`` below 1, ``warm_up`` below 0, or no such variant.
        BundleError: the bundle is damaged or foreign.
        EngineError: the engine is missing or refuses the graph.
    """
    if steps < 1 or warm_up < 0 or energy < 0:
        raise SpecError(f"bench needs at least 1 step and no negative warm-up, not {steps} and {warm_up}")
    start = now()
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    options = Options(precision=precision)
    model = load_bundle(opened, engine=engine, threads=threads, variant=variant, options=options, say=say)
    load = (now() - start) * 1e-9
    frames = _frames(opened, rows)
    with model.stream(rows) as stream:
        start = now()
        stream.step(next(frames))
        first_step = (now() - start) * 1e-9
        alone = Session(model.engine, model.manifest, rows)
        for _ in range(warm_up):
            frame = next(frames)
            stream.step(frame)
            _write(alone, frame)
            alone.run()
        whole, raw = np.empty(steps), np.empty(steps)
        for index in range(steps):
            frame = next(frames)
            start = now()
            stream.step(frame)
            middle = now()
            # The same step of another session: what Stream adds shows as a difference under the same load.
            _write(alone, frame)
            binding = alone.binding()
            before = now()
            alone.engine.run(binding)
            raw[index] = now() - before
            whole[index] = middle - start
            alone.advance()
        drawn = _energy(stream, frames, rows, energy, telemetry)
    return _report(model, opened, rows, load, first_step, whole * 1e-9, raw * 1e-9, alone.nbytes, drawn)


_IDLE = 2.0
"""Seconds: the longest that idle power is measured."""
_SETTLE = 0.2
"""Seconds after the last step until threads that wait for work sleep."""


def _energy(
    stream: Stream, frames: Iterator[Frames], rows: int, seconds: float, telemetry: Telemetry | None
) -> TelemetryReport:
    """What the device's sensors say while whole steps are done for so long."""
    if seconds <= 0:
        return not_measured("it was not asked for")
    with telemetry or open_telemetry() as sensors:
        if sensors.sensors:
            time.sleep(_SETTLE)
        idle = idle_power(sensors, min(seconds, _IDLE))
        done = 0
        with sensors.meter() as meter:
            # Without a sensor of power one look at temperatures and clocks under load is all there is to have.
            end = now() + int((seconds if sensors.sensors else min(seconds, _SETTLE)) * 1e9)
            while not done or now() < end:
                stream.step(next(frames))
                done += rows
        return meter.report(done, idle)


def _report(
    model: Model,
    bundle: Bundle,
    rows: int,
    load: float,
    first_step: float,
    whole: np.ndarray[Any, Any],
    raw: np.ndarray[Any, Any],
    state_bytes: int,
    telemetry: TelemetryReport,
) -> BenchReport:
    macs = model.manifest.costs.step_macs
    step = _summary(whole)
    return BenchReport(
        bundle=str(bundle.path),
        engine=model.engine.name,
        variant=model.variant,
        threads=model.engine.threads,
        rows=rows,
        steps=len(whole),
        load=load,
        first_step=first_step,
        step=step,
        run=_summary(raw),
        overhead=float(np.median(whole - raw)),
        step_macs=macs,
        macs_per_second=macs * rows / step.p50,
        state_bytes=state_bytes,
        peak_rss=peak_rss(),
        telemetry=telemetry,
    )


def _write(session: Session, frame: Frames) -> None:
    for name, buffer in session.inputs.items():
        session.engine.memory.write(buffer, frame[name] if isinstance(frame, dict) else frame)


def _summary(samples: np.ndarray[Any, Any]) -> Summary:
    p50, p90, p99 = np.percentile(samples, [50, 90, 99])
    return Summary(len(samples), float(samples.mean()), float(p50), float(p90), float(p99), float(samples.max()))


def _frames(bundle: Bundle, rows: int) -> Iterator[Frames]:
    """The golden frames over and over; rows get them one step apart, so that no two are alike."""
    frames, _ = bundle.golden()
    steps = bundle.manifest.golden.steps
    index = 0
    while True:
        chosen: Any = index % steps if rows == 1 else [(index + row) % steps for row in range(rows)]
        picked = {name: array[chosen] for name, array in frames.items()}
        yield picked if len(picked) > 1 else next(iter(picked.values()))
        index += 1


def peak_rss() -> int | None:
    """Greatest resident memory of this process so far, None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
