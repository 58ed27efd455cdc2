"""The demonstration as a picture over time: what the camera did, and what the network told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from edgeco.runtime.demo import LEAST_ACCURACY, DemoReport
from edgeco.show.console import facts, plain, table
from edgeco.show.measures import latencies

_MARKS = {
    "still": ("·", ".", "white"),
    "pan left": ("←", "<", "cyan"),
    "pan right": ("→", ">", "blue"),
    "tilt up": ("↑", "^", "green"),
    "tilt down": ("↓", "v", "yellow"),
    "zoom in": ("+", "+", "magenta"),
    "zoom out": ("−", "-", "red"),
    "roll": ("↻", "o", "bright_black"),
}
"""A motion's mark, its mark where only ASCII can be written, and its colour."""

_NAME_WIDTH = 9


def show_demo(report: DemoReport, console: Console) -> None:
    """Print the strips of true and told motion, accuracy and latency."""
    ascii_only = not console.encoding.lower().startswith("utf")
    room = max(20, console.width - _NAME_WIDTH)
    console.print(plain("Camera motion over time", "bold"))
    console.print(_scale([frame.stamp for frame in report.frames], room))
    console.print(_strip("true", [frame.truth for frame in report.frames], room, ascii_only))
    console.print(_strip("told", [frame.seen for frame in report.frames], room, ascii_only))
    console.print(_strip_of_errors([_wrong(frame.counts, frame.seen, frame.truth) for frame in report.frames], room))
    console.print()
    made = table("Motions", "", "motion", "told rightly", right=(2,))
    for motion, right in report.by_motion.items():
        made.add_row(_mark(motion, ascii_only), motion, "not counted" if right is None else f"{right:.1%}")
    console.print(made)
    share = Text(f"{report.accuracy:.1%}", style="bold green" if report.passed else "bold red")
    due = f" of {report.counted} frames away from changes; {LEAST_ACCURACY:.0%} are due"
    values: dict[str, object] = {
        "told rightly": Text.assemble(share, due),
        "speed": f"{report.summary.fps:.1f} frames per second, drawing the scene included",
        "engine": report.why,
    }
    console.print(facts("Result", values))
    console.print(latencies(report.summary.stages))


def _wrong(counts: bool, seen: str | None, truth: str) -> bool:
    return counts and seen != truth


def _cells(length: int, room: int) -> list[tuple[int, int]]:
    """Ranges of frames, one for each cell of a strip that fits."""
    cells = min(length, room)
    return [(cell * length // cells, (cell + 1) * length // cells) for cell in range(cells)]


def _scale(stamps: Sequence[float], room: int) -> Text:
    """Seconds above the strips, about every twelve cells."""
    line = ""
    for cell, (start, _) in enumerate(_cells(len(stamps), room)):
        if cell % 12 == 0 and cell + 6 <= room:
            line = line.ljust(cell) + f"{stamps[start]:.1f} s"
    return Text(" " * _NAME_WIDTH + line, style="dim", no_wrap=True)


def _strip(name: str, motions: Sequence[str | None], room: int, ascii_only: bool) -> Text:
    """One row of marks: a cell shows what most of its frames have."""
    line = Text(name.ljust(_NAME_WIDTH), no_wrap=True)
    for start, stop in _cells(len(motions), room):
        line.append_text(_mark(Counter(motions[start:stop]).most_common(1)[0][0], ascii_only))
    return line


def _strip_of_errors(wrong: Sequence[bool], room: int) -> Text:
    marks = "".join("x" if any(wrong[start:stop]) else " " for start, stop in _cells(len(wrong), room))
    return Text("wrong".ljust(_NAME_WIDTH), no_wrap=True) + Text(marks, style="bold red")


def _mark(motion: str | None, ascii_only: bool) -> Text:
    if motion is None:
        return Text(" ")
    mark, letter, colour = _MARKS.get(motion, ("?", "?", "white"))
    return Text(letter if ascii_only else mark, style=f"bold white on {colour}" if colour != "white" else "dim")
