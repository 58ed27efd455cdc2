"""What a training script shows while it works."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[int, float, float, float | None], None]
"""Called with the steps done, the mean loss since the last call, the learning rate, and the best score if any."""


@contextmanager
def progress(steps: int) -> Iterator[Report]:
    """A progress bar on a terminal, plain lines on standard error elsewhere (a log file, a pipe)."""

    def told(value: float, score: float | None) -> str:
        return f"loss {value:.4f}" + ("" if score is None else f" best {score:.4f}")

    def line(done: int, value: float, rate: float, score: float | None) -> None:
        print(f"step {done}/{steps} {told(value, score)} rate {rate:.2e}", file=sys.stderr)

    if not sys.stderr.isatty():
        yield line
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    text, rest = TextColumn("{task.fields[loss]}"), (MofNCompleteColumn(), TimeRemainingColumn())
    columns = (*Progress.get_default_columns()[:2], *rest, text)
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("train", total=steps, loss="")

        def move(done: int, value: float, rate: float, score: float | None) -> None:
            bar.update(task, completed=done, loss=told(value, score))

        yield move
