"""A pruning as data: what goes, what stays and why, bound to the network it is of."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import msgspec
import torch
from torch import Tensor, fx, nn

from edgeco import __version__
from edgeco.errors import CheckFailed, SpecError
from edgeco.files import replace_file
from edgeco.graph.trace import ClipGraph, ClipInput
from edgeco.prune.cuts import (
    Cut,
    Repair,
    compose,
    compose_repairs,
    cut_network,
    network_hash,
    owner_of,
    tensor_of,
)
from edgeco.prune.oracle import Mismatch, difference, verify

SCHEMA = 1


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Channels that fall together, and how many of them go.

    Attributes:
        name: of the layer that first makes them.
        units: of them; `each` channels of that layer per unit.
        removed: numbers of the units that go.
        members: tensors and axes they lie along.
        macs: multiply-accumulates that one unit costs.
        blocked: why none of them may go; None where they may.
        approximate: why removing them changes a normalisation; None where it is exact.
    """

    name: str
    units: int
    each: int
    removed: tuple[int, ...] = ()
    members: tuple[tuple[str, int], ...] = ()
    macs: int = 0
    blocked: str | None = None
    approximate: str | None = None


class Figures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a network costs: multiply-accumulates of a clip, parameters, bytes of state and seconds of a step.

    None stands for what was not looked at.
    """

    macs: int
    parameters: int
    channels: int
    state: int | None = None
    latency: float | None = None


class PlanData(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What of a plan is written to a file."""

    schema: int = SCHEMA
    edgeco: str = __version__
    network: str
    """SHA-256 of the network's names and shapes."""
    clip: tuple[tuple[str, tuple[int, ...], str, int | None], ...]
    """Of every input: name, shape, type and axis of time."""
    by_name: bool = False
    """Whether the network takes them as keywords."""
    budget: str
    importance: str
    seed: int
    cuts: tuple[Cut, ...]
    repairs: tuple[Repair, ...] = ()
    groups: tuple[Group, ...] = ()
    unknown: dict[str, str] = {}
    before: Figures
    after: Figures
    difference: float | None = None
    """Of the exact part: channels zeroed against channels removed, relative; None if nothing exact goes."""
    approximate: bool = False


