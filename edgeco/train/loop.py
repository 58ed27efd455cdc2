"""A small training loop that can be stopped at any step and resumed to the same bits.

Nothing is drawn from a running random state: batches and learning rate are functions of the step number alone, so a
checkpoint needs only the network, the optimiser and the step.
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path

import torch
from torch import Tensor, nn

BatchFunction = Callable[[int], tuple[Tensor, Tensor]]
"""Gives the inputs and labels of a step; must depend on the step number only."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Gives the scalar loss of the network's output and the labels."""

Report = Callable[[int, float, float], None]
"""Called with the number of steps done, the mean loss since the last call and the learning rate."""


@dataclass(frozen=True)
class Schedule:
    """One-cycle learning rate: linear warm-up to ``peak``, then cosine decay to ``peak * floor`` at ``steps``."""

    steps: int
    peak: float = 3e-3
    warmup: float = 0.1
    floor: float = 1e-3

    def rate(self, step: int) -> float:
        """Learning rate of a step counted from 0."""
        rise = max(1, round(self.steps * self.warmup))
        if step < rise:
            return self.peak * (step + 1) / rise
        along = (step - rise) / max(1, self.steps - rise)
        return self.peak * (self.floor + (1 - self.floor) * 0.5 * (1 + cos(pi * min(1.0, along))))


def save_checkpoint(path: Path, net: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
    """Write network, optimiser and number of steps done; a reader never finds a half-written file."""
    temporary = path.with_name(path.name + ".part")
    torch.save({"net": net.state_dict(), "optimiser": optimiser.state_dict(), "step": step}, temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path, net: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Restore network and optimiser in place and return the number of steps done."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    net.load_state_dict(state["net"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


def _prefetched(batch: BatchFunction, first: int, last: int, pool: Executor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Steps ``first`` to ``last - 1`` with their batches, made in ``pool`` while the steps before them train."""
    coming = deque(pool.submit(batch, step) for step in range(first, min(first + 2, last)))
    for step in range(first, last):
        inputs, labels = coming.popleft().result()
        if step + 2 < last:
            coming.append(pool.submit(batch, step + 2))
        yield step, inputs, labels


def _update(
    net: nn.Module, optimiser: torch.optim.Optimizer, loss: Loss, inputs: Tensor, labels: Tensor, rate: float
) -> float:
    """One optimiser step at learning rate ``rate``; returns the loss before it."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    value = loss(net(inputs), labels)
    optimiser.zero_grad(set_to_none=True)
    value.backward()
    optimiser.step()
    return value.item()


def train(
    net: nn.Module,
    batch: BatchFunction,
    loss: Loss,
    schedule: Schedule,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    stop: int | None = None,
    save_every: int = 200,
    report_every: int = 20,
    report: Report | None = None,
    weight_decay: float = 0.01,
    pool: Executor | None = None,
) -> float:
    """Train ``net`` in place with AdamW and return the mean loss of the last steps (``report_every`` or fewer).

    With ``resume`` an existing ``checkpoint`` is continued. ``stop`` ends the run early, after that many steps in all,
    without changing the schedule. A checkpoint is written every ``save_every`` steps and at the end.
    Batches come from ``pool``, a thread of this process unless given; other processes need a batch function that can be
    pickled.
    """
    optimiser = torch.optim.AdamW(net.parameters(), lr=schedule.peak, weight_decay=weight_decay)
    first = load_checkpoint(checkpoint, net, optimiser) if resume and checkpoint and checkpoint.exists() else 0
    last = schedule.steps if stop is None else min(stop, schedule.steps)
    net.train()
    losses: list[float] = []
    mean = float("nan")
    with nullcontext(pool) if pool else ThreadPoolExecutor(1) as workers:
        for step, inputs, labels in _prefetched(batch, first, last, workers):
            losses.append(_update(net, optimiser, loss, inputs, labels, schedule.rate(step)))
            done = step + 1
            if done % report_every == 0 or done == last:
                mean = sum(losses) / len(losses)
                losses.clear()
                if report:
                    report(done, mean, schedule.rate(step))
            if checkpoint and (done % save_every == 0 or done == last):
                save_checkpoint(checkpoint, net, optimiser, done)
    return mean


@contextmanager
def progress(steps: int) -> Iterator[Report]:
    """A progress bar on a terminal, plain lines on standard error elsewhere (a log file, a pipe)."""
    if not sys.stderr.isatty():
        yield lambda done, value, rate: print(f"step {done}/{steps} loss {value:.4f} rate {rate:.2e}", file=sys.stderr)
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    text, rest = TextColumn("{task.fields[loss]}"), (MofNCompleteColumn(), TimeRemainingColumn())
    columns = (*Progress.get_default_columns()[:2], *rest, text)
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("train", total=steps, loss="")
        yield lambda done, value, rate: bar.update(task, completed=done, loss=f"loss {value:.4f}")
