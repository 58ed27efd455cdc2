"""Sums of graph convolutions: one where they may be joined, the same answers, and as they were where they may not."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
import torch
from engine_parity import differences
from torch import Tensor, nn

from edgeco.continual.convert import StepGraph, convert_graph, trace_network
from edgeco.continual.program import StepProgram
from edgeco.export.fold import fold_norms
from edgeco.export.merge import merge_graph_convolutions
from edgeco.export.onnx import export_onnx
from edgeco.models.stgcn import GraphConv
from tests.helpers.streaming import randomise_norms, recording, relative

JOINTS = 5
CLIP = (4, 8, JOINTS)


class Parts(nn.Module):
    """Graph convolutions of several kinds, how they are added up being told; a layer over time behind them."""

    def __init__(self, total: Callable[[Parts, Tensor], Tensor], bias: bool = True) -> None:
        super().__init__()
        self.total = total
        self.parts = nn.ModuleList(nn.Conv2d(4, 6, 1, bias=bias) for _ in range(3))
        self.matrices = nn.ParameterList(torch.randn(JOINTS, JOINTS) for _ in range(3))
        self.mask = nn.Parameter(torch.randn(3, JOINTS, JOINTS))
        self.wide = nn.Conv2d(4, 6, (1, 3), padding=(0, 1))
        self.norm = nn.BatchNorm2d(6)
        self.time = nn.Conv2d(6, 3, (3, 1))

    def part(self, number: int, x: Tensor) -> Tensor:
        return self.parts[number](x @ (self.matrices[number] * self.mask[number]))

    def forward(self, x: Tensor) -> Tensor:
        return self.time(self.norm(self.total(self, x)))


def converted(net: nn.Module, clip: tuple[int, ...] = CLIP) -> tuple[int, StepGraph]:
    """How many sums became one, and the step graph."""
    graph = trace_network(net, torch.zeros(1, *clip, dtype=torch.float64), 2)
    merged = merge_graph_convolutions(graph)
    fold_norms(graph)
    return merged, convert_graph(graph)


def assert_same(net: nn.Module, step: StepGraph, clip: tuple[int, ...] = CLIP) -> None:
    long = recording(2, clip[0], 45, *clip[2:])
    with torch.no_grad():
        assert relative(StepProgram(net, step).forward_steps(long), net(long)) < 1e-12


def products(step: StepGraph) -> int:
    return sum("matmul" in str(node.target) for node in step.module.graph.nodes)


JOINED: dict[str, tuple[Callable[[Parts, Tensor], Tensor], int]] = {
    "three": (lambda net, x: net.part(0, x) + net.part(1, x) + net.part(2, x), 1),
    "from the right": (lambda net, x: net.part(0, x) + (net.part(1, x) + net.part(2, x)), 1),
    "beside others": (lambda net, x: net.part(0, x) + net.wide(x) + net.part(2, x), 2),
    "of two inputs": (lambda net, x: net.part(0, x) + net.part(1, x) + net.part(2, x.relu()), 2),
    "used again": (lambda net, x: (lambda y: y * y.sigmoid())(net.part(0, x) + net.part(1, x)), 1),
    "of two sums": (lambda net, x: (net.part(0, x) + net.part(1, x)).relu() + net.part(2, x), 2),
}


@pytest.mark.parametrize("bias", [True, False], ids=["biases", "none"])
@pytest.mark.parametrize("name", JOINED)
def test_graph_convolutions_that_are_added_up_become_one(name: str, bias: bool) -> None:
    total, left = JOINED[name]
    torch.manual_seed(0)
    net = randomise_norms(Parts(total, bias)).double().eval()
    merged, step = converted(net)
    assert merged == 1 and products(step) == left - (name == "beside others")
    assert_same(net, step)


APART: dict[str, Callable[[Parts, Tensor], Tensor]] = {
    "one alone": lambda net, x: net.part(0, x) + net.wide(x),
    "seen by another": lambda net, x: (lambda y: y + net.part(1, x) + y.relu())(net.part(0, x)),
    "subtracted": lambda net, x: net.part(0, x) - net.part(1, x),
    "scaled": lambda net, x: torch.add(net.part(0, x), net.part(1, x), alpha=2),
    "a product seen by another": lambda net, x: (lambda y: net.parts[0](y) + net.parts[1](y))(x @ net.matrices[0]),
    "of the input": lambda net, x: net.parts[0](x @ x.transpose(-1, -2) @ x) + net.part(1, x),
    "twice": lambda net, x: (lambda y: y + y)(net.part(0, x)),
    "not pointwise": lambda net, x: net.wide(x @ net.matrices[0]) + net.wide(x @ net.matrices[1]),
}


@pytest.mark.parametrize("name", APART)
def test_what_is_no_such_sum_stays(name: str) -> None:
    torch.manual_seed(0)
    net = randomise_norms(Parts(APART[name])).double().eval()
    merged, step = converted(net)
    assert merged == 0
    if name != "of the input":  # it multiplies frames by one another
        assert_same(net, step)


def test_products_over_time_are_no_graph_convolutions() -> None:
    """The last axis is time here: what mixes it must stay visible as that."""

    class OverTime(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(nn.Conv1d(4, 6, 1) for _ in range(2))
            self.matrices = nn.ParameterList(torch.randn(8, 8) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return sum(conv(x @ m) for conv, m in zip(self.parts, self.matrices, strict=True))[:, :, -1]  # type: ignore[return-value, index]

    graph = trace_network(OverTime().double().eval(), torch.zeros(1, 4, 8, dtype=torch.float64), 2)
    assert merge_graph_convolutions(graph) == 0


def test_a_sum_may_be_the_answer() -> None:
    torch.manual_seed(0)

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Parts(JOINED["three"][0])

        def forward(self, x: Tensor) -> Tensor:
            return self.net.total(self.net, x)

    net = Bare().double().eval()
    merged, step = converted(net)
    assert merged == 1
    assert_same(net, step)


@pytest.mark.parametrize("channels", [4, 9])
def test_a_layer_of_st_gcn_has_one_product_and_its_norm_is_gone(channels: int) -> None:
    from edgeco.models.skeleton import LAYOUTS

    torch.manual_seed(0)
    net = nn.Sequential(GraphConv(4, channels, LAYOUTS["openpose"]), nn.Conv2d(channels, 3, (3, 1)))
    clip = (4, 8, 18)
    net = randomise_norms(net).double().eval()
    merged, step = converted(net, clip)
    assert merged == 1 and products(step) == 1
    assert_same(net, step, clip)
    body = onnx.ModelProto.FromString(export_onnx(step).graphs[0]).graph
    nodes = body.node
    assert {tensor.name for tensor in body.initializer} <= {name for node in nodes for name in node.input}
    kinds = [node.op_type for node in nodes]
    assert kinds.count("Mul") == 0 and kinds.count("MatMul") == 1 and "Transpose" not in kinds
    assert not any(a.op_type == b.op_type == "Reshape" and b.input[0] in a.output for a in nodes for b in nodes)


def test_onnx_runtime_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    import engine_parity

    fold = engine_parity.fold_norms
    monkeypatch.setattr(engine_parity, "fold_norms", lambda graph: (merge_graph_convolutions(graph), fold(graph)))
    torch.manual_seed(0)
    net = randomise_norms(Parts(JOINED["beside others"][0])).eval()
    assert max(differences(net, CLIP, steps=60, rows=3).values()) < 1e-5
