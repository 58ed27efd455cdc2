"""What is refused says which operator, which line of the user's own source, why, and what to do instead."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import edgeco
from edgeco.continual.convert import convert_graph, trace_network
from edgeco.continual.gate import gate
from edgeco.errors import UnsupportedOperator


def network(run: Callable[..., Any], layer: nn.Module | None = None) -> nn.Module:
    """A network with this forward, given frames and a layer; PyTorch records lines of functions of that name."""
    forward = FunctionType(run.__code__.replace(co_name="forward"), run.__globals__)
    net = type("Net", (nn.Module,), {"forward": lambda self, x: forward(x, self.layer)})()
    net.layer = layer or nn.Identity()
    return net


def mixes_behind_a_window(x: Tensor, norm: nn.Module) -> Tensor:
    y = norm(x)
    return y - 0.5 * y.mean(0, keepdim=True)


def attends_over_rows(x: Tensor, layer: nn.Module) -> Tensor:
    y = x.transpose(1, 2)
    return layer(y, y, y, need_weights=False)[0]


def fades(x: Tensor, layer: nn.Module) -> Tensor:
    state = torch.zeros_like(x[:, :, 0])
    for t in reversed(range(x.shape[2])):
        state = torch.tanh(layer(state) + x[:, :, t])
    return state


REFUSED: dict[str, tuple[Callable[..., Any], nn.Module | None, str]] = {
    "rows joined": (lambda x, _: torch.cat([x, x], 0), None, "aten.cat"),
    "rows picked": (lambda x, _: x[:1] + x, None, "aten.slice"),
    "mean over rows": (lambda x, _: x - x.mean(0, keepdim=True), None, "aten.mean"),
    "rows mixed behind a window": (mixes_behind_a_window, nn.GroupNorm(2, 4), "aten.mean"),
    "rows attended": (attends_over_rows, nn.MultiheadAttention(4, 2), "aten."),
    "no rows left": (lambda x, _: x.softmax(2).sum(0), None, "aten.sum"),
    "nothing of the frames": (lambda x, _: (x, torch.ones(3).cumsum(0)), None, "aten.cumsum"),
    "flip": (lambda x, _: x.flip(2) + x, None, "aten.flip"),
    "roll": (lambda x, _: x.roll(1, 2), None, "aten.roll"),
    "reflect": (lambda x, _: F.pad(x, (2, 2), mode="reflect"), None, "aten.pad"),
    "circular": (lambda x, _: F.pad(x, (2, 2), mode="circular"), None, "aten.pad"),
    "bidirectional": (lambda x, gru: gru(x.transpose(1, 2))[0], nn.GRU(4, 3, bidirectional=True), "aten.gru"),
    "backwards in a loop": (fades, nn.Linear(4, 4), "loop"),
    "batch norm in training": (lambda x, _: F.batch_norm(x, None, None, training=True), None, "aten.batch_norm"),
    "dropout in training": (lambda x, _: F.dropout(x, 0.5, training=True), None, "aten.dropout"),
    "random numbers": (lambda x, _: x + torch.rand(48), None, "aten.rand"),
    "stride": (lambda x, _: x[:, :, ::17] * 2, None, "aten.slice"),
    "strides in a row": (lambda x, pool: pool(x[:, :, ::5]), nn.AvgPool1d(2, 4), "aten.avg_pool1d"),
    "strides without a small multiple": (lambda x, _: (x[:, :, ::9] * 2, x[:, :, ::2] + 1), None, "aten."),
    "upsampled": (lambda x, up: up(x), nn.Upsample(scale_factor=2), "aten.upsample_nearest1d"),
    "unequal rates": (lambda x, _: x[:, :, ::2] * x[:, :, :24], None, "aten.mul"),
    "resized to a length": (lambda x, _: F.interpolate(x, 31, mode="linear"), None, "aten.upsample_linear1d"),
    "as many as there are": (lambda x, _: x[x > 0], None, "aten."),
    "indices of a pool": (lambda x, pool: pool(x)[1], nn.MaxPool1d(2, return_indices=True), "aten.max_pool"),
    "time repeated": (lambda x, _: x.repeat(1, 1, 2), None, "aten.repeat"),
    "rows repeated": (lambda x, _: x.repeat(2, 1, 1), None, "aten.repeat"),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", REFUSED)
def test_every_refusal_names_operator_line_reason_and_way_out(name: str) -> None:
    run, layer, op = REFUSED[name]
    with pytest.raises(UnsupportedOperator) as caught:
        edgeco.convert(network(run, layer), torch.zeros(1, 4, 48))
    error = caught.value
    assert error.op.startswith(op) and str(error).startswith(f"{error.op} at {error.where}: {error.reason}")
    assert error.reason and error.instead and "\n" not in str(error)
    place = re.match(rf"{re.escape(__file__)}:(\d+) ", error.where)
    first, last = run.__code__.co_firstlineno, max(line for *_, line in run.__code__.co_lines() if line)
    assert place is not None, error.where
    assert first <= int(place[1]) <= last


def test_a_gated_network_names_who_reads_copies_of_the_first_element() -> None:
    net = network(lambda x, conv: conv(x), nn.Conv1d(4, 4, 3, padding=1, padding_mode="replicate"))
    graph = convert_graph(trace_network(net, torch.zeros(1, 4, 16)))
    with pytest.raises(UnsupportedOperator, match=r"aten\.conv1d at .*copies of its first element") as caught:
        gate(graph)
    assert __file__ in caught.value.where or "layer" in caught.value.where
