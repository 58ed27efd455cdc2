"""The rules: one per operator family, looked up by operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from edgeco.continual.context import Context
from edgeco.continual.value import Value

Rule = Callable[[Context], "Value | list[Value]"]

_RULES: dict[Any, Rule] = {}


def rule(*ops: Any) -> Callable[[Rule], Rule]:
    """Register a function as the step rule of ATen (or custom) operators.

    The function gets a :class:`~edgeco.continual.context.Context` and returns the operator's value in the step
    network (a list for an operator of several results). It is called only where an argument changes with time.

    Args:
        ops: operators (``torch.ops.mylib.twice``) or single overloads (``torch.ops.mylib.twice.default``).

    Example:
        >>> import edgeco
        >>> from edgeco.continual.rules.pointwise import pointwise
        >>> _ = edgeco.rule(torch.ops.aten.erf)(pointwise)   # an operator that treats every element alone
    """

    def register(function: Rule) -> Rule:
        for op in ops:
            _RULES[op] = function
        return function

    return register


def registered() -> dict[Any, Rule]:
    """Every operator that has a rule of its own."""
    from edgeco.continual import rules  # noqa: F401  (registers them on first use)

    return dict(_RULES)


def find(target: Any) -> Rule | None:
    """The rule of an operator: its own, its packet's, or the pointwise rule for every operator tagged pointwise."""
    from edgeco.continual import rules  # registers them on first use

    found = _RULES.get(target) or _RULES.get(getattr(target, "overloadpacket", None))
    if found is None and torch.Tag.pointwise in getattr(target, "tags", ()):
        return rules.pointwise.pointwise
    return found
