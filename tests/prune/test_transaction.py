"""A plan is applied whole or not at all, and what is removed is gone for good."""

from __future__ import annotations

import copy
from pathlib import Path

import msgspec
import pytest
import torch
from channel_nets import TOYS, ConcatResidual, Excite, FusedAttention
from pruned import bits, grown, shaken
from streaming import recording, relative
from torch import nn

from edgeco import prune
from edgeco.errors import CheckFailed, SpecError
from edgeco.prune.cuts import Cut, cut_network

VIDEO = (3, 6, 4, 4)


def planned(net: nn.Module, budget: float | str = 0.5, shape: tuple[int, ...] = VIDEO) -> prune.PruningPlan:
    return prune.plan(net, torch.zeros(1, *shape), budget, importance="random")


def swapped(plan: prune.PruningPlan, tensor: str) -> prune.PruningPlan:
    """The plan with another index of one tensor removed than of all others of its group."""
    cuts = []
    for cut in plan.data.cuts:
        if (cut.tensor, cut.axis) == (tensor, 0):
            kept = cut.kept
            cut = msgspec.structs.replace(cut, removed=(*cut.removed[1:], int(kept[0])))
        cuts.append(cut)
    return prune.PruningPlan(msgspec.structs.replace(plan.data, cuts=tuple(cuts)), plan.net, plan.clip)


@pytest.mark.parametrize("tensor", ["a.weight", "b_bn.weight", "fc2.bias", "b_bn.running_mean"])
def test_a_wrong_plan_leaves_the_network_bit_identical(tensor: str) -> None:
    net = shaken(Excite())
    plan = swapped(planned(net), tensor)
    before = bits(net)
    with pytest.raises(CheckFailed, match="nothing was changed"):
        plan.apply()
    assert bits(net) == before


def test_a_plan_that_leaves_out_a_tensor_leaves_the_network_bit_identical() -> None:
    net = shaken(Excite())
    plan = planned(net)
    cuts = tuple(cut for cut in plan.data.cuts if cut.tensor != "c.weight")
    before = bits(net)
    with pytest.raises(CheckFailed, match="does not run"):
        prune.PruningPlan(msgspec.structs.replace(plan.data, cuts=cuts), net, plan.clip).apply()
    assert bits(net) == before


def test_a_failure_midway_is_undone() -> None:
    """A cut that cannot be made after others were leaves the very tensors that were there."""
    net = ConcatResidual()
    before, kept = bits(net), {n: p.data_ptr() for n, p in net.named_parameters()}
    with pytest.raises(IndexError):
        cut_network(net, [Cut("stem.weight", 0, 16, (1, 2)), Failing()])  # type: ignore[list-item]
    assert bits(net) == before and {n: p.data_ptr() for n, p in net.named_parameters()} == kept


class Failing:
    """A cut that passes the check and fails when it is made."""

    tensor, axis, size = "stem.bias", 0, 16

    @property
    def kept(self) -> object:
        raise IndexError("no such index")


def test_a_plan_is_of_one_network() -> None:
    plan = planned(Excite())
    with pytest.raises(SpecError, match="another network"):
        plan.apply(ConcatResidual())
    net = plan.apply()
    with pytest.raises(SpecError, match="pruned already"):
        plan.apply(net)


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    """Read from JSON and applied to another instance of the network, it is checked again and does the same."""
    net = shaken(FusedAttention())
    twin = copy.deepcopy(net)
    plan = planned(net, 0.7, (3, 12))
    plan.save(tmp_path / "plan.json")
    read = prune.load_plan(tmp_path / "plan.json")
    assert read.data == plan.data
    assert bits(read.apply(twin)) == bits(plan.apply())
    with pytest.raises(SpecError, match="give apply"):
        read.apply()


def test_damaged_plans_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    with pytest.raises(SpecError, match="cannot be read"):
        prune.load_plan(path)
    path.write_text("{}")
    with pytest.raises(SpecError, match="not a pruning plan"):
        prune.load_plan(path)


