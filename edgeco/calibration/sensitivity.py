"""Which layers cost accuracy in INT8: each left in float by itself, and what the whole network gains by it.

One layer at a time keeps the cost linear in the number of layers. What several together would gain is not the sum, so a
choice under a budget is measured again at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgeco.calibration.forms import Prepared, Target, measured, quantised_form
from edgeco.calibration.network import Graph
from edgeco.calibration.placement import label, layers_of, place
from edgeco.export.check import rollout

Array = np.ndarray[Any, Any]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Sensitivity:
    """What leaving one layer or history in float does to the mean relative error of the answers.

    Attributes:
        name: what ``keep_float`` takes.
        error: with it in float.
        gain: the share of the whole form's error that goes away; below 0 where it grows.
    """

    name: str
    error: float
    gain: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Choice:
    """What to keep in float, the error that is left, and whether it is within the budget."""

    keep_float: tuple[str, ...]
    error: float
    within: bool


def sensitivities(
    prepared: Prepared,
    target: Target,
    frames: Array,
    keep_float: Collection[str] = (),
    progress: Progress | None = None,
) -> list[Sensitivity]:
    """Every quantised layer and history by itself in float, the costliest first.

    Args:
        prepared: the network.
        target: whose form.
        frames: the stream that errors are measured on.
        keep_float: what stays in float in any case.
        progress: told the number that is done, of how many, and the next name.
    """
    tell = progress or (lambda done, all_, name: None)
    names = candidates(prepared, target, keep_float)
    expected = rollout(prepared.source.phases(), prepared.manifest, frames)
    whole = _error(prepared, target, frames, expected, keep_float)
    found = []
    for number, name in enumerate(names):
        tell(number, len(names), name)
        error = _error(prepared, target, frames, expected, {*keep_float, name})
        found.append(Sensitivity(name, error, 1 - error / whole if whole else 0.0))
    return sorted(found, key=lambda one: one.error)


def within_budget(
    prepared: Prepared,
    target: Target,
    frames: Array,
    budget: float,
    keep_float: Collection[str] = (),
    progress: Progress | None = None,
) -> Choice:
    """The fewest names, by sensitivity, that bring the mean relative error within a budget; doubled until they do.

    Args:
        prepared: the network.
        target: whose form.
        frames: the stream that errors are measured on.
        budget: mean relative error that is accepted.
        keep_float: what stays in float in any case; the choice is of what stays so besides.
        progress: as for ``sensitivities``.
    """
    expected = rollout(prepared.source.phases(), prepared.manifest, frames)
    error = _error(prepared, target, frames, expected, keep_float)
    if error <= budget:
        return Choice((), error, True)
    found = sensitivities(prepared, target, frames, keep_float, progress)
    order = [one.name for one in found if one.gain > 0]
    count = 1
    while True:
        kept = tuple(order[:count])
        error = _error(prepared, target, frames, expected, {*keep_float, *kept})
        if error <= budget or count >= len(order):
            return Choice(kept, error, error <= budget)
        count *= 2


def candidates(prepared: Prepared, target: Target, keep_float: Collection[str] = ()) -> list[str]:
    """Names of the layers and histories that a form has in INT8."""
    exported, manifest = prepared.exported, prepared.manifest
    graphs = [Graph(number, exported, manifest) for number in range(len(exported.graphs))]
    placed = place(graphs, manifest, "cpu" if target == "cpu" else "trt", keep_float)
    names = dict.fromkeys(
        label(graph, node)
        for graph in graphs
        for node in layers_of(graph)
        if any(key.graph == graph.number and key.name == node.output[0] for key in placed.layers)
    )
    return [*names, *sorted(placed.histories)]


def _error(
    prepared: Prepared, target: Target, frames: Array, expected: dict[str, Array], keep_float: Collection[str]
) -> float:
    form, runs = quantised_form(prepared, target, keep_float, correct=False)
    return max(drift.mean_error for drift in measured(runs, prepared.manifest, form, frames, expected))
