"""What a calibration does and found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from edgeco.show.console import plain, table
from edgeco.show.ranges import calibration_facts, ranges_tables

if TYPE_CHECKING:
    from edgeco.calibration.calibrating import CalibrationReport
    from edgeco.calibration.rollout import Progress
    from edgeco.calibration.sensitivity import Sensitivity

_LINES_APART = 5.0
"""Seconds between two lines where there is no terminal."""


def progress_text(done: Progress) -> str:
    """One line of where a calibration stands."""
    return f"stream {done.stream + 1} of {done.streams}, {done.name}: frame {done.frame}; {done.frames} frames in all"


@dataclass(frozen=True)
class Told:
    """What is to be told of frames, and of stages after them."""

    of_frames: Callable[[Progress], None]
    of_stages: Callable[[str], None]


@contextmanager
def calibration_progress(console: Console) -> Iterator[Told]:
    """Who is told of every frame and stage: a line that changes on a terminal, one every few seconds elsewhere."""
    if console.is_terminal:
        with console.status("opening the recordings") as status:
            yield Told(lambda done: status.update(plain(progress_text(done))), lambda text: status.update(plain(text)))
        return
    last = [monotonic()]

    def say(done: Progress) -> None:
        if monotonic() - last[0] >= _LINES_APART:
            last[0] = monotonic()
            console.print(plain(progress_text(done)))

    yield Told(say, lambda text: console.print(plain(text)))


def show_calibrated(report: CalibrationReport, console: Console) -> None:
    """Print what a calibration found, and where it is."""
    console.print(calibration_facts(report.summary.to_json()))
    for made in ranges_tables(report.ranges, tensors=False)[1:]:
        console.print(made)
    if report.made.sensitivities:
        console.print(_costs(report.made.sensitivities))
    for form in report.made.forms:
        console.print(plain(f"{form.name}: {form.drift:.1e} from FP32 relative, over a stream"))
    if report.made.kept:
        console.print(plain(f"left in float to keep the budget: {', '.join(report.made.kept)}"))
    alone = {name for form in report.made.forms for name in form.told.get("kept_float", ())} - set(report.made.kept)
    if alone:
        names = ", ".join(sorted(alone))
        console.print(plain(f"left in float as asked, now or before: {names}; --forget-float ends it"))
    if report.made.forms:
        page = Path(report.written).with_suffix(".html").name
        console.print(plain(f"all of it drawn: edgeco inspect {report.written} --page {page}"))
    how = "" if report.written.endswith(".json") else f"; all of it: edgeco inspect --ranges {report.written}"
    console.print(plain(f"{report.written} holds the ranges of {report.summary.tensors} tensors{how}"))


def _costs(found: Sequence[Sensitivity]) -> Table:
    made = table("What INT8 costs", "layer or history", "error with it in float", "of the error gone", right=(1, 2))
    for one in found:
        made.add_row(plain(one.name), f"{one.error:.2e}", f"{one.gain:.1%}")
    return made
