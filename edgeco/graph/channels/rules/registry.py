"""The table of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from edgeco.graph.channels.axes import Value
from edgeco.graph.channels.call import Call

Rule = Callable[[Call], "Value | list[Value | None]"]

RULES: dict[Any, Rule] = {}


def channel_rule(*ops: Any) -> Callable[[Rule], Rule]:
    """Register a function as the rule by which operators join or pin channels.

    It gets a `Call` and returns the axes of the result (a list for an operator of several results).

    Args:
        ops: operators (``torch.ops.mylib.twice``) or single overloads.
    """

    def register(function: Rule) -> Rule:
        for op in ops:
            RULES[op] = function
        return function

    return register


def existing(names: Iterable[str]) -> list[Any]:
    """ATen operators by name, those that this PyTorch has."""
    return [op for name in names if (op := getattr(torch.ops.aten, name, None)) is not None]
