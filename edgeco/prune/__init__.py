"""Structural pruning: which channels go, removed as one verified transaction."""

from edgeco.prune.budget import Budget
from edgeco.prune.plan import PruningPlan, load_plan
from edgeco.prune.planning import plan

__all__ = ["Budget", "PruningPlan", "load_plan", "plan"]
