"""How fast a bundle runs on this device: whole steps and the engine alone, measured side by side."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from edgeco.bundle import Bundle, open_bundle
from edgeco.devices.telemetry import Telemetry, TelemetryReport, idle_power, not_measured, open_telemetry
from edgeco.engines.protocol import NO_GRAPHS, Deferred, Timing
from edgeco.engines.selection import Options
from edgeco.engines.session import Session
from edgeco.errors import SpecError
from edgeco.runtime.model import Model, load_bundle
from edgeco.runtime.stream import Stream
from edgeco.runtime.timing import Summary, now

WARM_UP = 32
HOST_BOUND = 0.8
"""Of the GPU's time for a step: where handing it over takes the processor longer than that, the GPU waits for it."""
Frames = dict[str, np.ndarray[Any, Any]] | np.ndarray[Any, Any]


@dataclass(frozen=True)
class BenchReport:
    """Times in seconds, sizes in bytes, ``step_macs`` in multiply-accumulates per stream.

    ``step`` is a whole ``Stream.step`` with an array in hand (copy in, run, copies of the histories, copy out); ``run``
    is the engine alone over the same kind of buffers, until its work is done. ``overhead`` is the median of the
    differences of neighbours. On a GPU ``queued`` is the processor's time until a run had been handed over, ``device``
    the GPU's own for it, ``plain`` why each step is queued piece by piece (None: it is recorded in CUDA graphs).
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
    queued: Summary | None = None
    device: Summary | None = None
    plain: str | None = None

    @property
    def advice(self) -> str | None:
        """What to do where the processor is slower at handing work over than the GPU at doing it; None elsewhere."""
        if self.queued is None or self.device is None or self.queued.p50 <= HOST_BOUND * self.device.p50:
            return None
        found = (
            f"the processor takes {1e6 * self.queued.p50:.0f} µs to hand a step over that the GPU does in "
            f"{1e6 * self.device.p50:.0f}"
        )
        if self.plain is None:
            return f"{found}; step several streams together (--rows)"
        if self.plain == NO_GRAPHS:
            return f"{found}, for {self.plain}; with them a step is one call: pip install cuda-bindings"
        return f"{found}, for no CUDA graph could be recorded: {self.plain}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "advice": self.advice}


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
        try:
            plain = alone.engine.plain if isinstance(alone.engine, Deferred) else None
            for _ in range(warm_up):
                frame = next(frames)
                stream.step(frame)
                _alone(alone, frame)
            whole, raw = np.empty(steps), list[Timing]()
            for index in range(steps):
                frame = next(frames)
                start = now()
                stream.step(frame)
                whole[index] = (now() - start) * 1e-9
                # The same step of another session: what Stream adds shows as a difference under the same load.
                raw.append(_alone(alone, frame))
            drawn = _energy(stream, frames, rows, energy, telemetry)
            state_bytes = alone.nbytes
        finally:
            alone.close()
    return _report(model, opened, rows, load, first_step, whole, raw, state_bytes, drawn, plain)


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
    raw: Sequence[Timing],
    state_bytes: int,
    telemetry: TelemetryReport,
    plain: str | None,
) -> BenchReport:
    macs = model.manifest.costs.step_macs
    step = _summary(whole)
    queued, done, device = np.array(raw).T
    on_device = not np.isnan(device).any()
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
        run=_summary(done),
        overhead=float(np.median(whole - done)),
        step_macs=macs,
        macs_per_second=macs * rows / step.p50,
        state_bytes=state_bytes,
        peak_rss=peak_rss(),
        telemetry=telemetry,
        queued=_summary(queued) if on_device else None,
        device=_summary(device) if on_device else None,
        plain=plain,
    )


def _alone(session: Session, frame: Frames) -> Timing:
    """One step of a session, of which the engine's part is timed; ``device`` is NaN where that is the processor."""
    for name, buffer in session.inputs.items():
        session.engine.memory.write(buffer, frame[name] if isinstance(frame, dict) else frame)
    engine, given = session.engine, session.due()
    if isinstance(engine, Deferred):
        timing = engine.timed(*given)
    else:
        start = now()
        engine.run(*given)
        taken = (now() - start) * 1e-9
        timing = Timing(taken, taken, math.nan)
    session.advance()
    return timing


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
