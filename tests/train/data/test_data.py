"""The verbs of a set of recordings: what they keep, what they refuse, and that a seed always means the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeco.errors import DataError
from edgeco.train.data import Case, Data
from edgeco.train.data.case import Held
from edgeco.train.data.split import shares


def case(name: str, label: int | None, group: str | None = None, frames: int = 5, fill: float = 0.0) -> Case:
    return Case(name, label, group or name, 10.0, Held(np.full((frames, 2), fill, np.float32), 10.0))


def rows(classes: list[int], groups: list[str] | None = None) -> Data:
    names = groups or [str(i) for i in range(len(classes))]
    labels = tuple(f"class {i}" for i in range(max(classes) + 1))
    return Data(tuple(case(f"case {i}", c, g) for i, (c, g) in enumerate(zip(classes, names, strict=True))), labels)


def names(data: Data) -> list[str]:
    return [case.name for case in data]


def test_it_counts_iterates_and_slices() -> None:
    data = rows([0, 0, 1])
    assert len(data) == 3 and data.counts == {"class 0": 2, "class 1": 1}
    assert names(data) == ["case 0", "case 1", "case 2"] and names(data[1:]) == ["case 1", "case 2"]
    assert data[2].label == 1 and data[2].length == 5 and data.frame_shape() == (2,)
    assert [frame.stamp for frame in data[0].frames()] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_what_is_no_data_is_refused() -> None:
    with pytest.raises(DataError, match="no case"):
        Data((), ())
    with pytest.raises(DataError, match="'a' is the name of several"):
        Data((case("a", None), case("a", None)))
    with pytest.raises(DataError, match="a: its label 2 is not one of 2"):
        Data((case("a", 2),), ("x", "y"))
    with pytest.raises(DataError, match="None of the 2 cases"):
        rows([0, 1]).filter(lambda case: False)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.data())
def test_a_subset_is_of_every_class_in_proportion(classes: list[int], draw: st.DataObject) -> None:
    data = rows(classes)
    count = draw.draw(st.integers(1, len(classes)))
    chosen = data.subset(count, seed=3)
    assert len(chosen) == count and names(chosen) == names(data.subset(count, seed=3))
    assert names(chosen) == [name for name in names(data) if name in set(names(chosen))]
    for label, number in data.counts.items():
        assert abs(chosen.counts[label] - number * count / len(data)) < 1


def test_another_seed_draws_another_subset() -> None:
    data = rows([0] * 50)
    assert names(data.subset(10, 1)) != names(data.subset(10, 2))
    with pytest.raises(DataError, match="51 cases cannot be drawn from 50"):
        data.subset(51)


@given(st.integers(0, 40), st.lists(st.floats(0.01, 1), min_size=1, max_size=4))
def test_shares_are_whole_and_near(count: int, weights: list[float]) -> None:
    fractions = [weight / sum(weights) for weight in weights]
    made = shares(count, fractions)
    assert sum(made) == count
    assert all(abs(got - count * due) < 1 for got, due in zip(made, fractions, strict=True))


@given(st.lists(st.integers(0, 2), min_size=30, max_size=80), st.integers(0, 5))
def test_a_split_by_case_leaves_nothing_out_and_is_stratified(classes: list[int], seed: int) -> None:
    data = rows(classes)
    try:
        parts = data.split((0.5, 0.3, 0.2), seed=seed)
    except DataError:
        return
    assert sorted(name for part in parts for name in names(part)) == sorted(names(data))
    for part, fraction in zip(parts, (0.5, 0.3, 0.2), strict=True):
        assert all(abs(part.counts[label] - number * fraction) < 1 for label, number in data.counts.items())


@pytest.mark.parametrize("by", ["group", "blocks"])
def test_groups_are_not_torn_apart(by: str) -> None:
    rng = np.random.default_rng(0)
    groups = [f"recording {i}" for i in range(60) for _ in range(rng.integers(1, 12))]
    classes = [int(group.split()[1]) // 20 for group in groups]
    data = rows(classes, groups)
    for seed in range(20):
        train, test = data.split((0.75, 0.25), by=by, seed=seed)  # type: ignore[arg-type]
        assert not {case.group for case in train} & {case.group for case in test}
        assert len(train) + len(test) == len(data)
        for label, number in data.counts.items():
            assert 0.05 < test.counts[label] / number < 0.45


def test_blocks_are_runs_of_a_class() -> None:
    """Twenty runs, so that at most as many places are found where a part begins anew."""
    data = rows([0] * 500 + [1] * 300)
    for seed in range(5):
        train, test = data.split((0.8, 0.2), by="blocks", seed=seed)
        inside = {name: part for part, data_ in enumerate((train, test)) for name in names(data_)}
        turns = Counter(inside[f"case {i}"] != inside[f"case {i + 1}"] for i in range(799))
        assert turns[True] < 20 and test.counts == {"class 0": 100, "class 1": 60}


def test_a_gap_keeps_parts_apart() -> None:
    data = rows([0] * 500 + [1] * 300)
    for seed in range(5):
        parts = data.split((0.7, 0.1, 0.2), by="blocks", seed=seed, gap=16)
        inside = {name: part for part, data_ in enumerate(parts) for name in names(data_)}
        assert 500 < len(inside) < 800
        for i in range(500):
            near = {inside.get(f"case {j}") for j in range(i, min(i + 17, 500))} - {None}
            assert len(near) <= 1


def test_fractions_below_one_leave_the_rest_out() -> None:
    (part,) = rows([0] * 10 + [1] * 10).split((0.5,))
    assert part.counts == {"class 0": 5, "class 1": 5}


@pytest.mark.parametrize(
    ("fractions", "by", "told"),
    [
        ((0.8, 0.3), "case", "make 1 at most"),
        ((), "case", "make 1 at most"),
        ((0.5, 0.5), "person", "split by 'person'"),
        ((0.9, 0.1), "case", "too few to split"),
        ((0.5, 0.5), "group", "1 groups are too few"),
    ],
)
def test_a_split_that_cannot_be_is_refused(fractions: tuple[float, ...], by: str, told: str) -> None:
    data = rows([0, 0, 0], ["one"] * 3)
    with pytest.raises(DataError, match=told):
        data.split(fractions, by=by)  # type: ignore[arg-type]


def test_labels_can_follow_a_networks_own_order() -> None:
    data = Data((case("a", 0), case("b", 1), case("c", None)), ("run", "walk"))
    moved = data.labelled(("walk", "sit", "run"))
    assert [case.label for case in moved] == [2, 0, None] and moved.labels == ("walk", "sit", "run")
    with pytest.raises(DataError, match="the class 'run', which is not one of walk, sit"):
        data.labelled(("walk", "sit"))


def test_the_fingerprint_is_of_contents() -> None:
    data = rows([0, 0, 1])
    assert data.fingerprint == rows([0, 0, 1]).fingerprint and len(data.fingerprint) == 64
    others = [
        rows([0, 1, 1]),
        data[:2],
        data.grouped(["x", "x", "y"]),
        Data((case("case 0", 0, "0", fill=1e-7), *data.cases[1:]), data.labels),
        Data(data.cases, ("other", "names")),
        data.prepared(None, fps=5),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)


def test_groups_by_a_function() -> None:
    assert [c.group for c in rows([0, 0, 1]).grouped(lambda case: f"class {case.label}")] == [
        "class 0",
        "class 0",
        "class 1",
    ]
    with pytest.raises(DataError, match="1 groups were given for 3"):
        rows([0, 0, 1]).grouped(["a"])


def test_frames_are_held_to_the_networks_rate() -> None:
    data = Data((Case("a", None, "a", 30.0, Held(np.arange(30, dtype=np.float32)[:, None], 30.0)),)).prepared(None, 10)
    assert data[0].length == 10 and data[0].fps == 10
    assert data.held()[0].array()[:, 0].tolist() == list(range(0, 30, 3))


def test_frames_of_two_shapes_are_refused() -> None:
    mixed = Data((case("a", 0), Case("b", 0, "b", None, Held(np.zeros((5, 3), np.float32)))), ("x",))
    with pytest.raises(DataError, match=r"a have the shape \(2,\), those of b \(3,\)"):
        mixed.frame_shape()
