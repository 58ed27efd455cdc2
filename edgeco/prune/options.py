"""How a network is to be pruned, and which layers are left alone."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from edgeco.errors import SpecError
from edgeco.graph.channels import Family
from edgeco.prune.budget import Budget
from edgeco.prune.importance import Criterion
from edgeco.prune.selection import Limits


@dataclass(frozen=True)
class Options:
    """How a network is to be pruned.

    Attributes:
        budget: what it may cost.
        importance: a name of `CRITERIA`, or a function.
        protect: names of tensors or modules, or regular expressions for them; channels that these make stay.
        limits: what every family keeps.
        per: divide scores by what a unit costs: "macs" or "parameters"; None not to.
        approximate: also remove channels that change a normalisation over others.
        seed: for what is drawn.
    """

    budget: Budget
    importance: str | Criterion = "taylor"
    protect: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    per: str | None = None
    approximate: bool = False
    seed: int = 0


def touches(family: Family, pattern: str) -> bool:
    return any(matches(pattern, name) for name, _ in family.makers)


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern is the name of a tensor or of a module it is in, or a regular expression that matches it."""
    if name == pattern or name.startswith(f"{pattern}."):
        return True
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error as error:
        raise SpecError(f"protect holds {pattern!r}, which is no name and no regular expression ({error}).") from error
