"""Values that are made in another way from step to step, in turn: which of several nodes a step takes.

An upsampled element is computed in some steps and read back in those between; a transposed convolution with a stride
has another sub-filter for every remainder. Each is a node `take_turns` in the step network as a whole, and the node
whose turn it is in the graph of a phase.
"""

from __future__ import annotations

from torch import Tensor, fx


def take_turns(choices: list[Tensor], rate: int, phase: int) -> Tensor:
    """The q-th of n choices, in steps congruent to phase + q rate / n modulo rate.

    Run as it stands, as if every step did all the work, it gives the sum, so that every choice has its say.
    """
    total = choices[0]
    for choice in choices[1:] if total.is_floating_point() else []:
        total = total + choice
    return total


def takes_turns(node: fx.Node) -> bool:
    """Whether a node stands for one of several in turn."""
    return node.target is take_turns


def taken(node: fx.Node, step: int) -> fx.Node:
    """The node whose turn it is in a step, in the place of one that takes turns; any other node itself."""
    while takes_turns(node):
        choices, rate, phase = node.args
        assert isinstance(choices, list | tuple) and isinstance(rate, int) and isinstance(phase, int)
        node = choices[(step - phase) % rate // (rate // len(choices))]  # type: ignore[assignment]
    return node
