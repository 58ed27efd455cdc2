"""Rewritten clip graphs against the networks they were traced from, and what they no longer compute."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from edgeco.continual.convert import trace_network
from edgeco.graph.attention import gather_attention
from edgeco.graph.cost import total_macs
from edgeco.graph.narrow import narrow
from edgeco.graph.trace import ClipGraph

TOKENS, WIDTH = 6, 8


class Net(nn.Module):
    """A layer of attention, more work on its tokens, and a use of them."""

    def __init__(self, use: Callable[[Tensor], Tensor], causal: bool = False, first: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=first)
        self.use, self.causal, self.first = use, causal, first

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(TOKENS, dtype=x.dtype) if self.causal else None
        y = self.layer(x if self.first else x.transpose(0, 1), src_mask=mask, is_causal=self.causal)
        return self.use(F.gelu(y) * 2 if self.first else y.transpose(0, 1))


def traced(net: nn.Module) -> ClipGraph:
    return trace_network(net.double().eval(), torch.zeros(1, TOKENS, WIDTH).double(), 1)


def difference(net: nn.Module, clip: ClipGraph) -> float:
    """Of the graph from the network, on the batch it was traced with."""
    x = torch.randn(clip.batch, TOKENS, WIDTH, dtype=torch.float64)
    given = [clip.tensors.get(n.name, x) for n in clip.graph.nodes if n.op == "placeholder"]
    clip.graph.lint()
    with torch.no_grad():
        (made,) = fx.GraphModule(nn.Module(), clip.graph)(*given)
        return float((made - net(x)).abs().max())


@pytest.mark.sampled(4)
@pytest.mark.parametrize("first", [True, False], ids=["batch-first", "time-first"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    "use", [lambda y: y[:, -1], lambda y: y[:, -1:].flatten(1), lambda y: F.relu(y)[:, TOKENS - 1, :3]]
)
def test_one_token_is_chosen_before_attention(use: Callable[[Tensor], Tensor], causal: bool, first: bool) -> None:
    net = Net(use, causal, first).eval()
    clip = traced(net)
    before = total_macs(clip.graph, clip.batch)
    assert narrow(clip) > 0
    assert difference(net, clip) < 1e-12
    token = WIDTH * WIDTH + 2 * 16 * WIDTH + 2 * TOKENS * WIDTH  # output projection, feed-forward, scores and sums
    assert before - total_macs(clip.graph, clip.batch) == (TOKENS - 1) * token
    assert narrow(clip) == 0 or difference(net, clip) < 1e-12, "once more changes nothing"


@pytest.mark.sampled(2)
@pytest.mark.parametrize("index", [0, 2])
def test_any_one_token_but_under_a_causal_flag_the_last(index: int) -> None:
    net = Net(lambda y: y[:, index]).eval()
    clip = traced(net)
    assert narrow(clip) > 0 and difference(net, clip) < 1e-12


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "use",
    [lambda y: y.mean(1), lambda y: y[:, -2:], lambda y: y[:, -1] + y[:, 0], lambda y: y.flip(1)[:, -1], lambda y: y],
    ids=["mean", "two", "both ends", "turned", "all"],
)
def test_where_more_is_used_nothing_changes(use: Callable[[Tensor], Tensor]) -> None:
    net = Net(use).eval()
    clip = traced(net)
    before = total_macs(clip.graph, clip.batch)
    narrow(clip)
    assert difference(net, clip) < 1e-12 and total_macs(clip.graph, clip.batch) == before


def test_without_attention_nothing_is_touched() -> None:
    net = nn.Sequential(nn.Linear(WIDTH, 4), nn.ReLU(), nn.Linear(4, 4)).eval()

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)[:, -1]

    clip = traced(Last())
    assert narrow(clip) == 0


class Scores(nn.Module):
    """Two queries' worth of scores, of which a use is made that may not be attention."""

    def __init__(self, use: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x @ x.transpose(1, 2) / 3.0, x)


def weights_looked_at(scores: Tensor, x: Tensor) -> Tensor:
    weights = scores.softmax(-1)
    return weights @ x + weights.mean()


def scores_looked_at(scores: Tensor, x: Tensor) -> Tensor:
    return scores.softmax(-1) @ x + scores.sum()


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("use", "found"),
    [
        (lambda s, x: s.softmax(-1) @ x, 1),
        (lambda s, x: (s * 2).softmax(2) @ (x + 1), 1),
        (lambda s, x: (s.masked_fill(torch.eye(TOKENS).bool(), -1e9) * 0.5).softmax(-1) @ x, 0),
        (lambda s, x: s.softmax(1) @ x, 0),
        (lambda s, x: x.transpose(1, 2) @ s.softmax(-1), 0),
        (lambda s, x: s.masked_fill(torch.eye(TOKENS).bool(), 0.0).softmax(-1) @ x, 0),
        (lambda s, x: torch.where(torch.eye(TOKENS).bool(), -torch.inf, s).softmax(-1) @ x, 1),
        (weights_looked_at, 0),
        (scores_looked_at, 0),
    ],
)
def test_attention_by_hand_is_found_where_it_is_attention(use: Callable[[Tensor, Tensor], Tensor], found: int) -> None:
    net = Scores(use).eval()
    clip = traced(net)
    assert gather_attention(clip) == found
    assert difference(net, clip) < 1e-11
