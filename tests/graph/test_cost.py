"""What crosses between the kernels of a step, counted by hand for small networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from edgeco.continual.convert import convert_graph, trace_network
from edgeco.export.onnx import export_onnx
from edgeco.export.package import layer_records, step_macs
from edgeco.graph.cost import FusedLayer, fused_layers


def layers(net: nn.Module, *shape: int) -> list[FusedLayer]:
    """The fused layers of a network's step."""
    step = convert_graph(trace_network(net.eval(), torch.zeros(1, *shape)))
    export_onnx(step)  # gives every value its shape
    return fused_layers(step.module.graph, step.clip.batch, [item.name for item in step.clip.inputs])


def test_activations_join_their_convolution_and_the_frame_is_not_counted() -> None:
    net = nn.Sequential(
        nn.Conv3d(3, 8, (1, 3, 3), padding=(0, 1, 1)),
        nn.ReLU(),
        nn.Conv3d(8, 4, (1, 1, 1), bias=False),
        nn.Sigmoid(),
    )
    first, second = layers(net, 3, 4, 6, 6)
    assert (first.op, first.macs, first.reads, first.writes) == ("aten.conv2d", 8 * 36 * 27, 0, 8 * 36)
    assert first.weights == 8 * 27 + 8
    assert (second.macs, second.reads, second.writes, second.weights) == (4 * 36 * 8, 8 * 36, 4 * 36, 32)


def test_a_temporal_convolution_reads_its_history_and_writes_the_newest_element() -> None:
    net = nn.Sequential(nn.Conv3d(2, 4, (1, 1, 1)), nn.Conv3d(4, 4, (3, 1, 1), bias=False))
    found = layers(net, 2, 5, 6, 6)
    assert sum(layer.macs for layer in found) == 36 * (4 * 2 + 4 * 4 * 3)
    element = 4 * 36
    assert found[0].writes == element  # the newest element is written once, for the history and for the next layer
    assert sum(layer.weights for layer in found) == 4 * 2 + 4 + 4 * 4 * 3
    histories = sum(layer.reads for layer in found)
    assert histories >= 3 * element  # two past elements and the newest one


def test_a_residual_is_added_where_its_last_part_is_made() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv3d(4, 4, 1, bias=False), nn.Conv3d(4, 4, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x)
            return torch.relu(self.b(y) + y)

    first, second = layers(Residual(), 4, 3, 5, 5)
    assert [layer.op for layer in (first, second)] == ["aten.conv2d"] * 2
    assert (second.reads, second.writes) == (4 * 25, 4 * 25)  # y is read once, for the product and for the sum


def test_depthwise_taps_are_part_of_the_convolution_before_them() -> None:
    """Products of past elements need no kernel of their own."""
    net = nn.Sequential(
        nn.Conv3d(3, 8, (1, 3, 3), padding=(0, 1, 1), bias=False),
        nn.Conv3d(8, 8, (5, 1, 1), groups=8, bias=False),
    )
    found = layers(net, 3, 8, 6, 6)
    element = 8 * 36
    assert sum(layer.writes for layer in found) <= 3 * element
    assert sum(layer.reads for layer in found) <= 6 * element
    assert len(found) <= 2


def test_views_cost_nothing() -> None:
    class Moved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv3d(2, 4, 1, bias=False), nn.Linear(4 * 9, 5, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x).transpose(1, 2)
            return self.head(y.flatten(2)).transpose(1, 2)

    first, second = layers(Moved(), 2, 4, 3, 3)
    assert (first.writes, second.reads, second.writes) == (36, 36, 5)


class Mixed(nn.Module):
    """Multiplies its weights with one another before it uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(64, 64)), nn.Parameter(torch.randn(64, 2))
        self.conv = nn.Conv1d(2, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(torch.matmul(self.a @ self.b, self.conv(x)) * self.a.sum())


class Strided(nn.Module):
    """Answers every second frame."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(2, 4, 3), nn.Conv1d(4, 3, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x)))


@pytest.mark.parametrize(("net", "shape"), [(Strided(), (2, 9)), (Mixed(), (2, 9)), (nn.Conv1d(2, 4, 3), (2, 9))])
def test_layers_know_their_steps_and_sum_to_the_steps_work(net: nn.Module, shape: Any) -> None:
    step = convert_graph(trace_network(net.eval(), torch.zeros(1, *shape)))
    export_onnx(step)
    records = layer_records(step)
    stride = len(step.schedule)
    assert sum(layer.macs * len(layer.steps) for layer in records) // stride == step_macs(step)
    if stride == 2:
        first, last = records[0], records[-1]
        assert first.steps == (0, 1) and len(last.steps) == 1
