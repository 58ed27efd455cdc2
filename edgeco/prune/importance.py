"""How much each unit of a family matters, by several criteria.

Scores of a family are divided by their mean, so that a wide layer is not starved by sums that grow with its width.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeco.errors import SpecError
from edgeco.graph.channels import Family
from edgeco.prune.cuts import owner_of, tensor_of

Scores = np.ndarray[Any, Any]
"""One number per unit of a family, in double precision."""

Batches = Sequence[tuple[Any, Any]] | Iterable[tuple[Any, Any]]
"""Inputs (one tensor, a tuple or a mapping) and targets."""

Loss = Callable[[Any, Any], Tensor]
"""Scalar loss of the network's answer and the targets."""


@dataclass(frozen=True)
class Evidence:
    """What a criterion may look at.

    Attributes:
        net: the network; a criterion must not change it.
        batches: inputs and targets, for criteria that need data.
        loss: of answers and targets; cross entropy if not given.
        seed: for what is drawn.
    """

    net: nn.Module
    batches: Batches = ()
    loss: Loss = nn.functional.cross_entropy
    seed: int = 0


Criterion = Callable[[Sequence[Family], Evidence], Sequence[Scores]]
"""Scores for every unit of every family, in their order: the greater, the longer it stays."""


def magnitude(families: Sequence[Family], evidence: Evidence) -> list[Scores]:
    """Length of the weights that make a unit, summed over the layers that make it."""
    return [_summed(family, evidence.net, family.producers or frozenset(family.members)) for family in families]


def norm_scale(families: Sequence[Family], evidence: Evidence) -> list[Scores]:
    """Magnitude of the scales of the norms a unit passes; of its weights where it passes none."""
    found = []
    for family in families:
        scales = frozenset(m for m in family.norms if m[0].rsplit(".", 1)[-1] != "bias")
        found.append(_summed(family, evidence.net, scales or family.producers or frozenset(family.members)))
    return found


def _summed(family: Family, net: nn.Module, chosen: Iterable[tuple[str, int]]) -> Scores:
    total = np.zeros(family.units)
    for name, axis in sorted(chosen):
        squares = _per_index(tensor_of(net, name).detach().double().square(), axis)
        total += np.sqrt(squares[family.members[name, axis]].sum(1))
    return total


def _per_index(tensor: Tensor, axis: int) -> Scores:
    """Sums over all axes but one."""
    return tensor.movedim(axis, 0).flatten(1).sum(1).cpu().numpy() if tensor.ndim > 1 else tensor.cpu().numpy()


def gate_taylor(families: Sequence[Family], evidence: Evidence) -> list[Scores]:
    """|dLoss/dgate| of a gate on every unit, summed over batches (Molchanov et al., 2019, arXiv:1906.10771).

    A gate of 1 behind the layers (and their norms) that make a unit has the derivative sum(w * dLoss/dw) over what
    makes it, so that no gate need be put in. The network is in evaluation.

    Raises:
        SpecError: there are no batches.
    """
    net = copy.deepcopy(evidence.net).eval()
    names = sorted({name for f in families for name, _ in (f.producers or f.members)})
    parameters = {name: tensor_of(net, name) for name in names}
    for tensor in parameters.values():
        if tensor.is_floating_point():
            tensor.requires_grad_(True)
    wanted = {name: t for name, t in parameters.items() if t.requires_grad}
    totals = [np.zeros(family.units) for family in families]
    count = 0
    for inputs, targets in evidence.batches:
        count += 1
        loss = evidence.loss(call(net, inputs), targets)
        made = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
        products = {
            name: (tensor.detach() * grad).double()
            for (name, tensor), grad in zip(wanted.items(), made, strict=True)
            if grad is not None
        }
        for family, total in zip(families, totals, strict=True):
            total += np.abs(_gates(family, products))
    if not count:
        raise SpecError("Gate-Taylor importance needs batches of inputs and targets; give some, or use 'magnitude'.")
    return totals


