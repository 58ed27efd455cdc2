"""Every way in which channels depend on each other: pruned exactly, or left alone for a reason."""

from __future__ import annotations

import copy

import pytest
import torch
from channel_nets import TOYS, OverChannels
from pruned import grown, shaken
from streaming import recording, relative
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from edgeco import prune
from edgeco.errors import SpecError
from edgeco.prune import PruningPlan
from edgeco.prune.cuts import tensor_of

LOST = {
    "shared twice": {"stem"},
    "einsum": {"convs.0", "tcn"},
    "joints by chunks": {"convs.0", "tcn"},
    "temporal shift": {"stem", "conv"},
    "fixed slice": {"stem"},
    "shuffled groups": {"stem", "b"},
    "permuted and flattened": {"conv"},
    "state buffer": {"stem"},
    "encoder": {"encoder.layers.0.linear1"},
    "fused attention": {"qkv", "up"},
    "lstm": {"stem", "layer"},
    "gru": {"stem", "layer"},
    "group norm": {"stem", "conv"},
    "adapted": {"stem", "conv"},
}
"""Groups that can lose channels, for networks where that is not plain."""


def planned(name: str, budget: float | str = 0.75, **options: object) -> tuple[nn.Module, nn.Module, PruningPlan]:
    """The network before, the one to prune, and a plan whose choice is random."""
    torch.manual_seed(3)
    make, clip = TOYS[name]
    net = shaken(make().eval())
    plan = prune.plan(net, torch.zeros(1, *clip), budget, importance="random", **options)  # type: ignore[arg-type]
    return copy.deepcopy(net), net, plan


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", TOYS)
def test_prunes_exactly(name: str) -> None:
    """The pruned network is the whole one with the removed channels at zero, on other clips than the oracle's."""
    whole, net, plan = planned(name)
    assert plan.data.difference is not None and plan.data.difference <= 1e-12
    plan.apply()
    for rows, seed in ((1, 5), (4, 6)):
        clip = recording(rows, *TOYS[name][1], seed=seed)
        same = grown(net, whole, plan)
        with torch.no_grad():
            assert relative(net.double()(clip), same.double()(clip)) <= 1e-12


@pytest.mark.sampled(9)
@pytest.mark.parametrize("name", TOYS)
def test_the_figures_of_a_plan_are_those_of_the_pruned_network(name: str) -> None:
    from edgeco.continual.convert import trace_network
    from edgeco.graph.cost import total_macs

    whole, net, plan = planned(name)
    clip = torch.zeros(1, *TOYS[name][1])
    for tried, figures in ((whole, plan.data.before), (plan.apply(), plan.data.after)):
        traced = trace_network(tried, clip)
        assert total_macs(traced.graph, traced.batch) == figures.macs
        used = {id(t): t for n, t in traced.tensors.items() if n.startswith("p_")}
        if name != "tied weights":
            assert sum(t.numel() for t in used.values()) == figures.parameters
    assert plan.data.after.macs <= 0.75 * plan.data.before.macs
    assert net is plan.net


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", LOST)
def test_groups_that_can_lose_channels(name: str) -> None:
    _, _, plan = planned(name, 0.97)
    free = {group.name for group in plan.data.groups if group.blocked is None}
    assert free >= LOST[name]


def test_heads_fall_whole() -> None:
    """Of three times four heads of four, whole heads go: the same ones of queries, keys and values."""
    _, net, plan = planned("fused attention", protect=["up"], budget=0.8)
    cut = next(c for c in plan.data.cuts if c.tensor == "qkv.weight" and c.axis == 0)
    heads = [set(range(16)) & {i - 16 * part for i in cut.removed} for part in range(3)]
    assert heads[0] == heads[1] == heads[2]
    assert all({h - h % 4 + i for i in range(4)} <= heads[0] for h in heads[0])
    plan.apply()
    assert net.heads == 4 - len(heads[0]) // 4 and net.width == 4  # type: ignore[attr-defined]


