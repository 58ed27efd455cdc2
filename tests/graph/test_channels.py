"""Labels of channels: what is united, what is pinned, what a merged axis means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from channel_nets import TOYS, ConcatResidual, Excite, FusedAttention, ShuffledGroups, Tied
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgeco.continual.convert import trace_network
from edgeco.graph.channels import Channels, channel_rule, find_channels
from edgeco.graph.channels.axes import Axis, regrouped, still
from edgeco.graph.channels.labels import Labels
from edgeco.graph.channels.rules.pointwise import pointwise
from edgeco.graph.channels.rules.registry import RULES
from edgeco.graph.cost import total_macs


def channels(net: nn.Module, *clip: int) -> Channels:
    return find_channels(trace_network(net, torch.zeros(1, *clip)))


def groups(found: Channels) -> dict[str, tuple[int, int]]:
    return {family.name: (family.units, family.each) for family in found.families}


def test_united_labels_are_one_and_pins_spread() -> None:
    labels = Labels()
    a, b, c = labels.fresh(3), labels.fresh(3), labels.fresh(3)
    labels.equate(a, b, "why")
    labels.pin(b[1:2], "because")
    labels.equate(c, b, "why")
    assert (labels.roots(a) == labels.roots(c)).all()
    assert labels.pins == {labels.find(int(c[1, 0])): "because"}


def test_what_meets_an_axis_that_stays_is_pinned_with_the_reason() -> None:
    labels = Labels()
    a = labels.fresh(3)
    labels.equate(a, still(3).labels, "it meets the input")
    assert {labels.pins[labels.find(int(x))] for x in a[:, 0]} == {"it meets the input"}


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_merged_axes_split_again_are_themselves(sizes: list[int]) -> None:
    labels = Labels()
    value = tuple(Axis(labels.fresh(n)) for n in sizes)
    merged = regrouped(labels, value, [int(np.prod(sizes))], "why")
    again = regrouped(labels, merged, sizes, "why")
    assert all((a.labels == b.labels).all() for a, b in zip(value, again, strict=True))
    assert not labels._equations


def test_a_split_axis_loses_whole_rows_where_columns_stay() -> None:
    """(6) as (2, 3): with the second factor pinned, three at a time fall; with the first, two that are 3 apart."""
    for stays, period in ((1, 3), (0, 1)):
        labels = Labels()
        whole = labels.fresh(6, carried=True)
        split = regrouped(labels, (Axis(whole),), [2, 3], "why")
        labels.pin(split[stays].labels, "stays")
        labels.resolve()
        roots = labels.roots(whole)[:, 0]
        assert len(set(roots.tolist())) == (2 if stays else 3)
        assert roots[0] == roots[1 if period == 3 else 3] and roots[0] != roots[3 if period == 3 else 1]


def test_equal_factors_drop_out_of_an_equation() -> None:
    labels = Labels()
    a, b, c = labels.fresh(2), labels.fresh(2), labels.fresh(2)
    labels.equate(np.concatenate([a, b], 1), np.concatenate([a, c], 1), "why")
    labels.resolve()
    assert (labels.roots(b) == labels.roots(c)).all() and not labels.pins


def test_a_residual_path_is_one_group() -> None:
    found = channels(Excite(), 3, 6, 4, 4)
    assert groups(found) == {"xy": (8, 1), "a": (18, 1), "fc1": (6, 1)}
    path = next(f for f in found.families if f.name == "xy")
    assert {("t.weight", 0), ("bn.running_var", 0), ("c.weight", 0), ("a.weight", 1), ("head.weight", 1)} <= set(
        path.members
    )
    assert path.norms == {("bn.weight", 0), ("bn.bias", 0), ("c_bn.weight", 0), ("c_bn.bias", 0)}
    assert path.producers == path.norms | {("xy.weight", 0)}, "no norm follows it at once, as one follows 't' and 'c'"


def test_a_concatenation_keeps_its_parts_apart() -> None:
    found = channels(ConcatResidual(), 3, 12)
    assert groups(found) == {"stem": (16, 1), "a": (8, 1)}
    assert [f.members["b.weight", 1].shape for f in found.families] == [(16, 1), (8, 1)]


def test_shuffled_groups_lose_equal_places() -> None:
    found = channels(ShuffledGroups(), 3, 12)
    assert groups(found)["stem"] == (4, 4) and groups(found)["b"] == (4, 4)


def test_a_norm_over_channels_marks_them() -> None:
    found = channels(FusedAttention(), 3, 12)
    marked = [f for f in found.families if f.approximate]
    assert len(marked) == 1 and ("norm.weight", 0) in marked[0].members and "layer_norm" in str(marked[0].approximate)


def test_tied_weights_are_one_tensor() -> None:
    found = channels(Tied(), 3, 12)
    names = {name for f in found.families for name, _ in f.members}
    assert len(names & {"one.weight", "two.weight"}) == 1


@torch.library.custom_op("edgeco_test::turned", mutates_args=())
def turned(x: Tensor) -> Tensor:
    return x.flip(1).clone()


@turned.register_fake
def _turned(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Custom(nn.Module):
    """An operator that no rule knows, between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv1d(3, 8, 1), nn.Conv1d(8, 8, 1), nn.Conv1d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(turned(self.a(x))))


def test_an_operator_without_a_rule_pins_and_is_listed_with_its_line() -> None:
    found = channels(Custom(), 3, 12)
    assert groups(found) == {"b": (8, 1)}
    assert "test_channels.py" in found.unknown["edgeco_test.turned"]
    assert any(b.name == "a" and "no rule" in b.reason for b in found.blocks)


def test_a_rule_of_one_s_own() -> None:
    """Told (wrongly) that it treats elements alone, its channels would go; here only that the rule is used."""
    channel_rule(torch.ops.edgeco_test.turned)(pointwise)
    try:
        assert "a" in groups(channels(Custom(), 3, 12))
    finally:
        del RULES[torch.ops.edgeco_test.turned]


@pytest.mark.parametrize("name", ["x3d block", "joints by chunks", "lstm"])
def test_nothing_removed_costs_what_the_network_costs(name: str) -> None:
    make, clip = TOYS[name]
    found = channels(make(), *clip)
    gone = found.gone({})
    assert sum(layer.macs for layer in found.layers(gone)) == total_macs(found.clip.graph, found.clip.batch)
