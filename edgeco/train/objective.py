"""What training makes small: a scalar of the network, its inputs and what they should give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Loss = Callable[[Any, Any], Tensor]
"""Gives the scalar loss of the network's output and the labels."""

Objective = Callable[[nn.Module, Any, Any], Tensor]
"""Gives the scalar to make small for the network, a batch's inputs and its labels."""


def supervised(loss: Loss) -> Objective:
    """The loss of the network's own answers."""
    return lambda net, inputs, labels: loss(net(inputs), labels)


def distilled(loss: Loss, teacher: nn.Module, share: float = 0.5, temperature: float = 2.0) -> Objective:
    """Also the distance from another network's softened answers (Hinton et al., "Distilling the Knowledge in a Neural
    Network", 2015): ``(1 - share) * loss + share * temperature² * KL(teacher, network)``.

    Args:
        loss: of the network's answers (batch, classes) and the labels.
        teacher: answers as the network does; it is used as it is, without gradient and in evaluation mode.
        share: of the teacher, 0 to 1.
        temperature: by which both answers are divided before the softmax.
    """
    teacher = teacher.eval()

    def objective(net: nn.Module, inputs: Any, labels: Any) -> Tensor:
        answers = net(inputs)
        with torch.no_grad():
            wanted = functional.log_softmax(teacher(inputs) / temperature, dim=-1)
        given = functional.log_softmax(answers / temperature, dim=-1)
        distance = functional.kl_div(given, wanted, reduction="batchmean", log_target=True)
        return (1 - share) * loss(answers, labels) + share * temperature**2 * distance

    return objective
