"""Loops over time as they are found in a trace."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edgeco.graph.gathers import gathered
from edgeco.graph.loops import Loop, find_loops
from edgeco.graph.rolling import loop as rolled_node
from edgeco.graph.rolling import rolled
from edgeco.graph.trace import ClipGraph, trace


class Net(nn.Module):
    """A loop whose body is given."""

    def __init__(self, body: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.product = body, nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self, x)


def found(body: Callable[[nn.Module, Tensor], Tensor]) -> tuple[ClipGraph, list[Loop]]:
    clip = gathered(trace(Net(body), torch.zeros(1, 3, 6), 2))
    return clip, find_loops(clip)


def cell(net: nn.Module, x: Tensor) -> Tensor:
    h = torch.zeros(x.shape[0], 3)
    for t in range(x.shape[2]):
        h = torch.tanh(x[:, :, t] + net.product(h))  # type: ignore[operator]
    return h


def backwards(net: nn.Module, x: Tensor) -> Tensor:
    h = torch.zeros(x.shape[0], 3)
    for t in reversed(range(x.shape[2])):
        h = torch.tanh(x[:, :, t] + net.product(h))  # type: ignore[operator]
    return h


def gathering(_: nn.Module, x: Tensor) -> Tensor:
    total = torch.zeros_like(x[:, :, 0])
    for t in range(x.shape[2]):
        total = total + x[:, :, t].relu()
    return total


def test_what_the_next_iteration_makes_of_a_state_is_not_carried() -> None:
    _, (loop,) = found(cell)
    assert loop.even and loop.length == 6 and len(loop.carries()) == 1
    (family, age) = loop.carries().pop()
    assert age == 1 and "tanh" in str(loop.keys[family][0])


def test_a_graph_holds_one_iteration() -> None:
    clip, loops = found(cell)
    made, _ = rolled(clip, loops)
    assert sum("linear" in str(node.target) for node in made.graph.nodes) == 0
    (node,) = (n for n in made.graph.nodes if n.target is rolled_node)
    assert sum("linear" in str(n.target) for n in node.meta["body"].graph.nodes) == 1
    assert sum("linear" in str(node.target) for node in clip.graph.nodes) == 6, "the graph given stays as it was"


def test_from_the_end() -> None:
    clip, loops = found(backwards)
    assert not any(loop.carries() for loop in loops)
    assert any(loop.carries() for loop in find_loops(clip, backwards=True))


def test_sums_are_not_carried() -> None:
    _, (loop,) = found(gathering)
    assert not loop.carries() and loop.differs is None and len(loop.good) == 2


@pytest.mark.parametrize("length", [1, 3])
def test_short_loops_stay(length: int) -> None:
    clip = gathered(trace(Net(cell), torch.zeros(1, 3, length), 2))
    assert find_loops(clip) == []
