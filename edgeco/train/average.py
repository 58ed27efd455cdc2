"""A moving average of a network's weights, which answers more steadily than the weights of the last step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


def copied(net: nn.Module) -> State:
    """All weights and buffers, by name, as they are now."""
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


class Average:
    """The exponential moving average of all weights and floating buffers; whole numbers are those of the last step.

    Early steps count less long: the share that stays is min(decay, (1 + n) / (10 + n)) at the n-th update, so that the
    first weights, which are random, are soon forgotten.

    Attributes:
        state: the averages by name.
        updates: how often it was updated.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.state = copied(net)

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Take in the weights as they are now."""
        stays = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for name, value in net.state_dict().items():
            kept = self.state[name]
            if kept.is_floating_point():
                kept.lerp_(value.detach(), 1 - stays)
            else:
                kept.copy_(value)

    @contextmanager
    def applied(self, net: nn.Module) -> Iterator[None]:
        """The network with the averages for the time of the block."""
        own = copied(net)
        net.load_state_dict(self.state)
        try:
            yield
        finally:
            net.load_state_dict(own)
