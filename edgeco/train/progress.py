"""What a training script shows while it works."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[int, float, float, float | None], None]
"""Called with the steps done, the mean loss since the last call, the learning rate, and the best score so far if any."""


@contextmanager
def progress(steps: int) -> Iterator[Report]:
    """A progress bar on a terminal, plain lines on standard error elsewhere (a log file, a pipe)."""

    def told(value: float, score: float | None) -> str:
        return f"loss {value:.4f}" + ("" if score is None else f" best {score:.4f}")

    if not sys.stderr.isatty():
        yield lambda done, value, rate, score=None: print(
            f"step {done}/{steps} {told(value, score)} rate {rate:.2e}", file=sys.stderr
        )
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    text, rest = TextColumn("{task.fields[loss]}"), (MofNCompleteColumn(), TimeRemainingColumn())
    columns = (*Progress.get_default_columns()[:2], *rest, text)
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("train", total=steps, loss="")
        yield lambda done, value, rate, score=None: bar.update(task, completed=done, loss=told(value, score))
