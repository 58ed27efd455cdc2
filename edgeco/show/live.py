"""The figures of a run while it runs, on a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edgeco.show.console import milliseconds, plain, table

if TYPE_CHECKING:
    from edgeco.runtime.figures import PipelineStatus

_CLASSES = 3
_BAR = 24
"""Columns of a score's bar."""


class Board:
    """A panel at the foot of the terminal that is redrawn; it leaves when the run ends."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def show(self, status: PipelineStatus) -> None:
        self._live.update(render(status), refresh=True)

    def __enter__(self) -> Board:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)


def render(status: PipelineStatus) -> Group:
    """A pipeline's status: state, rates, latencies, drops and the best classes."""
    stages = table("", "ms", "p50", "p90", "p99", "max", right=(1, 2, 3, 4))
    for name, stage in status.stages.items():
        stages.add_row(name, *(milliseconds(value) for value in (stage.p50, stage.p90, stage.p99, stage.max)))
    return Group(plain(_headline(status), "bold"), stages, plain(_counts(status), "dim"), _scores(status))


def _headline(status: PipelineStatus) -> str:
    network = "running" if status.is_warm else "warming up" if status.stepped else "waiting"
    source = status.source
    at_source = f"source {source.state.value}" if source is not None and source.state.value != "running" else ""
    age = f"answer {status.age * 1e3:.0f} ms old" if status.age is not None else ""
    rate = f"{status.fps:.1f} answers per second"
    state = network if status.state.value == "running" else status.state.value
    return "  ".join(filter(None, (state, at_source, rate, f"jitter {milliseconds(status.jitter)} ms", age)))


def _counts(status: PipelineStatus) -> str:
    passed = status.pacer.get("passed", 0)
    parts = [f"{status.frames} frames, {status.stepped} stepped, {passed} passed over, {status.gaps} missing"]
    parts += [f"{count} dropped: {cause}" for cause, count in status.drops.items() if count]
    parts += [f"{name} dropped {sink.dropped}" for name, sink in status.sinks.items() if sink.dropped]
    parts += [f"{name} failed {sink.failed}" for name, sink in status.sinks.items() if sink.failed]
    return "; ".join(parts)


def _scores(status: PipelineStatus) -> Table | Text:
    if not status.top:
        return Text("no answer yet", style="dim")
    made = table("", "", "", "", right=(1,))
    made.show_header = False
    for score in status.top[:_CLASSES]:
        filled = round(_BAR * min(1.0, max(0.0, score.score))) if score.score == score.score else 0
        made.add_row(plain(score.label), f"{score.score:.2f}", plain("█" * filled, "green"))
    return made