def test_a_removed_channel_cannot_influence_the_answer() -> None:
    """After training, the pruned network is still the whole one with zeros where channels were: nothing grew back."""
    whole = shaken(Excite())
    net = copy.deepcopy(whole)
    plan = planned(net)
    plan.apply()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    net.train()
    for step in range(20):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(recording(8, *VIDEO, seed=step).float()), torch.arange(8) % 5).backward()
        optimiser.step()
    same = grown(net, whole, plan)
    clip = recording(4, *VIDEO, seed=99)
    with torch.no_grad():
        assert relative(net.double().eval()(clip), same.double().eval()(clip)) <= 1e-12


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimiser_goes_on_with_what_is_kept(kind: type[torch.optim.Optimizer]) -> None:
    """Pruned midway with its state cut, training goes on as if masked channels had never been there."""
    net = shaken(Excite())
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimiser = kind(net.parameters(), lr=1e-3, **options)  # type: ignore[call-arg]
    for step in range(3):
        optimiser.zero_grad()
        net(recording(4, *VIDEO, seed=step).float()).square().mean().backward()
        optimiser.step()
    before = {
        n: {k: v.clone() for k, v in optimiser.state[p].items() if torch.is_tensor(v)}
        for n, p in net.named_parameters()
    }
    plan = planned(net)
    plan.apply(optimiser=optimiser)
    cuts: dict[str, list[Cut]] = {}
    for cut in plan.data.cuts:
        cuts.setdefault(cut.tensor, []).append(cut)
    for name, parameter in net.named_parameters():
        for key, value in optimiser.state[parameter].items():
            if torch.is_tensor(value) and value.ndim:
                expected = before[name][key]
                for cut in cuts.get(name, []):
                    expected = expected.index_select(cut.axis, torch.from_numpy(cut.kept))
                assert torch.equal(value, expected)
    optimiser.zero_grad()
    net(recording(4, *VIDEO).float()).square().mean().backward()
    optimiser.step()


def test_gradients_are_cut_with_their_tensors() -> None:
    net = shaken(Excite())
    net(recording(2, *VIDEO).float()).sum().backward()
    planned(net).apply()
    assert all(p.grad is None or p.grad.shape == p.shape for p in net.parameters())


def test_two_prunings_are_one_plan_of_the_first_network() -> None:
    whole = shaken(Excite())
    net = copy.deepcopy(whole)
    first = planned(net, 0.75)
    first.apply()
    second = planned(net, 0.7)
    second.apply()
    both = first.then(second)
    assert bits(both.apply(whole)) == bits(net)
    assert both.data.difference == max(first.data.difference or 0, second.data.difference or 0)
    assert both.data.after.macs == second.data.after.macs and both.data.before.macs == first.data.before.macs


@pytest.mark.parametrize("name", ["adapted", "tied weights"])
def test_parameters_stay_the_same_objects(name: str) -> None:
    make, shape = TOYS[name]
    net = make()
    before = {id(p) for p in net.parameters()}
    planned(net, 0.75, shape).apply()
    assert {id(p) for p in net.parameters()} == before


class TwoInputs(nn.Module):
    """A stream gated by numbers that have no time, by keywords, with named answers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.h = nn.Conv1d(3, 8, 3, padding=1), nn.Linear(5, 8), nn.Conv1d(8, 4, 1)

    def forward(self, x: torch.Tensor, side: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"y": self.h((self.a(x) * self.b(side)[:, :, None]).relu())}


def test_several_inputs_by_name(tmp_path: Path) -> None:
    net = TwoInputs()
    twin = copy.deepcopy(net)
    clips = {"x": torch.zeros(1, 3, 12), "side": torch.zeros(1, 5)}
    plan = prune.plan(net, clips, 0.6, time_dim={"x": 2, "side": None}, importance="magnitude")
    plan.save(tmp_path / "plan.json")
    assert bits(plan.apply()) == bits(prune.load_plan(tmp_path / "plan.json").apply(twin))
    assert net.a.out_channels == net.b.out_features == net.h.in_channels == 4
