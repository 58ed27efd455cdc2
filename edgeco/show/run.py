"""``edgeco run``: the pipeline from the command line's options, watched until it ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from edgeco.command import pin, refuse_overwriting, stop_on_signal
from edgeco.devices.telemetry import Telemetry, TelemetryReport, idle_power, open_telemetry
from edgeco.engines.selection import EXACT
from edgeco.errors import SpecError
from edgeco.runtime.model import Model, load
from edgeco.runtime.pacer import Gap, Pacer
from edgeco.runtime.pipeline import Pipeline, Summary
from edgeco.runtime.pre import load_pre
from edgeco.runtime.sinks import AnnotatedVideo, Callback, JsonLines, Keeps, Sink, Window, parse_rotation
from edgeco.runtime.smoothing import parse_smoothing
from edgeco.runtime.sources import Source, open_source
from edgeco.runtime.sources.sensors import RowSource
from edgeco.show.console import console, print_json, say
from edgeco.show.live import Board
from edgeco.show.measures import Changes, show_run

if TYPE_CHECKING:
    from edgeco.runtime.preview import Preview

_LOOK = 0.25
"""Seconds between two looks at the pipeline."""


@dataclass(frozen=True)
class RunOptions:
    """What ``edgeco run`` was asked for, by the names of its options."""

    bundle: Path
    source: str
    jsonl: str | None = None
    rotate: str | None = None
    save: str | None = None
    show: bool = False
    fps: float | None = None
    gap: Gap = "skip"
    gap_threshold: float | None = None
    pre: str | None = None
    smooth: str | None = None
    frames: int | None = None
    top: int = 5
    engine: str = "auto"
    threads: int | None = None
    precision: Literal["fp32", "fp16", "int8"] | None = None
    affinity: str | None = None
    preview: int | None = None
    preview_host: str = "127.0.0.1"
    idle_power: float = 0.0
    as_json: bool = False

    @property
    def lines_only(self) -> bool:
        """Whether standard output holds the JSON lines alone."""
        return self.jsonl == "-"


def run_bundle(options: RunOptions) -> None:
    """Run a bundle over a source until it ends, an error or a signal; tell what happened.

    Raises:
        EdgecoError: whatever the options, the bundle, the source, the network or a sink that must lose nothing raise.
    """
    _refuse_one_file_twice(options, options.source)
    if options.rotate is not None and options.jsonl is None:
        raise SpecError("--rotate is for the lines of --jsonl; name their file too")
    if options.affinity is not None:
        pin(options.affinity)
    pre = load_pre(options.pre) if options.pre is not None else None
    smooth = parse_smoothing(options.smooth) if options.smooth is not None else None
    model = load(options.bundle, engine=options.engine, threads=options.threads, precision=options.precision, say=say)
    if options.precision is None and model.variant != EXACT:
        say(model.why)  # at the beginning too: the answers are not FP32's, and nobody asked for others
    fps = model.manifest.timeline.fps if options.fps is None else options.fps
    pacer = Pacer(fps, options.gap, options.gap_threshold)
    out = console(stderr=options.lines_only)
    with ExitStack() as stack:
        telemetry = stack.enter_context(open_telemetry())
        preview = _preview(options, model, telemetry)
        if preview is not None:
            stack.callback(preview.close)
        idle = idle_power(telemetry, options.idle_power)
        source = stack.enter_context(open_source(options.source))
        if isinstance(source, RowSource) and model.manifest.timeline.fps:
            source.assume(model.manifest.timeline.fps)
        _refuse_one_file_twice(options, *source.files)
        asked: list[str] = []
        sinks = _sinks(options, model, source, out, lambda: asked.append("window"))
        if preview is not None:
            sinks.append(preview)
        pipeline = Pipeline(
            model, source, sinks, pacer=pacer, pre=pre, smooth=smooth, top=options.top, frames=options.frames
        )
        if preview is not None:
            preview.watch(pipeline)
        signalled = stack.enter_context(stop_on_signal())
        meter = stack.enter_context(telemetry.meter())
        try:
            _watch(
                pipeline, lambda: bool(asked) or signalled(), out if out.is_terminal and not options.as_json else None
            )
        finally:
            summary = pipeline.summary
            _tell(pipeline, summary, options, out, model.why, meter.report(summary.stepped, idle))


def _refuse_one_file_twice(options: RunOptions, *read: str | Path) -> None:
    """Refuse to write over what is read, or two things into one file."""
    pre = None if options.pre is None else options.pre.rpartition(":")[0]
    for written in (options.jsonl, options.save):
        refuse_overwriting(written, options.bundle, pre, *read)
    sinks = [os.path.realpath(path) for path in (options.jsonl, options.save) if path not in (None, "-")]
    if len(set(sinks)) < len(sinks):
        raise SpecError(f"{options.save}: the lines and the video cannot be one file; name another for one of them")


def _preview(options: RunOptions, model: Model, telemetry: Telemetry) -> Preview | None:
    """The preview, and its address on standard error; a token is shown on a terminal only, as anything else is kept."""
    if options.preview is None:
        return None
    from edgeco.runtime.preview import Preview

    if Preview.makes_token(options.preview_host) and not sys.stderr.isatty():
        raise SpecError(
            f"a preview on {options.preview_host} asks for a token, and a new one would be written into a log here: "
            "set EDGECO_PREVIEW_TOKEN to one, or leave --preview-host and use ssh -L"
        )
    preview = Preview(options.preview, options.preview_host, title=model.manifest.name, telemetry=telemetry)
    say(f"preview at {preview.link() if preview.made_token else preview.address}")
    if preview.needs_token and not preview.made_token:
        say("it asks for the token in EDGECO_PREVIEW_TOKEN: open the address with ?token=… once")
    return preview


def _sinks(options: RunOptions, model: Model, source: Source, out: Console, leave: Callable[[], object]) -> list[Sink]:
    sinks: list[Sink] = []
    if options.jsonl is not None:
        size, kept = parse_rotation(options.rotate) if options.rotate is not None else (None, 0)
        sinks.append(JsonLines(options.jsonl, rotate=size, kept=kept))
    if options.save is not None:
        sinks.append(AnnotatedVideo(options.save, source.fps))
    if options.show:
        sinks.append(Window(f"edgeco {model.manifest.name}", leave))
    if model.labels is not None and not (options.as_json or options.lines_only):
        sinks.append(Callback(Changes(out), Keeps.ALL, "terminal"))
    return sinks


def _watch(pipeline: Pipeline, stop: Callable[[], bool], terminal: Console | None) -> None:
    """Wait for the end, passing on what asks for it; on a terminal with the figures of the moment."""
    with ExitStack() as stack:
        board = stack.enter_context(Board(terminal)) if terminal is not None else None
        try:
            pipeline.start()
            while not pipeline.join(_LOOK):
                if stop():
                    pipeline.stop()
                if board is not None:
                    board.show(pipeline.status())
        except BaseException:
            pipeline.abort()
            pipeline.wait()
            raise


def _tell(
    pipeline: Pipeline, summary: Summary, options: RunOptions, out: Console, why: str, telemetry: TelemetryReport
) -> None:
    error = pipeline.status().error
    if options.as_json:
        print_json({**summary.to_json(), "telemetry": telemetry.to_json()}, stderr=options.lines_only)
    else:
        show_run(summary, out, why, telemetry)
    for name, sink in summary.sinks.items():
        if sink["failed"] and sink["error"] != error:
            say(f"{name} failed {sink['failed']} time{'s' if sink['failed'] > 1 else ''}, at last: {sink['error']}")
