"""From a network and a budget to a plan that the oracle has seen."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import nn

from edgeco.continual.convert import trace_network
from edgeco.errors import CheckFailed, SpecError
from edgeco.graph.channels import Channels, Family, find_channels
from edgeco.graph.trace import Clip, ClipGraph, TimeDims
from edgeco.prune.budget import Budget
from edgeco.prune.cuts import Cut, Repair, cut_network, network_hash
from edgeco.prune.figures import state_bytes, step_session, step_times
from edgeco.prune.importance import NEED_DATA, Batches, Criterion, Evidence, Loss, scored
from edgeco.prune.options import Options, matches, touches
from edgeco.prune.oracle import Mismatch, difference, verify
from edgeco.prune.plan import Figures, Group, PlanData, PruningPlan
from edgeco.prune.repairs import alternatives, known_repairs, possible_repairs
from edgeco.prune.selection import Limits, Removed, fewest, first_that_keeps, rank

Say = Callable[[str], None]


def plan(
    net: nn.Module,
    clip: Clip,
    budget: Budget | float | str,
    *,
    time_dim: TimeDims = 2,
    importance: str | Criterion | None = None,
    batches: Batches = (),
    loss: Loss = nn.functional.cross_entropy,
    protect: Sequence[str] = (),
    round_to: int = 1,
    min_width: int = 2,
    cap: float = 0.9,
    widths: dict[str, int] | None = None,
    per: str | None = None,
    approximate: bool = False,
    seed: int = 0,
    say: Say | None = None,
) -> PruningPlan:
    """Decide which channels of a network go, so that it keeps to a budget.

    The network is traced as for the conversion and not changed; what goes is tried on copies and held against the
    oracle. `PruningPlan.apply` then prunes it.

    Args:
        net: the clip network.
        clip, time_dim: as for `edgeco.convert`.
        budget: a share of the multiply-accumulates (0.5), or text as "parameters=1.2M", "state=50%", "latency=5ms".
        importance: "taylor", "magnitude", "norm", "activation", "random" or a function; taylor if there are batches,
            else magnitude.
        batches: inputs and targets for criteria that look at data; read once.
        loss: of answers and targets, for taylor.
        protect: names of modules or tensors, or regular expressions that match them whole; channels they make stay.
        round_to: widths become multiples of it (8, 16, 32), or stay.
        min_width, cap: least units that stay of each group, and the greatest share of it that goes.
        widths: least units of single groups, by name.
        per: divide importance by what a unit costs, "macs" or "parameters".
        approximate: also remove channels whose removal changes a normalisation (layer norm over them, means of them).
        seed: for what is drawn.
        say: called with what takes long.

    Raises:
        SpecError: an argument is not usable, or the budget is out of reach; says what can be reached.
        ConversionError: the network cannot be traced.
        CheckFailed: groups each pass the oracle alone, but not together.

    Example:
        >>> import torch
        >>> from edgeco import prune
        >>> net = torch.nn.Sequential(torch.nn.Conv1d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv1d(8, 2, 1))
        >>> pruning = prune.plan(net, torch.zeros(1, 3, 16), 0.5)
        >>> net = pruning.apply()
        >>> net[0].out_channels
        4
    """
    chosen = importance or ("taylor" if batches else "magnitude")
    if isinstance(chosen, str) and chosen in NEED_DATA and not batches:
        raise SpecError(f"importance {chosen!r} looks at data; give batches, or use 'magnitude'.")
    if per not in (None, "macs", "parameters"):
        raise SpecError(f"per is {per!r}; give 'macs', 'parameters' or None.")
    options = Options(
        Budget.of(budget), chosen, tuple(protect), Limits(round_to, min_width, cap, widths), per, approximate, seed
    )
    say = say or (lambda text: None)
    say("tracing the network")
    traced = trace_network(net, clip, time_dim)
    evidence = Evidence(net, batches, loss, seed)
    return Planner(net, traced, options, evidence, say).plan()


class Planner:
    """One planning: families, scores, a choice, and the oracle's word on it."""

    def __init__(self, net: nn.Module, clip: ClipGraph, options: Options, evidence: Evidence, say: Say) -> None:
        self.net, self.clip, self.options, self.evidence, self.say = net, clip, options, evidence, say
        self.refused: dict[str, str] = {}
        """Families that the oracle refused, with its reason."""
        self.rigid: set[str] = set()
        self.scores: dict[str, np.ndarray[Any, Any]] = {}
        self.repairs: tuple[Repair, ...] = ()

    def plan(self) -> PruningPlan:
        """The plan."""
        while True:
            self.find()
            removed = self._choose()
            exact = {name: units for name, units in removed.items() if not self._family(name).approximate}
            self.say("holding it against the oracle")
            wrong = self._refused(exact)
            if not wrong:
                break
            for name, why in wrong.items():
                nodes = [node for node, families in self.channels.assumed.items() if name in families]
                if nodes and not self.rigid.issuperset(nodes):
                    self.rigid.update(nodes)
                else:
                    self.refused[name] = f"the oracle refused it: {why}"
        return self._written(removed, exact)

    def find(self) -> None:
        """Find families, and why some of them stay."""
        self._check_protect()
        self.channels = find_channels(self.clip, frozenset(self.rigid))
        self.reasons = self._reasons()

    # -- what may go -------------------------------------------------------------------------------------------

    def _family(self, name: str) -> Family:
        return next(family for family in self.channels.families if family.name == name)

    def _reasons(self) -> dict[str, str]:
        """Why families stay."""
        found = dict(self.refused)
        for family in self.channels.families:
            pattern = next((p for p in self.options.protect if touches(family, p)), None)
            if pattern is not None:
                found[family.name] = f"{pattern!r} is protected"
            elif family.approximate and not self.options.approximate:
                found[family.name] = f"only as approximate: {family.approximate}"
            elif not self.options.limits.portions(family):
                whole = f", which fall {family.each} at a time" if family.each > 1 else ""
                found.setdefault(family.name, f"it is too narrow to lose any ({family.width} channels{whole})")
        return found

    def _check_protect(self) -> None:
        names = [name for name, _ in [*self.net.named_modules(), *self.net.named_parameters()]]
        for pattern in self.options.protect:
            if not any(matches(pattern, name) for name in names):
                raise SpecError(f"protect names {pattern!r}, but the network has nothing by that name.")

    def free(self) -> list[Family]:
        """Families of which units may go."""
        return [family for family in self.channels.families if family.name not in self.reasons]

    # -- choosing ----------------------------------------------------------------------------------------------

    def _choose(self) -> Removed:
        families = self.free()
        if not families:
            raise SpecError(f"Nothing of the network can be removed. {self._why_not()}")
        self.say(f"ranking {sum(f.units for f in families)} units in {len(families)} groups")
        scores = self._scored(families)
        ranking = rank(families, scores, self.options.limits)
        figure = self._figure()
        before = figure({})
        allowed = self.options.budget.allowed(before)
        if before <= allowed:
            raise SpecError(f"The network keeps to the budget {self.options.budget} as it is ({before:g}).")
        choose = first_that_keeps if self.options.budget.kind == "latency" else fewest
        removed = choose(ranking, figure, allowed)
        if removed is None:
            least = figure(ranking.first(len(ranking.portions)))
            raise SpecError(
                f"The budget {self.options.budget} is out of reach: with all that may go, {least / before:.1%} "
                f"is left. {self._why_not()}"
            )
        return removed

    def _why_not(self) -> str:
        blocked = {block.name: block.reason for block in self.channels.blocks}
        reasons = sorted({f"{name} ({why})" for name, why in (self.reasons or blocked).items()})
        more = f", and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        what = f"Groups that stay: {'; '.join(reasons[:3])}{more}. " if reasons else ""
        return f"{what}Raise the cap, lower min_width or round_to, protect less, or allow approximate=True."

    def _scored(self, families: list[Family]) -> list[np.ndarray[Any, Any]]:
        missing = [family for family in families if family.name not in self.scores]
        fresh = [f for f in families if len(self.scores.get(f.name, ())) not in (0, f.units)]
        if missing or fresh:
            made = scored(self.options.importance, families, self.evidence)
            self.scores = {family.name: own for family, own in zip(families, made, strict=True)}
        found = [self.scores[family.name] for family in families]
        if self.options.per is None:
            return found
        return [own / max(self._unit_cost(family), 1.0) for family, own in zip(families, found, strict=True)]

    def _unit_cost(self, family: Family) -> float:
        """What one unit costs; divided by it, a cheap unit stays longer."""
        one = {family.name: np.zeros(1, dtype=np.int64)}
        if self.options.per == "parameters":
            return float(self._parameters({}) - self._parameters(one))
        return float(self._macs({}) - self._macs(one))

    def _macs(self, removed: Removed) -> int:
        return sum(layer.macs for layer in self.channels.layers(self.channels.gone(removed)))

    def _parameters(self, removed: Removed) -> int:
        return self.channels.parameters(self.channels.gone(removed))

    def _figure(self) -> Callable[[Removed], float]:
        kind = self.options.budget.kind
        if kind == "macs":
            return self._macs
        if kind == "parameters":
            return self._parameters

        def pruned(removed: Removed) -> nn.Module:
            net = copy.deepcopy(self.net)
            cut_network(net, *self.surgery(removed))
            return net

        if kind == "state":
            return lambda removed: state_bytes(pruned(removed), self.clip)
        whole = step_session(self.net, self.clip)
        unpruned = float(np.median(step_times([whole])[0]))

        def seconds(removed: Removed) -> float:
            """Beside the whole network, step by step, so that a busy machine slows both alike."""
            if not removed:
                return unpruned
            self.say("timing steps")
            before, after = step_times([whole, step_session(pruned(removed), self.clip)])
            found = float(np.median(after))
            return found / float(np.median(before)) * unpruned if self.options.budget.relative else found

        return seconds

    # -- surgery and oracle ------------------------------------------------------------------------------------

    def surgery(self, removed: Removed) -> tuple[list[Cut], list[Repair]]:
        """The cuts that take units out, and the sizes to set."""
        cuts = cuts_of(self.channels, removed)
        gone = self.channels.gone(removed)
        probe = copy.deepcopy(self.net)
        cut_network(probe, cuts)
        known = known_repairs(probe, cuts, self.channels, gone)
        own = {(r.module, r.attribute): r for r in possible_repairs(self.net, self.channels, gone)}
        chosen = [own[r.module, r.attribute] for r in self.repairs if (r.module, r.attribute) in own]
        return cuts, [
            *known,
            *(r for r in chosen if (r.module, r.attribute) not in {(k.module, k.attribute) for k in known}),
        ]

    def _attempt(self, removed: Removed) -> float:
        """The oracle's difference; tried with the network's own sizes left alone first, then set.

        Raises:
            Mismatch: neither passes.
        """
        try:
            return verify(self.net, self.clip, *self.surgery(removed))
        except Mismatch as error:
            first = error
        before = self.repairs
        for choice in alternatives(possible_repairs(self.net, self.channels, self.channels.gone(removed))):
            self.repairs = choice
            try:
                return verify(self.net, self.clip, *self.surgery(removed))
            except Mismatch:
                self.repairs = before
        raise first

    def _refused(self, removed: Removed) -> dict[str, str]:
        """Families that the oracle refuses, found by halving; empty if it passes all together."""
        self.repairs = ()
        self.passed: float | None = None
        if not removed:
            return {}
        try:
            self.passed = self._attempt(removed)
        except Mismatch as error:
            if len(removed) == 1:
                return {next(iter(removed)): str(error)}
            names = list(removed)
            middle = len(names) // 2
            halves = [{n: removed[n] for n in part} for part in (names[:middle], names[middle:])]
            found = {**self._refused(halves[0]), **self._refused(halves[1])}
            if found:
                return found
            raise CheckFailed(
                f"Groups pass the oracle alone but not together ({error}): {', '.join(names[:4])}; "
                "protect some of them."
            ) from error
        return {}

    # -- the plan ----------------------------------------------------------------------------------------------

    def _written(self, removed: Removed, exact: Removed) -> PruningPlan:
        cuts, repairs = self.surgery(removed)
        near = any(self._family(name).approximate for name in removed)
        if near:
            try:
                difference(self.net, self.clip, cuts, repairs)
            except Mismatch as error:
                raise CheckFailed(f"The approximate groups cannot be removed: {error}.") from error
        importance = self.options.importance
        data = PlanData(
            network=network_hash(self.net),
            clip=tuple((i.name, tuple(i.shape), str(i.dtype), i.time_dim) for i in self.clip.inputs),
            by_name=self.clip.by_name,
            budget=str(self.options.budget),
            importance=importance if isinstance(importance, str) else getattr(importance, "__name__", "own"),
            seed=self.options.seed,
            cuts=tuple(cuts),
            repairs=tuple(repairs),
            groups=(*self._groups(removed), *self._blocked()),
            unknown=self.channels.unknown,
            before=self._figures({}),
            after=self._figures(removed),
            difference=self.passed if exact else None,
            approximate=near,
        )
        return PruningPlan(data, self.net, self.clip)

    def _groups(self, removed: Removed) -> list[Group]:
        whole = self._macs({})
        made = []
        for family in self.channels.families:
            one = {family.name: np.zeros(1, dtype=np.int64)}
            made.append(
                Group(
                    name=family.name,
                    units=family.units,
                    each=family.each,
                    removed=tuple(removed.get(family.name, np.zeros(0, dtype=np.int64)).tolist()),
                    members=tuple(family.members),
                    macs=whole - self._macs(one),
                    blocked=self.reasons.get(family.name),
                    approximate=family.approximate,
                )
            )
        return made

    def _blocked(self) -> list[Group]:
        return [
            Group(name=b.name, units=b.width, each=1, members=b.tensors, blocked=b.reason) for b in self.channels.blocks
        ]

    def _figures(self, removed: Removed) -> Figures:
        channels = sum((f.units - len(removed.get(f.name, ()))) * f.each for f in self.channels.families)
        return Figures(self._macs(removed), self._parameters(removed), channels)


def cuts_of(channels: Channels, removed: Removed) -> list[Cut]:
    """The indices of all tensors that go with some units."""
    gone: dict[tuple[str, int], list[np.ndarray[Any, Any]]] = {}
    for family in channels.families:
        units = removed.get(family.name)
        if units is not None and len(units):
            for member, indices in family.members.items():
                gone.setdefault(member, []).append(indices[units].reshape(-1))
    sizes = {
        channels.clip.names[node.name]: tuple(int(n) for n in node.meta["val"].shape)
        for node in channels.clip.graph.nodes
        if node.op == "placeholder" and node.name in channels.clip.names
    }
    return [
        Cut(name, axis, sizes[name][axis], tuple(np.unique(np.concatenate(parts)).tolist()))
        for (name, axis), parts in gone.items()
    ]
