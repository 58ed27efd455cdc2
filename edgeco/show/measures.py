"""Tables of runs, checks and measurements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from edgeco.show.console import bytes_text, count_text, facts, milliseconds, plain, table
from edgeco.show.telemetry import telemetry_facts

if TYPE_CHECKING:
    from edgeco.devices.telemetry import TelemetryReport
    from edgeco.engines.tensorrt.compilation import CompileReport
    from edgeco.runtime.bench import BenchReport
    from edgeco.runtime.figures import Summary
    from edgeco.runtime.frame import Frame
    from edgeco.runtime.result import Result
    from edgeco.runtime.verify import VerifyReport

ENDED = {
    "source": "at the end of the source",
    "frames": "after as many frames as asked",
    "stopped": "when it was stopped",
    "error": "with an error",
}


def latencies(stages: Mapping[str, Mapping[str, float]]) -> Table:
    """Percentiles per stage, in milliseconds."""
    made = table("Latency in ms", "stage", "p50", "p90", "p99", "max", "mean", "count", right=(1, 2, 3, 4, 5, 6))
    for name, stage in stages.items():
        figures = [milliseconds(stage[key]) for key in ("p50", "p90", "p99", "max", "mean")]
        made.add_row(plain(name), *figures, str(int(stage["count"])))
    return made


def show_run(summary: Summary, console: Console, why: str, telemetry: TelemetryReport | None = None) -> None:
    """Print what a run did, ``why`` it was this engine that did it, and what the device's sensors said."""
    values = {
        "engine": why,
        "frames": f"{summary.frames} decoded, {summary.stepped} stepped, {summary.gaps} missing",
        "answers": f"{summary.valid} valid, {summary.warm} warm",
        "pace": _pace(summary),
        "dropped": ", ".join(f"{count} {cause}" for cause, count in summary.drops.items() if count),
        "time": f"{summary.seconds:.2f} s, {summary.fps:.1f} frames per second, "
        f"answers {summary.answers_per_second:.1f} per second with a jitter of {milliseconds(summary.jitter)} ms",
        "ended": ENDED.get(summary.ended, summary.ended),
    }
    for name, sink in summary.sinks.items():
        if sink["dropped"] or sink["failed"]:
            values[name] = f"{sink['taken']} taken, {sink['dropped']} dropped, {sink['failed']} failed"
    if telemetry is not None:
        values |= telemetry_facts(telemetry)
    console.print(facts("Run", {name: value for name, value in values.items() if value}))
    console.print(latencies(summary.stages))


def _pace(summary: Summary) -> str:
    """What the pacer did besides stepping once; nothing if that was all."""
    texts = {"passed": "passed over", "repeats": "repeated", "missed": "missed", "resets": "resets"}
    told = [f"{summary.pacer[key]} {text}" for key, text in texts.items() if summary.pacer.get(key)]
    return ", ".join(told)


class Changes:
    """Prints the best class whenever it changes, with the time of the frame."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: str | None = None

    def __call__(self, frame: Frame, result: Result) -> None:
        if result.valid and (best := result.top(1)[0]).label != self._last:
            self._last = best.label
            self._console.print(plain(f"{frame.stamp:10.2f} s  {best.label}  {best.score:.2f}"))


def show_compiled(report: CompileReport, console: Console) -> None:
    """Print the plans of a bundle."""
    made = table(report.why, "rows", "plan", "size", "seconds", "", right=(0, 2, 3))
    for plan in report.plans:
        kept = "was there already" if plan.cached else "compiled"
        made.add_row(str(plan.rows), plain(plan.path), bytes_text(plan.size), f"{plan.seconds:.1f}", kept)
    console.print(made)


def show_verify(report: VerifyReport, console: Console) -> None:
    """Print every variant's check."""
    columns = ("variant", "engine", "output", "difference", "allowed", "worst step", "")
    made = table(f"{report.steps} golden frames", *columns, right=(3, 4, 5))
    for check in report.variants:
        if check.skipped is not None:
            made.add_row(plain(check.variant), plain(check.engine), "", "", "", "", plain(f"skipped: {check.skipped}"))
        for output in check.outputs:
            good = output.difference <= check.tolerance
            step = "" if output.worst_step is None else str(output.worst_step)
            verdict = plain("well" if good else "FAILED", "green" if good else "bold red")
            figures = (f"{output.difference:.2e}", f"{check.tolerance:.2e}", step)
            made.add_row(plain(check.variant), plain(check.engine), plain(output.output), *figures, verdict)
    console.print(made)


def show_bench(report: BenchReport, console: Console) -> None:
    """Print a bundle's speed."""
    values = {
        "bundle": report.bundle,
        "engine": f"{report.engine}, variant {report.variant}, {report.threads} thread(s), {report.rows} row(s)",
        "load": f"{report.load:.3f} s, first step {milliseconds(report.first_step)} ms",
        "speed": f"{report.rows / report.step.p50:.1f} frames per second at the median",
        "work": f"{count_text(report.step_macs)} multiply-accumulates a step, "
        f"{count_text(report.macs_per_second)} a second",
        "overhead": f"{milliseconds(report.overhead)} ms a step around the engine",
        **({"GPU": _recording(report), "slow": report.advice} if report.device is not None else {}),
        "state": bytes_text(report.state_bytes),
        "peak memory": "unavailable" if report.peak_rss is None else bytes_text(report.peak_rss),
        **telemetry_facts(report.telemetry),
    }
    console.print(facts("Bench", {name: value for name, value in values.items() if value}))
    stages = {
        "whole step": report.step,
        "engine alone": report.run,
        "handing over": report.queued,
        "GPU": report.device,
    }
    console.print(latencies({name: stage.to_json() for name, stage in stages.items() if stage is not None}))


def _recording(report: BenchReport) -> str:
    return "each step is a CUDA graph" if report.plain is None else f"each step is enqueued: {report.plain}"
