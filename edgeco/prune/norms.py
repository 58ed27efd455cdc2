"""Statistics of norms taken anew: those that a network had belong to the channels it had."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from edgeco.prune.importance import call


def recalibrate(net: nn.Module, batches: Iterable[tuple[Any, Any]]) -> int:
    """Set the running statistics of all batch norms to the mean over these batches, each counting alike.

    A cumulative average, not the moving one of training: a few batches then do. Nothing else of the network changes;
    dropout is off.

    Returns:
        How many norms were set; 0 leaves the network as it was, also where there are no batches.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None]
    given = iter(batches)
    first = next(given, None)
    if not norms or first is None:
        return 0
    modes = [(module, module.training) for module in net.modules()]
    momenta = [norm.momentum for norm in norms]
    net.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    try:
        with torch.no_grad():
            call(net, first[0])
            for inputs, _ in given:
                call(net, inputs)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
    return len(norms)