def test_units_of_a_recurrent_layer_fall_from_every_gate() -> None:
    _, net, plan = planned("lstm", protect=["stem"])
    cut = {(c.tensor, c.axis): c.removed for c in plan.data.cuts}
    units = cut["layer.weight_hh_l0", 1]
    assert cut["layer.weight_ih_l0", 0] == tuple(sorted(u + 12 * gate for gate in range(4) for u in units))
    assert cut["layer.weight_ih_l1", 1] == units == cut["head.weight", 1]
    plan.apply()
    assert net.layer.hidden_size == 12 - len(units)  # type: ignore[union-attr]


def test_a_softmax_over_channels_keeps_them() -> None:
    with pytest.raises(SpecError, match="Nothing of the network can be removed"):
        prune.plan(OverChannels(), torch.zeros(1, 3, 12), 0.5)


def test_layer_norm_only_on_request() -> None:
    """Without asking, the width under a layer norm stays, with the reason; asked for, it goes, and the plan says so."""
    _, _, plan = planned("fused attention")
    width = next(group for group in plan.data.groups if group.name == "embed" and group.approximate)
    assert width.blocked is not None and "only as approximate" in width.blocked and not width.removed
    _, net, plan = planned("fused attention", 0.3, approximate=True)
    width = next(group for group in plan.data.groups if group.name == "embed" and group.approximate)
    assert plan.data.approximate and width.removed
    plan.apply()
    assert net.norm.normalized_shape == (16 - len(width.removed),)  # type: ignore[union-attr]
    with torch.no_grad():
        assert bool(net(recording(2, 3, 12).float()).isfinite().all())


def test_a_row_under_weight_norm_falls_by_its_length() -> None:
    """A direction of zero has no length to divide by, so that what is zeroed of a removed row is its length alone."""
    torch.manual_seed(3)
    first, second = (weight_norm(nn.Conv1d(*sizes, 3)) for sizes in ((3, 16), (16, 12)))
    net = shaken(
        nn.Sequential(first, nn.ReLU(), second, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(12, 5)).eval()
    )
    whole = copy.deepcopy(net).double()
    plan = prune.plan(net, torch.zeros(1, 3, 12), 0.6, importance="random")
    plan.apply()
    assert {group.name for group in plan.data.groups if group.removed} == {"0", "2"}
    for cut in plan.data.cuts:
        if not (cut.tensor.endswith("original1") and cut.axis == 0):
            tensor_of(whole, cut.tensor).data.index_fill_(cut.axis, torch.tensor(cut.removed), 0)
    clip = recording(4, 3, 12, seed=5)
    with torch.no_grad():
        assert relative(net.double()(clip), whole(clip)) <= 1e-12


def test_reasons_of_groups_that_stay() -> None:
    """A grouped transposed convolution has no rule; of what falls in wide units, two are too few."""
    torch.manual_seed(3)
    layers = [nn.Conv1d(3, 16, 1), nn.ConvTranspose1d(16, 24, 1, groups=4), nn.Conv1d(24, 16, 1)]
    net = nn.Sequential(*layers, nn.GroupNorm(2, 16), nn.Conv1d(16, 8, 1), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    net.append(nn.Linear(8, 5))
    plan = prune.plan(net.eval(), torch.zeros(1, 3, 12), 0.95, importance="random")
    stays = [(group.name, group.blocked) for group in plan.data.groups if group.blocked]
    assert {name for name, why in stays if "in groups has no rule" in why} >= {"0", "1"}
    assert not any("rank of an adapter" in why for _, why in stays)
    assert [name for name, why in stays if "16 channels, which fall 8 at a time" in why] == ["2"]


class Projected(nn.Module):
    """An LSTM with projections, for which there is no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 16, batch_first=True, proj_size=8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def test_a_network_of_which_nothing_can_go_is_told_why() -> None:
    with pytest.raises(SpecError, match=r"Nothing of the network.* lstm \(there is no rule.* aten.lstm at .*head"):
        prune.plan(Projected().eval(), torch.zeros(1, 8, 5), 0.5, importance="magnitude", time_dim=1)