def _gates(family: Family, products: dict[str, Tensor]) -> Scores:
    total = np.zeros(family.units)
    for name, axis in sorted(family.producers or family.members):
        if name in products:
            total += _per_index(products[name], axis)[family.members[name, axis]].sum(1)
    return total


def activation(families: Sequence[Family], evidence: Evidence) -> list[Scores]:
    """Mean magnitude of what the layers give that make a unit, norms included; of weights where no layer is a module.

    Raises:
        SpecError: there are no batches.
    """
    net = copy.deepcopy(evidence.net).eval()
    sums: dict[str, Scores] = {}
    handles = []
    for path, module in sorted({p: m for f in families for p, m in _layers(net, f)}.items()):
        handles.append(module.register_forward_hook(_adding(path, sums)))
    count = 0
    with torch.no_grad():
        for inputs, _ in evidence.batches:
            count += 1
            call(net, inputs)
    for handle in handles:
        handle.remove()
    if not count:
        raise SpecError("Activation importance needs batches of inputs; give some, or use 'magnitude'.")
    found = []
    for family, weights in zip(families, magnitude(families, evidence), strict=True):
        seen = [(m, sums[m[0].rpartition(".")[0]]) for m in _weights(family) if m[0].rpartition(".")[0] in sums]
        parts = [mean[family.members[m]].sum(1) for m, mean in seen]
        found.append(np.sum(parts, 0) if parts else weights)
    return found


def _weights(family: Family) -> list[tuple[str, int]]:
    return sorted(m for m in family.producers if m[0].rsplit(".", 1)[-1] == "weight" and m[1] == 0)


def _layers(net: nn.Module, family: Family) -> list[tuple[str, nn.Module]]:
    kinds = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.LayerNorm)
    found: list[tuple[str, nn.Module]] = []
    for name, _ in _weights(family):
        module, _ = owner_of(net, name)
        if isinstance(module, kinds):
            found.append((name.rpartition(".")[0], module))
    return found


def _adding(path: str, sums: dict[str, Scores]) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        axis = output.ndim - 1 if isinstance(module, (nn.Linear, nn.LayerNorm)) else 1
        mean = output.detach().double().abs().movedim(axis, 0).flatten(1).mean(1).cpu().numpy()
        sums[path] = sums.get(path, 0) + mean

    return hook


def random(families: Sequence[Family], evidence: Evidence) -> list[Scores]:
    """Random numbers: the control that every other criterion must beat."""
    rng = np.random.default_rng(evidence.seed)
    return [rng.uniform(0.5, 1.5, family.units) for family in families]


CRITERIA: dict[str, Criterion] = {
    "taylor": gate_taylor,
    "magnitude": magnitude,
    "norm": norm_scale,
    "activation": activation,
    "random": random,
}
NEED_DATA = ("taylor", "activation")
"""Criteria that look at data."""


def call(net: nn.Module, inputs: Any) -> Any:
    """The answer of a network to one tensor, a tuple of them, or a mapping."""
    if isinstance(inputs, dict):
        return net(**inputs)
    return net(*inputs) if isinstance(inputs, (tuple, list)) else net(inputs)


def scored(criterion: str | Criterion, families: Sequence[Family], evidence: Evidence) -> list[Scores]:
    """Scores by a criterion, of every family divided by their mean.

    Raises:
        SpecError: there is no such criterion, it lacks data, or it gives something else than a score for every unit.
    """
    if isinstance(criterion, str) and criterion not in CRITERIA:
        raise SpecError(f"importance {criterion!r} is not known; give {', '.join(CRITERIA)}, or a function.")
    function = CRITERIA[criterion] if isinstance(criterion, str) else criterion
    raw = [np.asarray(scores, dtype=np.float64) for scores in function(families, evidence)]
    for family, scores in zip(families, raw, strict=True):
        if scores.shape != (family.units,) or not np.isfinite(scores).all():
            raise SpecError(
                f"The importance of {family.name} has the shape {scores.shape} or is not finite; "
                f"give one finite number for each of its {family.units} units."
            )
    return [scores / mean if (mean := float(np.abs(scores).mean())) > 0 else scores for scores in raw]
