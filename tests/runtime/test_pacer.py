"""The pacer: which frames a network is stepped with, by stamps alone."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeco.errors import SpecError
from edgeco.runtime.pacer import CLOCK, GAP, RATE, STAMP, Decision, Pacer


def times(pacer: Pacer, stamps: list[float]) -> list[int]:
    return [pacer.decide(stamp).times for stamp in stamps]


def test_equal_rates_step_every_frame() -> None:
    pacer = Pacer(30.0)
    assert times(pacer, [index / 30 for index in range(300)]) == [1] * 300
    assert pacer.counts["stepped"] == 300 and pacer.counts["passed"] == pacer.counts["gaps"] == 0


@pytest.mark.parametrize(("source", "network"), [(30, 10), (60, 25), (25, 10), (30, 25), (120, 16), (30, 12.5)])
def test_a_faster_source_is_thinned_to_the_networks_rate(source: float, network: float) -> None:
    pacer = Pacer(network)
    stamps = [7.0 + index / source for index in range(int(20 * source))]
    decisions = [pacer.decide(stamp) for stamp in stamps]
    taken = [stamp for stamp, decision in zip(stamps, decisions, strict=True) if decision.times]
    assert abs(len(taken) - 20 * network) <= 1
    assert {decision.why for decision in decisions} == {"", RATE}
    # Each frame is one of the nearest to its point of the grid.
    assert max(abs(step - 1 / network) for step in np.diff(taken)) <= 1 / source + 1e-9


@pytest.mark.parametrize("drift", [0.999, 1.001, 1.005])
def test_jitter_and_a_drifting_clock_pass_nothing_over(drift: float) -> None:
    """29.97 for 30 frames a second slides over the whole grid in half a minute; an unfollowed grid then stutters."""
    rng = np.random.default_rng(3)
    stamps = np.arange(20_000) / 30 * drift + rng.uniform(-0.006, 0.006, 20_000)
    pacer = Pacer(30.0)
    assert set(times(pacer, stamps.tolist())) == {1}
    assert pacer.counts["gaps"] == 0


@pytest.mark.parametrize(
    ("gap", "threshold", "expected"),
    [
        ("skip", None, Decision(1, False, GAP, 4)),
        ("skip", 0.3, Decision(1, True, GAP, 4)),
        ("skip", 0.5, Decision(1, False, GAP, 4)),
        ("repeat", None, Decision(5, False, GAP, 4)),
        ("repeat", 0.3, Decision(1, True, GAP, 4)),
        ("reset", None, Decision(1, False, GAP, 4)),
        ("reset", 0.3, Decision(1, True, GAP, 4)),
        ("reset", 0.0, Decision(1, True, GAP, 4)),
    ],
)
def test_a_gap_is_treated_by_policy(gap: str, threshold: float | None, expected: Decision) -> None:
    pacer = Pacer(10.0, gap, threshold)  # type: ignore[arg-type]
    stamps = [index / 10 for index in range(20) if not 10 <= index < 14]
    decisions = [pacer.decide(stamp) for stamp in stamps]
    assert decisions[10] == expected
    assert all(decision == Decision(1) for place, decision in enumerate(decisions) if place != 10)
    counts = pacer.counts
    assert (counts["gaps"], counts["missed"]) == (1, 4)
    assert counts["resets"] == expected.reset and counts["repeats"] == expected.times - 1


def test_repeat_keeps_the_networks_time() -> None:
    """However frames are lost, the steps amount to the time that passed."""
    rng = np.random.default_rng(5)
    kept = sorted(rng.choice(900, 500, replace=False).tolist())
    pacer = Pacer(30.0, "repeat")
    total = sum(times(pacer, [index / 30 for index in kept]))
    assert total == kept[-1] - kept[0] + 1


def test_a_source_slower_than_the_network() -> None:
    stamps = [index / 10 for index in range(30)]
    assert set(times(Pacer(30.0, "repeat"), stamps)[1:]) == {3}
    skipping = Pacer(30.0)
    assert set(times(skipping, stamps)) == {1}
    assert skipping.counts["missed"] == 58


def test_stamps_that_do_not_rise() -> None:
    pacer = Pacer(10.0, "reset")
    assert times(pacer, [0.0, 0.1, 0.1, 0.05, math.nan, 0.2, -math.inf, 0.3]) == [1, 1, 0, 0, 0, 1, 0, 1]
    assert pacer.counts[STAMP] == 4
    assert pacer.decide(100.0) == Decision(1, True, GAP, 996)
    assert pacer.decide(5.0) == Decision(1, True, CLOCK)
    assert times(pacer, [5.1, 5.2, 5.3]) == [1, 1, 1]
    assert Pacer(10.0).decide(0.0) == Decision(1)


def test_a_clock_that_begins_anew_resets_only_where_gaps_do() -> None:
    for pacer, reset in ((Pacer(10.0), False), (Pacer(10.0, threshold=2.0), True), (Pacer(10.0, "repeat"), True)):
        times(pacer, [50.0, 50.1])
        assert pacer.decide(0.0) == Decision(1, reset, CLOCK)


@pytest.mark.parametrize("fps", [None, 0.0])
def test_without_a_rate_every_frame_is_stepped(fps: float | None) -> None:
    pacer = Pacer(fps, "reset")
    assert times(pacer, [3.0, 3.0, 1.0, math.nan, 900.0]) == [1] * 5
    assert pacer.counts["stepped"] == 5 and pacer.due(0.0)


def test_what_is_not_due_is_never_stepped() -> None:
    """Asked just before, ``due`` is exact; asked ahead of undecided frames it errs only towards yes."""
    rng = np.random.default_rng(11)
    for rate, network in itertools.product((30.0, 50.0, 120.0), (10.0, 24.0, 30.0)):
        stamps = np.cumsum(rng.exponential(1 / rate, 2000))
        stamps[700] -= 0.01
        stamps[1000:1500] -= stamps[900]
        pacer, told = Pacer(network), [True] * 2003
        for place, stamp in enumerate(stamps.tolist()):
            for coming in range(place, min(place + 3, len(stamps))):
                told[coming] &= pacer.due(float(stamps[coming]), ahead=True)
            exact = pacer.due(stamp)
            stepped = pacer.decide(stamp).times > 0
            assert exact == stepped
            assert told[place] or not stepped
        assert not all(told)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=60),
    st.sampled_from(["skip", "repeat", "reset"]),
    st.floats(0.1, 200.0),
)
def test_any_stamps_are_decided_and_counted(stamps: list[float], gap: str, fps: float) -> None:
    pacer = Pacer(fps, gap, threshold=5.0)  # type: ignore[arg-type]
    decisions = [pacer.decide(stamp) for stamp in stamps]
    counts = pacer.counts
    assert all(0 <= decision.times <= 5.0 * fps + 2 for decision in decisions)
    assert counts.get("stepped", 0) + counts.get("passed", 0) == len(stamps)
    assert counts.get("resets", 0) == sum(decision.reset for decision in decisions)
    assert counts.get("repeats", 0) == sum(max(0, decision.times - 1) for decision in decisions)


def test_restart_forgets_the_grid_and_keeps_the_counts() -> None:
    pacer = Pacer(10.0)
    times(pacer, [0.0, 0.1])
    pacer.restart()
    assert pacer.decide(0.05) == Decision(1)
    assert pacer.counts["stepped"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0,), "rate of the network is -1"),
        ((math.nan,), "rate of the network"),
        ((10.0, "drop"), "gap is 'drop'; choose skip, repeat or reset"),
        ((10.0, "reset", -1.0), "threshold of a gap is -1"),
        ((10.0, "reset", math.inf), "threshold"),
        ((10.0, "repeat", 61.0), "repeated for 60 seconds at most"),
    ],
)
def test_what_makes_no_pacer(arguments: tuple, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Pacer(*arguments)


@pytest.mark.parametrize("stamp", [math.inf, -math.inf, math.nan, 1e308, -1e13])
def test_a_stamp_beyond_all_calendars_is_none(stamp: float) -> None:
    pacer = Pacer(10.0, "repeat")
    assert [pacer.decide(at) for at in (0.0, stamp, 0.1)] == [Decision(1), Decision(0, why="stamp"), Decision(1)]
