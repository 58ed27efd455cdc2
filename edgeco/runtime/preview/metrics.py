"""The figures of a run in the text format of Prometheus 0.0.4. What is not known has no line; it is never 0."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from edgeco.devices.telemetry import Reading
from edgeco.runtime.pipeline import PipelineStatus
from edgeco.runtime.preview.facts import WORDS, state_of

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[str, Mapping[str, str], float | None]
"""Suffix of the name, labels, value."""


def exposition(status: PipelineStatus | None, reading: Reading | None) -> str:
    """All metrics, as the body of an answer."""
    now = state_of(status)
    states = [("", {"state": state}, float(state == now)) for state in WORDS]
    lines = list(_metric("edgeco_state", "gauge", "1 for the state of the run, 0 for the others.", states))
    if status is not None:
        lines += _run(status)
    if reading is not None:
        lines += _device(reading)
    return "\n".join(lines) + "\n"


def _run(status: PipelineStatus) -> Iterable[str]:
    counts = (
        ("frames", "Frames delivered."),
        ("stepped", "Frames that the network was stepped with."),
        ("valid", "Frames with a valid answer."),
        ("gaps", "Frames that the source knows to be missing."),
    )
    for name, text in counts:
        yield from _metric(f"edgeco_{name}_total", "counter", text, [("", {}, getattr(status, name))])
    drops = [("", {"cause": cause}, float(count)) for cause, count in status.drops.items()]
    drops += [("", {"cause": f"sink {name}"}, float(sink.dropped)) for name, sink in status.sinks.items()]
    yield from _metric("edgeco_drops_total", "counter", "Frames dropped, by cause.", drops)
    decisions = [("", {"decision": name}, float(count)) for name, count in status.pacer.items()]
    yield from _metric("edgeco_pacer_total", "counter", "Decisions of the pacer.", decisions)
    stages: list[Sample] = []
    for name, stage in status.stages.items():
        for quantile, value in (("0.5", stage.p50), ("0.9", stage.p90), ("0.99", stage.p99), ("1", stage.max)):
            stages.append(("", {"stage": name, "quantile": quantile}, value))
        stages.append(("_sum", {"stage": name}, stage.mean * stage.count))
        stages.append(("_count", {"stage": name}, float(stage.count)))
    yield from _metric("edgeco_stage_seconds", "summary", "Time in each stage, over the whole run.", stages)
    age = "Age of the last answer: time since its frame was captured."
    yield from _metric("edgeco_answer_age_seconds", "gauge", age, [("", {}, status.age)])
    yield from _metric("edgeco_answers_per_second", "gauge", "Over the last seconds.", [("", {}, status.fps)])
    if status.source is not None:
        lost: list[Sample] = [("", {}, float(status.source.reconnects))]
        yield from _metric("edgeco_source_reconnects_total", "counter", "How often the source came back.", lost)
    best = [("", {"label": score.label}, score.score) for score in status.top[:1]]
    yield from _metric("edgeco_top_score", "gauge", "Score of the best class of the last valid answer.", best)


def _device(reading: Reading) -> Iterable[str]:
    power = [("", {"sensor": name}, watts) for name, watts in reading.power.items()]
    yield from _metric("edgeco_power_watts", "gauge", "Power by sensor.", power)
    zones = [("", {"zone": name}, degrees) for name, degrees in reading.temperatures.items()]
    yield from _metric("edgeco_temperature_celsius", "gauge", "Temperature by zone.", zones)
    clocks = [("", {"clock": name}, clock.now) for name, clock in reading.clocks.items()]
    yield from _metric("edgeco_clock_hertz", "gauge", "Clock by what it drives.", clocks)
    events = [("", {"cause": name}, float(count)) for name, count in reading.events.items()]
    yield from _metric("edgeco_throttle_events_total", "counter", "Throttling since the system started.", events)
    causes = [("", {"cause": name}, 1.0) for name in reading.throttled]
    yield from _metric("edgeco_throttled", "gauge", "1 for each cause that throttles now.", causes)


def _metric(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Iterable[str]:
    """The lines of one metric; none at all where no value is known."""
    known = [(suffix, labels, value) for suffix, labels, value in samples if value is not None]
    if not known:
        return
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for suffix, labels, value in known:
        inner = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        yield f"{name}{suffix}{{{inner}}} {_number(value)}" if inner else f"{name}{suffix} {_number(value)}"


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return f"{value:.10g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