@dataclass
class PruningPlan:
    """A pruning of a network.

    Attributes:
        data: what is written to a file.
        net: the network it was planned for, if it was planned here.
    """

    data: PlanData
    net: nn.Module | None = field(default=None, repr=False)
    clip: ClipGraph | None = field(default=None, repr=False)

    def apply(self, net: nn.Module | None = None, optimiser: torch.optim.Optimizer | None = None) -> nn.Module:
        """Remove the channels from the network, in place, as one transaction.

        First it is done to copies and held against the oracle; only then to the network. On any failure the network is
        what it was, bit for bit.

        Args:
            net: the network; the one it was planned for if None.
            optimiser: whose state is cut with the parameters.

        Raises:
            SpecError: the plan is of another network, or there is none to apply it to.
            CheckFailed: the oracle finds that removing the channels is not the same as zeroing them.
        """
        target = net if net is not None else self.net
        if target is None:
            raise SpecError("The plan was read from a file; give apply() the network to prune.")
        self.check(target)
        self._verify(target)
        before = {name: tuple(tensor_of(target, name).shape) for name in {c.tensor for c in self.data.cuts}}
        undo = cut_network(target, self.data.cuts, self.data.repairs)
        if optimiser is not None:
            try:
                cut_optimiser(optimiser, target, self.data.cuts, before)
            except BaseException:
                undo.back()
                raise
        return target

    def check(self, net: nn.Module) -> None:
        """Raise SpecError if the plan is of another network."""
        if network_hash(net) != self.data.network:
            raise SpecError(
                "The plan is of another network: names or shapes differ, or the network is pruned already. "
                "Make the network as it was when the plan was made, with the same arguments."
            )

    def _verify(self, net: nn.Module) -> None:
        """Hold the cut against the oracle; one that is approximate must at least run and give finite answers."""
        clip = self.clip if self.clip is not None else clip_of(self.data)
        hold = difference if self.data.approximate else verify
        try:
            hold(net, clip, self.data.cuts, self.data.repairs)
        except Mismatch as error:
            raise CheckFailed(f"The plan was not applied, and nothing was changed: {error}.") from error

    def then(self, later: PruningPlan) -> PruningPlan:
        """One plan of the first network for this pruning and one of what it left."""
        data = msgspec.structs.replace(
            later.data,
            network=self.data.network,
            cuts=tuple(compose(self.data.cuts, later.data.cuts)),
            repairs=tuple(compose_repairs(self.data.repairs, later.data.repairs)),
            before=self.data.before,
            groups=_regrouped(self.data.groups, later.data.groups),
            difference=max((d for d in (self.data.difference, later.data.difference) if d is not None), default=None),
            approximate=self.data.approximate or later.data.approximate,
        )
        return PruningPlan(data, None, None)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as JSON.

        Raises:
            WriteError: the file cannot be written.
        """
        with replace_file(path) as file:
            file.write(msgspec.json.format(msgspec.json.encode(self.data), indent=1) + b"\n")


def _regrouped(first: tuple[Group, ...], second: tuple[Group, ...]) -> tuple[Group, ...]:
    """Groups of two prunings one after the other, units numbered as in the first network."""
    later = {group.name: group for group in second}
    made = []
    for group in first:
        after = later.get(group.name)
        if after is None:
            made.append(group)
            continue
        kept = [u for u in range(group.units) if u not in set(group.removed)]
        gone = {kept[u] for u in after.removed if u < len(kept)}
        made.append(msgspec.structs.replace(group, removed=tuple(sorted({*group.removed, *gone}))))
    return tuple(made)


def load_plan(path: str | os.PathLike[str]) -> PruningPlan:
    """Read a plan that `PruningPlan.save` wrote.

    Raises:
        SpecError: the file is missing, damaged, or of a newer schema.
    """
    try:
        with open(path, "rb") as file:
            data = msgspec.json.decode(file.read(), type=PlanData)
    except OSError as error:
        raise SpecError(f"The plan {path} cannot be read ({error.strerror}); check the path.") from error
    except msgspec.MsgspecError as error:
        raise SpecError(f"{path} is not a pruning plan of edgeco {__version__}: {error}.") from error
    if data.schema != SCHEMA:
        raise SpecError(f"The plan {path} has schema {data.schema}; this edgeco reads {SCHEMA}.")
    return PruningPlan(data)


def clip_of(data: PlanData) -> ClipGraph:
    """What the oracle needs of a trace, from a plan that was read from a file."""
    inputs = [ClipInput(name, tuple(shape), _dtype(kind), dim) for name, shape, kind, dim in data.clip]
    length = max(item.shape[item.time_dim] for item in inputs if item.time_dim is not None)
    for item in inputs:
        item.rate = 1 if item.time_dim is None else length // item.shape[item.time_dim]
    made = ClipGraph(fx.Graph(), {}, inputs, {}, None, 1, length)
    made.by_name = data.by_name
    return made


def _dtype(kind: str) -> torch.dtype:
    found = getattr(torch, kind.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype):
        raise SpecError(f"The plan names the type {kind!r}, which PyTorch does not have.")
    return found


def cut_optimiser(
    optimiser: torch.optim.Optimizer, net: nn.Module, cuts: Any, before: dict[str, tuple[int, ...]]
) -> None:
    """Cut what an optimiser keeps of each parameter (moments, momentum) as the parameter was cut.

    Raises:
        SpecError: it keeps something of another shape, of which is not known what a channel is.
    """
    states = []
    for name in {cut.tensor for cut in cuts}:
        module, last = owner_of(net, name)
        state = optimiser.state.get(getattr(module, last))
        for key, value in (state or {}).items():
            if isinstance(value, Tensor) and value.ndim and tuple(value.shape) != before[name]:
                raise SpecError(
                    f"The optimiser keeps {key!r} of {name} in the shape {tuple(value.shape)}, which cannot be cut; "
                    "make a new optimiser after pruning."
                )
        if state:
            states.append((name, state))
    for name, state in states:
        for key, value in state.items():
            if isinstance(value, Tensor) and value.ndim:
                for cut in (c for c in cuts if c.tensor == name):
                    value = value.index_select(cut.axis, torch.from_numpy(cut.kept).to(value.device))
                state[key] = value
