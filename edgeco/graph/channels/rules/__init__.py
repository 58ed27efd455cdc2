"""Which channels an operator joins, by family; looked up by operator."""

from __future__ import annotations

from typing import Any

import torch

from edgeco.graph.channels.rules import (
    attention,
    axiswise,
    convolution,
    creation,
    normalisation,
    pointwise,
    products,
    recurrent,
    shape,
    slicing,
)
from edgeco.graph.channels.rules.registry import RULES, Rule, channel_rule

_FAMILIES = (
    attention,
    axiswise,
    convolution,
    creation,
    normalisation,
    products,
    recurrent,
    shape,
    slicing,
)
"""Imported for what they register."""


def find_rule(target: Any) -> Rule | None:
    """The rule of an operator: its own, its packet's, or the pointwise rule for every operator tagged pointwise."""
    found = RULES.get(target) or RULES.get(getattr(target, "overloadpacket", None))
    if found is None and torch.Tag.pointwise in getattr(target, "tags", ()):
        return pointwise.pointwise
    return found


__all__ = ["Rule", "channel_rule", "find_rule"]
