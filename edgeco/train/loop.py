"""The one training loop: it can be stopped at any step and resumed to the same bits.

Nothing is drawn from a running random state: batches, learning rate and dropout are functions of the step number alone.
A checkpoint needs only the network, the optimiser, the step, and what is remembered of averages and validations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import inf, isfinite, nan
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from edgeco.errors import CheckFailed, SpecError
from edgeco.train.average import Average, State, copied
from edgeco.train.checkpoint import read_checkpoint, write_checkpoint
from edgeco.train.objective import Objective
from edgeco.train.progress import Report
from edgeco.train.schedule import Schedule

BatchFunction = Callable[[int], tuple[Any, Any]]
"""Gives the inputs and labels of a step, as tensors or arrays; must depend on the step number only."""

Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""``auto``: bfloat16 or half where the device is a GPU that has it, float32 elsewhere."""


@dataclass
class Outcome:
    """What a run came to.

    Attributes:
        steps: done in all.
        loss: mean of the last steps.
        best: greatest score of a validation, minus infinity where none was made; ``best_step``: its step.
        ended: ``done``, ``early`` (validations no longer improved) or ``stopped`` (from outside; it can be resumed).
    """

    steps: int = 0
    loss: float = nan
    best: float = -inf
    best_step: int = 0
    ended: Literal["done", "early", "stopped"] = "done"


@dataclass
class Best:
    """The weights of the best validation so far, and for how many validations it has been the best."""

    score: float = -inf
    step: int = 0
    waited: int = 0
    state: State | None = None


@dataclass
class Options:
    """What a training may be told besides network, objective and schedule.

    Attributes:
        seed: of dropout and whatever else the network draws.
        weight_decay: of AdamW, unless an ``optimiser`` is given.
        average: decay of the moving average of the weights, such as 0.999; 0 for none.
        validate: gives a network's score, greater is better; called in evaluation mode, on the averages if there are
            any, every ``validate_every`` steps and at the end. It must be a function of the weights alone.
        patience: validations in a row without a better score after which training ends; None for never.
        precision: numeric form of the forward pass.
        clip_norm: greatest norm of the gradient; None for any.
        trainable: which parameters learn, by name; the others have no gradient and no optimiser state.
        optimiser: makes an optimiser of the parameters that learn.
        mode: sets the network for learning; ``net.train()`` unless given, as to keep some norms' statistics.
    """

    seed: int = 0
    weight_decay: float = 0.01
    average: float = 0.0
    validate: Callable[[nn.Module], float] | None = None
    validate_every: int = 100
    patience: int | None = None
    precision: Precision = "auto"
    clip_norm: float | None = None
    trainable: Callable[[str, nn.Parameter], bool] | None = None
    optimiser: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None
    mode: Callable[[nn.Module], object] = field(default=nn.Module.train)


