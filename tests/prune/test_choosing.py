"""What goes: budgets, rounding, least widths, protection and importance."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from channel_nets import ConcatResidual, Excite, Recurrent
from streaming import recording, relative
from torch import nn

from edgeco import prune
from edgeco.continual.convert import trace_network
from edgeco.errors import SpecError
from edgeco.graph.channels import Family, find_channels
from edgeco.prune.figures import state_bytes
from edgeco.prune.importance import CRITERIA, Evidence, scored
from edgeco.prune.selection import Limits, Ranking, Removed, first_that_keeps

CLIP = torch.zeros(1, 3, 6, 4, 4)


def batches(count: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(recording(4, 3, 6, 4, 4, seed=i).float(), torch.arange(4) % 5) for i in range(count)]


@pytest.mark.parametrize("text", ["macs=50%", "parameters=60%", "params=0.9k", "state=70%", "0.5"])
def test_budgets_are_kept(text: str) -> None:
    net = Excite()
    traced = trace_network(net, CLIP)
    before = state_bytes(net, traced)
    plan = prune.plan(net, CLIP, text, importance="magnitude")
    plan.apply()
    data = plan.data
    if "macs" in text or text == "0.5":
        assert 0.3 * data.before.macs < data.after.macs <= 0.5 * data.before.macs
    elif "param" in text:
        allowed = 900 if "params" in text else 0.6 * data.before.parameters
        assert sum(p.numel() for p in net.parameters()) == data.after.parameters <= allowed
    else:
        assert state_bytes(net, traced) <= 0.7 * before


@pytest.mark.parametrize("text", ["macs=", "macs=two", "watts=5", "0", "macs=120%", "parameters=3ms"])
def test_budgets_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        prune.Budget.of(text)


def test_a_budget_out_of_reach_says_what_can_be_reached() -> None:
    with pytest.raises(SpecError, match=r"out of reach: with all that may go, \d"):
        prune.plan(Excite(), CLIP, 0.001)
    with pytest.raises(SpecError, match="keeps to the budget"):
        prune.plan(Excite(), CLIP, "parameters=100k")


@pytest.mark.parametrize("to", [2, 4, 8])
def test_widths_are_round_or_as_they_were(to: int) -> None:
    plan = prune.plan(Excite(), CLIP, 0.8, round_to=to, importance="random")
    for group in plan.data.groups:
        left = (group.units - len(group.removed)) * group.each
        assert not group.removed or left % to == 0


def test_least_widths_and_caps_hold() -> None:
    plan = prune.plan(Excite(), CLIP, 0.55, min_width=4, cap=0.5, widths={"a": 12}, importance="random")
    left = {g.name: g.units - len(g.removed) for g in plan.data.groups if g.blocked is None}
    assert left["a"] >= 12 and left["xy"] >= 4 and left["fc1"] >= 4


@pytest.mark.parametrize("pattern", ["a", "a.weight", "(a|b)_bn.*", "b"])
def test_what_is_protected_stays(pattern: str) -> None:
    net = Excite()
    plan = prune.plan(net, CLIP, 0.9, protect=[pattern], importance="random")
    group = next(g for g in plan.data.groups if g.name == "a")
    assert not group.removed and group.blocked is not None and "protected" in group.blocked
    before = net.a.weight.shape[0]
    plan.apply()
    assert net.a.weight.shape[0] == before


def test_protecting_nothing_is_a_mistake() -> None:
    with pytest.raises(SpecError, match="nothing by that name"):
        prune.plan(Excite(), CLIP, 0.9, protect=["stem9"])
    with pytest.raises(SpecError, match="regular expression"):
        prune.plan(Excite(), CLIP, 0.9, protect=["a("])


def families(net: nn.Module, clip: torch.Tensor = CLIP) -> list[Family]:
    return find_channels(trace_network(net, clip)).families


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_are_divided_by_their_mean(criterion: str) -> None:
    net = Excite()
    found = families(net)
    for family, scores in zip(found, scored(criterion, found, Evidence(net, batches())), strict=True):
        assert scores.shape == (family.units,) and np.isclose(np.abs(scores).mean(), 1)


@pytest.mark.parametrize("criterion", ["taylor", "activation"])
def test_criteria_that_look_at_data_need_some(criterion: str) -> None:
    with pytest.raises(SpecError, match="data"):
        prune.plan(Excite(), CLIP, 0.5, importance=criterion)


class Gated(ConcatResidual):
    """A gate of one on every channel of the stem, behind its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.ones(16, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)) * self.gate)
        return self.head(self.middle(x).mean(2))


