"""Pruning in rounds: a part of the way, norms recalibrated, training, and again; every round is kept and resumed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import msgspec
import torch
from torch import nn

from edgeco.errors import SpecError
from edgeco.files import replace_file
from edgeco.prune.budget import Budget
from edgeco.prune.importance import Evidence
from edgeco.prune.norms import recalibrate
from edgeco.prune.plan import PruningPlan, load_plan
from edgeco.prune.planning import Planner
from edgeco.prune.recipe import PruneRecipe, Recordings, logits, loss
from edgeco.train.loop import Options as TrainingOptions
from edgeco.train.loop import Training
from edgeco.train.objective import distilled, supervised
from edgeco.train.progress import Report
from edgeco.train.schedule import Schedule

Tracer = Callable[[nn.Module], Any]
"""Traces the network as for the conversion."""


@dataclass
class Watch:
    """What a run tells, and whether it is to stop."""

    say: Callable[[str], None] = lambda text: None
    report: Report | None = None
    stop: Callable[[], bool] = lambda: False


@dataclass
class Round:
    """What one round came to: accuracies are None without data."""

    budget: str
    macs: int
    parameters: int
    channels: int
    raw: float | None = None
    recalibrated: float | None = None
    trained: float | None = None


@dataclass
class Outcome:
    """A run: the plan of the first network for all rounds, and whether it came to its end."""

    net: nn.Module
    plan: PruningPlan | None
    rounds: list[Round] = field(default_factory=list)
    finished: bool = True


class Rounds:
    """One run of all rounds, kept in a folder.

    Args:
        net: the network, with its weights; it is pruned in place.
        trace: traces it.
        recipe: what is done.
        recordings: what is learned from; None prunes without data.
        folder: where every round is kept, and where a run goes on from; None keeps nothing.
    """

    def __init__(
        self, net: nn.Module, trace: Tracer, recipe: PruneRecipe, recordings: Recordings | None, folder: Path | None
    ) -> None:
        self.net, self.trace, self.recipe, self.recordings, self.folder = net, trace, recipe, recordings, folder
        self.whole = copy.deepcopy(net).eval()
        self.optimiser = torch.optim.AdamW(net.parameters(), lr=recipe.rate, weight_decay=0.01)
        self.budget = Budget.of(recipe.budget)

    def run(self, watch: Watch | None = None) -> Outcome:
        """Go through the rounds, from where an earlier run in the same folder stopped.

        Raises:
            SpecError: the budget is out of reach, or the folder is of another run.
        """
        watch = watch or Watch()
        outcome = Outcome(self.net, None)
        for number in range(self.recipe.rounds):
            if watch.stop():
                outcome.finished = False
                break
            watch.say(f"round {number + 1} of {self.recipe.rounds}")
            if self._resumed(number, outcome):
                continue
            done = self._round(number, outcome, watch)
            if not done:
                outcome.finished = False
                break
        return outcome

    # -- one round ---------------------------------------------------------------------------------------------

    def _round(self, number: int, outcome: Outcome, watch: Watch) -> bool:
        half = self._path(number, "pruned.pt")
        if half is not None and half.exists():
            made = self._loaded(number, "pruned.pt", outcome)
        else:
            made = self._pruned(number, outcome, watch)
            self._keep(number, "pruned.pt", outcome, made)
        if self.recordings is not None and self.recipe.train:
            if not self._trained(number, watch):
                return False
            made.trained = self.recordings.accuracy(self.net)
        outcome.rounds.append(made)
        self._keep(number, "round.pt", outcome, made)
        return True

    def _pruned(self, number: int, outcome: Outcome, watch: Watch) -> Round:
        plan = self._plan(number, watch, outcome.plan)
        plan.apply(self.net, self.optimiser)
        whole = plan if outcome.plan is None else outcome.plan.then(plan)
        told = {"budget": str(self.budget), "seed": self.recipe.seed}  # of the run, not of its last round
        outcome.plan = PruningPlan(msgspec.structs.replace(whole.data, **told), whole.net, whole.clip)
        after = plan.data.after
        made = Round(plan.data.budget, after.macs, after.parameters, after.channels)
        if self.recordings is not None:
            made.raw = self.recordings.accuracy(self.net)
            watch.say("recalibrating norms")
            recalibrate(self.net, self.recordings.some(self.recipe.ranking))
            made.recalibrated = self.recordings.accuracy(self.net)
        return made

    def _plan(self, number: int, watch: Watch, before: PruningPlan | None) -> PruningPlan:
        recipe = self.recipe
        batches = list(self.recordings.some(recipe.ranking)) if self.recordings is not None else []
        options = recipe.options(self._part(number, before), data=bool(batches), turn=number)
        evidence = Evidence(self.net, batches, loss, recipe.seed)
        self.net.zero_grad(set_to_none=True)
        watch.say("tracing the network")
        return Planner(self.net, self.trace(self.net), options, evidence, watch.say).plan()

    def _part(self, number: int, before: PruningPlan | None) -> Budget:
        """The budget of one round: shares fall by one factor, so that each round removes as great a part."""
        last = number + 1 == self.recipe.rounds
        if not self.budget.relative:
            if not last:
                raise SpecError(
                    f"Rounds need a budget as a share of the network, as macs=50%; {self.recipe.budget} is a number."
                )
            return self.budget
        share = self.budget.limit ** ((number + 1) / self.recipe.rounds)
        if before is None or self.budget.kind not in ("macs", "parameters"):
            return Budget(self.budget.kind, self.budget.limit ** (1 / self.recipe.rounds), True)
        whole = getattr(before.data.before, self.budget.kind)
        return Budget(self.budget.kind, share * whole, False)

    def _trained(self, number: int, watch: Watch) -> bool:
        assert self.recordings is not None
        watch.say("training")
        recipe = self.recipe
        objective = distilled(loss, _Logits(self.whole), recipe.distil) if recipe.distil else supervised(loss)
        target = self.net if not recipe.distil else _Logits(self.net)
        options = TrainingOptions(seed=recipe.seed + number, precision="fp32", optimiser=lambda _: self.optimiser)
        training = Training(target, objective, Schedule(recipe.train, recipe.rate), options)
        checkpoint = self._path(number, "training.pt")
        if checkpoint is not None:
            training.resume(checkpoint)
        done = training.run(
            self.recordings.batches, checkpoint=checkpoint, stop=watch.stop, report=watch.report, save_every=50
        )
        self.net.eval()
        return done.ended != "stopped"

    # -- what is kept ------------------------------------------------------------------------------------------

    def _path(self, number: int, name: str) -> Path | None:
        return None if self.folder is None else self.folder / f"round-{number + 1}-{name}"

    def _keep(self, number: int, name: str, outcome: Outcome, made: Round) -> None:
        path, plan = self._path(number, name), self._path(number, "plan.json")
        if path is None or plan is None or outcome.plan is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        outcome.plan.save(plan)
        state = {"net": self.net.state_dict(), "optimiser": self.optimiser.state_dict(), "round": vars(made)}
        with replace_file(path) as file:
            torch.save(state, file)

    def _resumed(self, number: int, outcome: Outcome) -> bool:
        path = self._path(number, "round.pt")
        if path is None or not path.exists():
            return False
        outcome.rounds.append(self._loaded(number, "round.pt", outcome))
        return True

    def _loaded(self, number: int, name: str, outcome: Outcome) -> Round:
        """Take up a kept round: the first network pruned anew by the plan, then its numbers."""
        path, kept = self._path(number, name), self._path(number, "plan.json")
        assert path is not None and kept is not None
        outcome.plan = load_plan(kept)
        pruned = outcome.plan.apply(copy.deepcopy(self.whole))
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            ours, theirs = ([*net.parameters(), *net.buffers()] for net in (self.net, pruned))
            for tensor, like in zip(ours, theirs, strict=True):
                tensor.data = like.data
            for repair in outcome.plan.data.repairs:
                setattr(self.net.get_submodule(repair.module), repair.attribute, repair.after)
            self.net.load_state_dict(saved["net"])
            self.optimiser.load_state_dict(saved["optimiser"])
        except (RuntimeError, ValueError, KeyError, EOFError, UnpicklingError) as error:
            raise SpecError(
                f"{path} is damaged or of another run ({str(error).splitlines()[0]}); remove its folder."
            ) from error
        return Round(**saved["round"])


class _Logits(nn.Module):
    """A network of which only the answers' logits are seen."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Any) -> Any:
        return logits(self.net(inputs))