class Training:
    """A network that is being trained, with all that a checkpoint holds.

    Args:
        net: trained in place, on the device on which it lies. At the end of ``run`` it has the best validated weights,
            the averages, or those of the last step, whichever of them there are first.
        objective: see `edgeco.train.objective`.
        schedule: learning rates, and how many steps there are.
        options: see `Options`.

    Attributes:
        optimiser, average, best: their states, to be read or changed between runs.
        done: steps done.

    Example::

        training = Training(net, supervised(nn.CrossEntropyLoss()), Schedule(1000), Options(average=0.99))
        training.resume(path)
        outcome = training.run(batches, checkpoint=path)
    """

    def __init__(
        self, net: nn.Module, objective: Objective, schedule: Schedule, options: Options | None = None
    ) -> None:
        self.net, self.objective, self.schedule = net, objective, schedule
        self.options = options or Options()
        self.parameters = _learning(net, self.options.trainable)
        make = self.options.optimiser
        decay = self.options.weight_decay
        self.optimiser: torch.optim.Optimizer = (
            make(self.parameters) if make else torch.optim.AdamW(self.parameters, schedule.peak, weight_decay=decay)
        )
        self.average = Average(net, self.options.average) if self.options.average else None
        self.best = Best()
        self.done = 0
        self.device = self.parameters[0].device
        self.precision = _precision(self.options.precision, self.device)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision is torch.float16)
        self._raw: State | None = None

    def resume(self, path: Path) -> bool:
        """Continue from a checkpoint, if there is one; says whether there was.

        Raises:
            SpecError: it cannot be read, or is of another network or kind of training.
        """
        if not path.exists():
            return False
        saved = read_checkpoint(path)
        if (self.average is None) != (saved["average"] is None):
            raise SpecError(f"{path} was written {'without' if self.average else 'with'} an average of the weights.")
        try:
            self.net.load_state_dict(saved["net"])
            self.optimiser.load_state_dict(saved["optimiser"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise SpecError(f"{path} is not of this network ({str(error).splitlines()[0]}); remove it.") from None
        self._scaler.load_state_dict(saved["scaler"])
        if self.average is not None:
            self.average.updates = int(saved["average"]["updates"])
            self.average.state = {name: value.to(self.device) for name, value in saved["average"]["state"].items()}
        self.best = Best(**saved["best"])
        self.done = int(saved["step"])
        self._raw = None
        return True

    def save(self, path: Path) -> None:
        """Write all that ``resume`` needs; a reader finds the old file or the whole new one."""
        average = self.average and {"updates": self.average.updates, "state": self.average.state}
        state = {
            "net": self._raw or self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": average,
            "best": vars(self.best),
            "step": self.done,
        }
        write_checkpoint(path, state)

    def run(
        self,
        batch: BatchFunction,
        *,
        checkpoint: Path | None = None,
        until: int | None = None,
        stop: Callable[[], bool] | None = None,
        save_every: int = 200,
        report_every: int = 20,
        report: Report | None = None,
        pool: Executor | None = None,
    ) -> Outcome:
        """Train to the end of the schedule, or until stopped.

        Args:
            batch: gives a step's batch.
            checkpoint: written every ``save_every`` steps and at the end.
            until: end after so many steps in all, without changing the schedule.
            stop: asked between two steps; true ends the run after a checkpoint, so that nothing is lost.
            report: called every ``report_every`` steps, with the score of the last validation if there was one.
            pool: where batches are made, a thread of this process unless given; other processes need a batch function
                that can be pickled.

        Raises:
            CheckFailed: the loss is no longer a number; the checkpoint before it is left as it is.
        """
        if self._raw is not None:  # a run before has put the best weights in place
            self.net.load_state_dict(self._raw)
            self._raw = None
        last = self.schedule.steps if until is None else min(until, self.schedule.steps)
        outcome = Outcome(self.done)
        losses: list[float] = []
        devices = [self.device] if self.device.type == "cuda" else []
        with (
            nullcontext(pool) if pool else ThreadPoolExecutor(1) as workers,
            torch.random.fork_rng(devices),
        ):
            for step, inputs, labels in _prefetched(batch, self.done, last, workers):
                if self._waited_enough() or (stop is not None and stop()):
                    break
                losses.append(self._step(step, inputs, labels))
                self.done = step + 1
                if self._due(self.done):
                    self._validate()
                if report_every and (self.done % report_every == 0 or self.done == last):
                    outcome.loss = sum(losses) / len(losses)
                    losses.clear()
                    if report:
                        report(self.done, outcome.loss, self.schedule.rate(step), self._told())
                if checkpoint and self.done % save_every == 0 and self.done < last:
                    self.save(checkpoint)
        if checkpoint:
            self.save(checkpoint)
        self._finish()
        outcome.steps, outcome.best, outcome.best_step = self.done, self.best.score, self.best.step
        outcome.loss = sum(losses) / len(losses) if losses else outcome.loss
        if self.done < self.schedule.steps:
            outcome.ended = "early" if self._waited_enough() else "stopped"
        return outcome

    def _step(self, step: int, inputs: Any, labels: Any) -> float:
        """One optimiser step; returns the loss before it."""
        self.options.mode(self.net)
        torch.manual_seed((self.options.seed << 32) + step)
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.rate(step)
        with self._cast():
            value = self.objective(self.net, self._moved(inputs), self._moved(labels))
        if not isfinite(found := value.item()):
            raise CheckFailed(
                f"The loss of step {step + 1} is {found}; take a lower learning rate (peak), or look for "
                "values in the data that are far from the others."
            )
        self.optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(value).backward()
        if self.options.clip_norm is not None:
            self._scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.parameters, self.options.clip_norm)
        self._scaler.step(self.optimiser)
        self._scaler.update()
        if self.average is not None:
            self.average.update(self.net)
        return found

    def _cast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.precision is None else torch.autocast(self.device.type, self.precision)

    def _moved(self, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(self._moved(part) for part in value)
        return torch.as_tensor(value).to(self.device, non_blocking=True)

    def _due(self, done: int) -> bool:
        every = self.options.validate_every
        return self.options.validate is not None and (done % every == 0 or done == self.schedule.steps)

    def _validate(self) -> None:
        assert self.options.validate is not None
        self.net.eval()
        with self.average.applied(self.net) if self.average else nullcontext(), torch.no_grad():
            score = float(self.options.validate(self.net))
            waited = 0 if score > self.best.score else self.best.waited + 1
            if score >= self.best.score:  # of equals the one that learnt longer
                self.best = Best(score, self.done, waited, copied(self.net))
            else:
                self.best.waited = waited

    def _waited_enough(self) -> bool:
        return self.options.patience is not None and self.best.waited >= self.options.patience

    def _told(self) -> float | None:
        return self.best.score if self.best.state is not None else None

    def _finish(self) -> None:
        """Put the weights in place that the training is for; those of the last step are kept for another run."""
        final = self.best.state or (self.average.state if self.average else None)
        if final is not None:
            self._raw = copied(self.net)
            self.net.load_state_dict(final)


def train(
    net: nn.Module,
    batch: BatchFunction,
    objective: Objective,
    schedule: Schedule,
    options: Options | None = None,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    **how: Any,
) -> Outcome:
    """Train a network in place, in one call; ``how`` are further arguments of ``Training.run``.

    With ``resume`` an existing ``checkpoint`` is continued.

    Example:
        >>> from edgeco.train.objective import supervised
        >>> def points(step: int) -> tuple[Tensor, Tensor]:
        ...     x = torch.randn(16, 2, generator=torch.Generator().manual_seed(step))
        ...     return x, (x.sum(1) > 0).long()
        >>> net = nn.Linear(2, 2)
        >>> outcome = train(net, points, supervised(nn.CrossEntropyLoss()), Schedule(60, peak=0.1))
        >>> outcome.steps, outcome.loss < 0.5
        (60, True)
    """
    training = Training(net, objective, schedule, options)
    if resume and checkpoint is not None:
        training.resume(checkpoint)
    return training.run(batch, checkpoint=checkpoint, **how)


def _learning(net: nn.Module, chosen: Callable[[str, nn.Parameter], bool] | None) -> list[nn.Parameter]:
    """The parameters that learn. Raises SpecError where there is none."""
    found = []
    for name, parameter in net.named_parameters():
        if chosen is not None:
            parameter.requires_grad_(chosen(name, parameter))
        if parameter.requires_grad:
            found.append(parameter)
    if not found:
        raise SpecError("The network has no parameter that learns; all are frozen, or there is none.")
    return found


def _precision(asked: Precision, device: torch.device) -> torch.dtype | None:
    """The type that is cast to, None for none."""
    if asked == "auto":
        asked = "fp32" if device.type != "cuda" else "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[asked]


def _prefetched(batch: BatchFunction, first: int, last: int, pool: Executor) -> Iterator[tuple[int, Any, Any]]:
    """Steps ``first`` to ``last - 1`` with their batches, made in ``pool`` while the steps before them train."""
    coming = deque(pool.submit(batch, step) for step in range(first, min(first + 2, last)))
    for step in range(first, last):
        inputs, labels = coming.popleft().result()
        if step + 2 < last:
            coming.append(pool.submit(batch, step + 2))
        yield step, inputs, labels
