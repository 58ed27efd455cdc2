"""What a pruning does and did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rich.console import Console

from edgeco.show.console import count_text, plain, table

if TYPE_CHECKING:
    from edgeco.prune.rounds import Watch

MOST = 40
"""Groups listed."""


@contextmanager
def prune_progress(console: Console, steps: int) -> Iterator[Watch]:
    """Tells each stage, and how training goes: a bar on a terminal, lines elsewhere."""
    from edgeco.prune.rounds import Watch
    from edgeco.train.progress import progress

    began = perf_counter()

    def say(text: str) -> None:
        console.print(plain(f"{perf_counter() - began:7.1f} s  {text}"))

    with progress(max(steps, 1)) as report:
        yield Watch(say, report)


def show_pruned(report: dict[str, Any], out: Path | None, console: Console) -> None:
    """Print what went, what stays and why."""
    from edgeco.page.document import number
    from edgeco.prune.page import figure_rows

    figures = table("Before and after", "", "before", "after", "left", right=(1, 2, 3))
    if out is not None:
        for row in figure_rows(report):
            figures.add_row(*map(plain, row))
    else:
        for name, (before, after) in report["figures"].items():
            figures.add_row(plain(name), number(before), number(after), f"{after / before:.1%}" if before else "")
    console.print(figures)
    groups = table("Groups", "made by", "channels", "kept", "MACs each", right=(1, 2, 3))
    free = [g for g in report["groups"] if g["blocked"] is None]
    for group in free[:MOST]:
        before, after = group["channels"]
        groups.add_row(plain(group["name"]), str(before), str(after), count_text(group["macs_per_unit"]))
    console.print(groups)
    if len(free) > MOST:
        console.print(plain(f"… and {len(free) - MOST} more groups, in the report.", "dim"))
    stays = table("What stays", "channels of", "number", "reason", right=(1,))
    for group in [g for g in report["groups"] if g["blocked"] is not None][:MOST]:
        stays.add_row(plain(group["name"]), str(group["channels"][0]), plain(group["blocked"]))
    console.print(stays)
    for operator, place in report["unknown"].items():
        console.print(plain(f"{operator} has no rule for channels; all that it touches stays ({place})."))
    if out is not None:
        stem = out.with_name(out.stem)
        console.print(plain(f"Report: {stem}.report.html"))
        console.print(plain(f"Build it with: edgeco build MODEL --plan {stem}.plan.json --weights {out} -o OUT.edgeco"))
