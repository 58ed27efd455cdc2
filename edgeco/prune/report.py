"""What a pruning came to, as plain data: figures before and after, of the whole, of every layer and of every group."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec
from torch import nn

from edgeco.continual.context import Exact
from edgeco.export.package import history_bytes
from edgeco.graph.cost import layer_costs
from edgeco.graph.trace import ClipGraph
from edgeco.prune.figures import percentiles, step_graph, step_session, step_times
from edgeco.prune.plan import PruningPlan
from edgeco.prune.rounds import Outcome

UNAVAILABLE = None
"""Of what was not measured; never 0."""


def made_report(
    name: str,
    whole: nn.Module,
    outcome: Outcome,
    clip: ClipGraph,
    *,
    exact: Exact | None = None,
    accuracy: tuple[float, float] | None = None,
    data: str | None = None,
    timed: bool = True,
    curves: dict[str, dict[str, float]] | None = None,
) -> dict[str, Any]:
    """The report of a run.

    Args:
        name: of the network.
        whole: the network before.
        outcome: of the run.
        clip: trace of the network before.
        exact: how it is converted.
        accuracy: of the network before and after, on clips held out.
        data: fingerprint of the recordings.
        timed: measure steps of both, in turn.
        curves: sensitivity of single groups.
    """
    plan = outcome.plan
    assert plan is not None
    before, after = plan.data.before, plan.data.after
    step_before, step_after = step_graph(whole, clip, exact), step_graph(outcome.net, clip, exact)
    state = [sum(map(history_bytes, step.histories)) for step in (step_before, step_after)]
    return {
        "name": name,
        "budget": plan.data.budget,
        "importance": plan.data.importance,
        "seed": plan.data.seed,
        "data": data,
        "figures": {
            "macs": [before.macs, after.macs],
            "parameters": [before.parameters, after.parameters],
            "filters": [before.channels, after.channels],
            "state_bytes": state,
            "latency_seconds": _latency(whole, outcome.net, clip, exact) if timed else UNAVAILABLE,
            "accuracy": list(accuracy) if accuracy is not None else UNAVAILABLE,
        },
        "density": {
            "filters": after.channels / before.channels,
            "weights": after.parameters / before.parameters,
            "macs": after.macs / before.macs if before.macs else UNAVAILABLE,
        },
        "difference": plan.data.difference,
        "approximate": plan.data.approximate,
        "rounds": [vars(r) for r in outcome.rounds],
        "layers": _layers(whole, outcome.net, clip, step_after.clip),
        "histories": [
            {"name": a.name, "bytes": [history_bytes(a), history_bytes(b)]}
            for a, b in zip(step_before.histories, step_after.histories, strict=False)
        ],
        "groups": groups_of(plan),
        "unknown": plan.data.unknown,
        "curves": curves or {},
    }


def groups_of(plan: PruningPlan) -> list[dict[str, Any]]:
    """Every group: how many of its channels stay, and why it stays whole."""
    return [
        {
            "name": group.name,
            "channels": [group.units * group.each, (group.units - len(group.removed)) * group.each],
            "macs_per_unit": group.macs,
            "blocked": group.blocked,
            "approximate": group.approximate,
        }
        for group in plan.data.groups
    ]


def _latency(whole: nn.Module, pruned: nn.Module, clip: ClipGraph, exact: Exact | None) -> dict[str, Any]:
    """Of a step in ONNX Runtime on this machine, both networks in turn."""
    times = step_times([step_session(whole, clip, exact), step_session(pruned, clip, exact)])
    one, two = (percentiles(own) for own in times)
    return {key: [one[key], two[key]] for key in one}


def _layers(whole: nn.Module, pruned: nn.Module, before: ClipGraph, after: ClipGraph) -> list[dict[str, Any]]:
    """Multiply-accumulates and parameters of every layer that has any."""
    macs: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for place, clip in enumerate((before, after)):
        names = {node.name: _layer(node) for node in clip.graph.nodes}
        for cost in layer_costs(clip.graph, clip.batch):
            macs[names[cost.name]][place] += cost.macs
    parameters: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for place, net in enumerate((whole, pruned)):
        for name, tensor in net.named_parameters():
            parameters[name.split(".parametrizations.")[0].rpartition(".")[0]][place] += tensor.numel()
    names_in_order = dict.fromkeys([*macs, *parameters])
    return [{"name": name, "macs": macs[name], "parameters": parameters[name]} for name in names_in_order]


def _layer(node: Any) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]).split("@")[0] if stack else ""


def to_json(report: dict[str, Any]) -> bytes:
    """The report as a file."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"
