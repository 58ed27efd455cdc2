"""Which channels of a shared base a task keeps: a pruning of the adapted network, said of the base alone.

Adapters are sliced by a pruning like any tensor, and a pack holds them as they then are; what a pack has to tell of the
base is which of its channels stay.
"""

from __future__ import annotations

from typing import Any

import msgspec
from torch import nn

from edgeco.adapters.naming import base_name
from edgeco.errors import EdgecoError, PackError
from edgeco.prune.cuts import Cut, network_hash
from edgeco.prune.plan import Group, PlanData, PruningPlan


def plan_of_base(plan: PruningPlan, base: nn.Module) -> PlanData:
    """The plan as one of the base: its names, without the adapters' tensors and without what stayed.

    Args:
        plan: of the adapted network, from its first state on (`PruningPlan.then` joins the steps of a schedule).
    """
    cuts = tuple(
        Cut(name, cut.axis, cut.size, cut.removed)
        for cut, name in ((cut, base_name(cut.tensor)) for cut in plan.data.cuts)
        if name is not None
    )
    groups = tuple(_of_base(g) for g in plan.data.groups if g.blocked is None and _has_base(g))
    return msgspec.structs.replace(plan.data, network=network_hash(base), cuts=cuts, groups=groups, unknown={})


def mask_bits(plan: dict[str, Any] | None) -> int:
    """Bits that say which channels are kept: one for every channel that might have gone."""
    return 0 if plan is None else sum(group.units * group.each for group in read_plan(plan).groups)


def pruned(net: nn.Module, plan: dict[str, Any]) -> nn.Module:
    """Remove the channels of a plan from a network, in place, held against the oracle.

    Raises:
        PackError: the plan is damaged, or does not fit.
    """
    try:
        return PruningPlan(read_plan(plan)).apply(net)
    except EdgecoError as error:
        raise PackError(f"The channels that the task pack keeps do not fit the base: {error}") from error


def read_plan(plan: dict[str, Any]) -> PlanData:
    """A plan from plain data.

    Raises:
        PackError: it is none.
    """
    try:
        return msgspec.convert(plan, PlanData)
    except msgspec.ValidationError as error:
        raise PackError(f"What the task pack says of channels is no pruning plan ({error}).") from error


def _has_base(group: Group) -> bool:
    """Whether a group has a tensor of the base; the ranks of adapters are units of their own, which only packs hold."""
    return any(base_name(name) is not None for name, _ in group.members)


def _of_base(group: Group) -> Group:
    return msgspec.structs.replace(group, members=())