def test_gate_taylor_is_the_gradient_of_a_gate() -> None:
    """Told from the parameters' gradients, it is that of a gate really put behind the norm."""
    net = Gated().double().eval()
    for norm in (net.norm.weight, net.norm.bias, net.norm.running_mean):
        norm.data = torch.randn_like(norm.data)
    data = [(recording(4, 3, 12, seed=i), torch.arange(4) % 5) for i in range(3)]
    expected = np.zeros(16)
    for inputs, targets in data:
        (grad,) = torch.autograd.grad(nn.functional.cross_entropy(net(inputs), targets), net.gate)
        expected += grad.abs().flatten().numpy()
    bare = ConcatResidual().double().eval()
    bare.load_state_dict({k: v for k, v in net.state_dict().items() if k != "gate"})
    stem = next(f for f in families(copy.deepcopy(bare).float(), torch.zeros(1, 3, 12)) if f.name == "stem")
    stem.producers = frozenset(m for m in stem.producers if m[0].startswith(("stem", "norm")))
    (given,) = CRITERIA["taylor"]([stem], Evidence(bare, data))
    order = [int(i) for i in stem.members["norm.weight", 0][:, 0]]
    assert np.allclose(given, expected[order], rtol=1e-9)


def test_a_user_s_own_importance_decides() -> None:
    def last_first(found, evidence):  # type: ignore[no-untyped-def]
        return [np.arange(f.units)[::-1] + 1.0 for f in found]

    plan = prune.plan(Excite(), CLIP, 0.8, importance=last_first)
    for group in plan.data.groups:
        if group.removed:
            assert group.removed == tuple(range(group.units - len(group.removed), group.units))
    assert plan.data.importance == "last_first"
    with pytest.raises(SpecError, match="one finite number"):
        prune.plan(Excite(), CLIP, 0.8, importance=lambda found, evidence: [np.zeros(1) for _ in found])


def test_importance_keeps_what_matters() -> None:
    """Channels that nothing reads have no importance to Taylor, and go first."""
    net = Excite()
    with torch.no_grad():
        net.c.weight[:, ::2] = 0
        net.fc1.weight[:, ::2] = 0
    plan = prune.plan(net, CLIP, 0.9, batches=batches(), protect=["xy"])
    removed = next(g for g in plan.data.groups if g.name == "a").removed
    kept = set(range(18)) - set(removed)
    assert removed and (all(u % 2 == 0 for u in removed) or kept <= set(range(1, 18, 2)))


@pytest.mark.parametrize("per", ["macs", "parameters"])
def test_importance_per_cost(per: str) -> None:
    plain = prune.plan(Excite(), CLIP, 0.7, importance="random")
    priced = prune.plan(Excite(), CLIP, 0.7, importance="random", per=per)
    assert priced.data.after.macs <= 0.7 * priced.data.before.macs
    assert plain.data.cuts != priced.data.cuts


def test_portions_end_at_round_widths() -> None:
    family = Family("f", 18, {("w", 0): np.arange(18)[:, None]}, np.arange(18))
    assert Limits(8, 2, 0.9).portions(family) == [2, 8]
    assert sum(Limits(1, 2, 0.9).portions(family)) == 16
    assert Limits(1, 2, 0.0).portions(family) == []


def test_the_same_seed_makes_the_same_plan() -> None:
    torch.manual_seed(0)
    net = Recurrent(nn.LSTM)
    one, two = (prune.plan(net, torch.zeros(1, 3, 12), 0.6, importance="random", seed=4).data for _ in range(2))
    assert one == two
    assert prune.plan(net, torch.zeros(1, 3, 12), 0.6, importance="random", seed=5).data.cuts != one.cuts


def test_the_network_is_not_changed_by_planning() -> None:
    net = Excite()
    copied = copy.deepcopy(net)
    prune.plan(net, CLIP, 0.5, batches=batches())
    clip = recording(2, 3, 6, 4, 4).float()
    assert net.training and all(p.grad is None for p in net.parameters())
    with torch.no_grad():
        assert relative(net.eval()(clip), copied.eval()(clip)) == 0


def test_a_measured_figure_need_not_fall_with_every_channel() -> None:
    """Engines work on blocks of channels: of the prunings tried, the first that keeps to the budget is taken."""
    ranking = Ranking([("f", (i,)) for i in range(24)])

    def figure(removed: Removed) -> float:
        left = 24 - sum(map(len, removed.values()))
        return left if left % 8 == 0 else 3.0 * left

    chosen = first_that_keeps(ranking, figure, 16)
    assert chosen is not None and len(chosen["f"]) == 8
    assert first_that_keeps(ranking, figure, -1) is None


@pytest.mark.slow
def test_a_budget_of_latency_is_measured() -> None:
    plan = prune.plan(Excite(), CLIP, "latency=95%", importance="magnitude", cap=0.5)
    assert plan.data.budget == "latency=95%" and plan.data.cuts
