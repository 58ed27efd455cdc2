"""[build side] The order of what is done to a network, and why it is that order.

trace, prune, recalibrate norms, train, fuse adapters, fold norms, step, calibrate, export. Any stage may be left out;
pruning, recalibrating and training may take turns. What comes too late is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import msgspec
from torch import nn

from edgeco.adapters.pack import fused_network
from edgeco.errors import SpecError
from edgeco.factory import load_weights, make_network
from edgeco.prune import load_plan
from edgeco.spec import BuildSpec

Stage = Literal["trace", "prune", "recalibrate", "train", "fuse", "fold", "step", "calibrate", "export"]
ORDER: tuple[Stage, ...] = get_args(Stage)

_TURNS: frozenset[Stage] = frozenset(("prune", "recalibrate", "train"))
"""Stages that may take turns: prune a little, recalibrate, train, prune again."""

_NAMES: dict[Stage, str] = {
    "trace": "tracing",
    "prune": "pruning",
    "recalibrate": "recalibrating norms",
    "train": "training",
    "fuse": "fusing adapters",
    "fold": "folding norms",
    "step": "deriving the step network",
    "calibrate": "calibration",
    "export": "export",
}

_REASONS: dict[Stage, str] = {
    "fuse": "what was learned beside the weights is in them now, so that nothing of it can be told apart",
    "fold": "each layer's weights hold their norm's scale, so that statistics, adapters and gradients no longer fit",
    "step": "histories have the widths and the layers that the network had when the step network was derived",
    "calibrate": "ranges were measured on the step network as it was",
    "export": "the graph that was written is of the network as it was",
}
"""Why nothing that comes before a stage can be done after it."""


@dataclass
class Journey:
    """The stages that a network has been through.

    Example:
        >>> journey = Journey()
        >>> journey.enter("prune")
        >>> journey.enter("fold")
        >>> journey.enter("fuse")
        Traceback (most recent call last):
            ...
        edgeco.errors.SpecError: fusing adapters cannot follow folding norms: each layer's weights hold ...
    """

    done: list[Stage] = field(default_factory=list)

    def enter(self, stage: Stage) -> None:
        """Begin a stage.

        Raises:
            SpecError: a stage that must come after it is done already; says why.
        """
        late = [s for s in self.done if ORDER.index(s) > ORDER.index(stage) and not {s, stage} <= _TURNS]
        if stage in self.done and stage not in _TURNS:
            raise SpecError(f"{_NAMES[stage]} was done already; begin again with the network as it was before.")
        if late:
            first = min(late, key=ORDER.index)
            raise SpecError(
                f"{_NAMES[stage]} cannot follow {_NAMES[first]}: {_REASONS.get(first, 'it would undo it')}. "
                f"The order is {', '.join(ORDER)}."
            )
        self.done.append(stage)


@dataclass
class Made:
    """A network ready to be traced for its build.

    Attributes:
        net: in evaluation, float32.
        journey: the stages it has been through.
        labels: class names that a task pack brings.
        weights: what of the checkpoint was matched, None if none was given.
        pruning: what the plan took out, None if none was given.
    """

    net: nn.Module
    journey: Journey
    labels: tuple[str, ...] | None = None
    weights: dict[str, Any] | None = None
    pruning: dict[str, Any] | None = None


def make(spec: BuildSpec, factory: Any, say: Callable[[str], None] = lambda text: None) -> Made:
    """Make a network as its specification says: the factory's, pruned by the plan, with the weights.

    Raises:
        ConversionError: the factory fails.
        SpecError: the plan is of another network.
        CheckFailed: the plan does not pass the oracle.
        WeightsError: the weights do not fit.
    """
    say("making the network")
    made = Made(make_network(factory, spec.arguments).eval().float(), Journey())
    if spec.plan is not None:
        say("pruning the network")
        made.journey.enter("prune")
        plan = load_plan(spec.plan)
        plan.apply(made.net)
        figures = {"budget": plan.data.budget, "before": plan.data.before, "after": plan.data.after}
        made.pruning = msgspec.to_builtins(figures)
    if spec.weights is not None:
        made.weights = asdict(load_weights(made.net, spec.weights, spec.weights_key))
    if spec.pack is not None:
        made.journey.enter("fuse")
        made.net, task = fused_network(made.net, spec.pack)
        made.labels = task.info.labels
    return made
