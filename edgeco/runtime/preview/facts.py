"""What the page is told of a run, as plain data."""

from __future__ import annotations

import math
from typing import Any, Protocol

from edgeco.devices.telemetry import Reading
from edgeco.runtime.pipeline import PipelineStatus, State
from edgeco.runtime.sources.status import SourceStatus
from edgeco.runtime.sources.status import State as SourceState


class Watched(Protocol):
    """What the preview needs of a pipeline."""

    def status(self) -> PipelineStatus: ...

    def request_reset(self) -> None: ...


WORDS = {
    "starting": "starting",
    "opening": "opening the source",
    "waiting": "waiting for frames",
    "warm-up": "warming up",
    "running": "running",
    "stalled": "no frames",
    "reconnecting": "reconnecting",
    "stopping": "stopping",
    "ended": "ended",
    "failed": "failed",
}
"""States of the page, and how it says them."""

_OF_SOURCE = {
    SourceState.OPENING: "opening",
    SourceState.STALLED: "stalled",
    SourceState.RECONNECTING: "reconnecting",
}


def state_of(status: PipelineStatus | None) -> str:
    """One word for the whole run, a key of ``WORDS``: what holds it up comes first."""
    if status is None or status.state is State.NEW:
        return "starting"
    if status.state is not State.RUNNING:
        return {State.STOPPING: "stopping", State.ENDED: "ended", State.FAILED: "failed"}[status.state]
    if status.source is not None and status.source.state in _OF_SOURCE:
        return _OF_SOURCE[status.source.state]
    if not status.stepped:
        return "waiting"
    return "running" if status.is_warm else "warm-up"


def status_facts(status: PipelineStatus | None, reading: Reading | None, *, over: bool = False) -> dict[str, Any]:
    """A snapshot for the page; times in seconds. ``over``: the pipeline is letting go of its sinks."""
    state = state_of(status)
    if over:  # the pipeline itself says so only after its sinks are closed
        state = "failed" if status is not None and status.error is not None else "ended"
    facts: dict[str, Any] = {"state": state, "words": WORDS[state]}
    if reading is not None:
        facts["telemetry"] = _telemetry(reading)
    if status is None:
        return facts
    return {
        **facts,
        "detail": status.error or (status.source.detail if status.source is not None else ""),
        "counts": {name: getattr(status, name) for name in ("frames", "stepped", "valid", "warm", "gaps")},
        "drops": _drops(status),
        "pacer": dict(status.pacer),
        "stages": {
            name: {key: finite(getattr(stage, key)) for key in ("p50", "p90", "p99", "max")}
            for name, stage in status.stages.items()
        },
        "top": [{"index": s.index, "label": s.label, "score": finite(s.score)} for s in status.top],
        "valid": status.is_valid,
        "age": finite(status.age),
        "fps": finite(status.fps),
        "jitter": finite(status.jitter),
        "seconds": finite(status.seconds),
        "source": _source(status.source),
    }


def _drops(status: PipelineStatus) -> dict[str, int]:
    """By cause; a slow sink's are its own."""
    drops = {cause: count for cause, count in status.drops.items() if count}
    return drops | {f"sink {name}": sink.dropped for name, sink in status.sinks.items() if sink.dropped}


def _source(source: SourceStatus | None) -> dict[str, Any] | None:
    if source is None:
        return None
    return {
        "uri": source.uri,
        "state": source.state.value,
        "size": source.size,
        "fps": finite(source.measured_fps if source.measured_fps is not None else source.fps),
        "reconnects": source.reconnects,
        "backend": source.backend,
    }


def _telemetry(reading: Reading) -> dict[str, Any]:
    hottest = max(reading.temperatures.values(), default=None)
    clock = reading.clocks.get("gpu")
    return {
        "power": {name: round(watts, 2) for name, watts in reading.power.items()},
        "no_power": reading.unavailable.get("power"),
        "hottest": hottest,
        "gpu_clock": clock.now if clock is not None else None,
        "gpu_load": clock.load if clock is not None else None,
        "throttled": list(reading.throttled),
    }


def finite(value: float | None) -> float | None:
    """JSON has no NaN and no infinity."""
    return None if value is None or not math.isfinite(value) else value
