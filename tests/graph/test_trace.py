"""Tracing: source lines, batch and length, refusals that name the user's own line."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import edgeco
from edgeco.continual.convert import convert_graph, trace_network
from edgeco.errors import ConversionError, UnsupportedOperator
from edgeco.graph.cost import layer_costs, total_macs
from edgeco.graph.trace import where

HERE = "test_trace.py"


class Plain(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * 2  # the line that calls it


def test_nodes_know_the_users_line() -> None:
    graph = trace_network(Plain(nn.Conv1d(2, 3, 3)), torch.zeros(1, 2, 8))
    convolution = next(n for n in graph.graph.nodes if "conv1d" in str(n.target))
    assert HERE in where(convolution) and "return self.layer(x) * 2" in where(convolution)
    assert where(convolution).endswith("layer 'layer'")
    assert graph.pinned is None and graph.length == 8


def test_a_layer_of_a_bare_sequence_is_named() -> None:
    with pytest.raises(UnsupportedOperator, match="at layer '1': it makes 2 elements of time of each"):
        edgeco.convert(nn.Sequential(nn.ReLU(), nn.Upsample(scale_factor=2)), torch.zeros(1, 2, 8))


def test_cost_counts_multiply_accumulates_of_one_row() -> None:
    net = nn.Sequential(nn.Conv3d(2, 6, (3, 3, 3), groups=2, padding=1), nn.Flatten(2), nn.Linear(4 * 5 * 5, 7))
    graph = trace_network(net, torch.zeros(1, 2, 4, 5, 5))
    layers = layer_costs(graph.graph, graph.batch)
    assert [c.macs for c in layers] == [6 * 4 * 5 * 5 * 27, 6 * 7 * 100]
    step = convert_graph(trace_network(nn.Conv3d(2, 6, 3, padding=1), torch.zeros(1, 2, 4, 5, 5)))
    assert total_macs(step.clip.graph, step.clip.batch) == 4 * 6 * 5 * 5 * 2 * 27


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x
        return -x


def test_branch_on_values_names_its_line() -> None:
    with pytest.raises(ConversionError, match=r"test_trace.py:\d+.*branch on tensor values"):
        edgeco.convert(Branches(), torch.zeros(1, 2, 8))


class MixesRows(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0, keepdim=True)


class Reversed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(2)


class Unequal(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, ::2] + x[:, :, :4]


class Picks(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[x > 0]


class Cycles(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x[:, :, ::2], x[:, :, ::3][:, :, ::3]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(2, 2, batch_first=True, bidirectional=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cell(x.transpose(1, 2))[0]


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (Plain(nn.Upsample(scale_factor=2)), "several answers"),
        (Plain(nn.AvgPool1d(9, 9, ceil_mode=True)), "its window of 9 elements is longer than what it pools"),
        (Unequal(), "unequal rates .an element every 2 and 1 frames"),
        (Plain(nn.Conv1d(2, 2, 3, stride=17, padding=40)), "strides in time by 17"),
        (Picks(), "depends on their values"),
        (Reversed(), "runs along time"),
        (MixesRows(), "mixes the rows of the batch"),
        (Recurrent(), "it is bidirectional"),
        (Plain(nn.ReflectionPad1d(1)), "reflect padding in time|runs over an axis that is time"),
    ],
    ids=lambda v: type(getattr(v, "layer", v)).__name__ if isinstance(v, nn.Module) else None,
)
def test_refusals_name_operator_line_and_way_out(net: nn.Module, said: str) -> None:
    with pytest.raises(UnsupportedOperator, match=said) as caught:
        edgeco.convert(net, torch.zeros(1, 2, 8))
    assert HERE in caught.value.where and caught.value.instead
    assert "\n" not in str(caught.value)


def test_rates_without_a_small_common_multiple_are_refused_by_name() -> None:
    said = "every 9 frames and other parts one every 6, so that the work would repeat only every 18"
    with pytest.raises(UnsupportedOperator, match=said) as caught:
        edgeco.convert(Cycles(), torch.zeros(1, 2, 30))
    assert HERE in caught.value.where
