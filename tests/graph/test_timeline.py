"""The algebra of delays against the closed formulas, and the choice of a common period."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeco.continual.history import MAX_PERIOD, choose_period
from edgeco.graph.timeline import Timeline, merged, worst


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(0, 4), st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=5
    )
)
def test_stacked_kernels_add_up(layers: list[tuple[int, int, int, int]]) -> None:
    """L adds p r, R adds (d (k - 1) - p) r, strides multiply; the receptive field is 1 plus all d (k - 1) r."""
    time, frames, rate, field = Timeline(5000), 5000, 1, 1
    length = frames
    for taps, front, stride, dilation in layers:
        reach = dilation * (taps - 1)
        front = min(front, reach)
        field += reach * rate
        time = time.tapped(taps, (front, front), time.delay + rate * (reach - front), stride=stride, dilation=dilation)
        length = (length + 2 * front - reach - 1) // stride + 1
        rate *= stride
    assert time.receptive_field == field
    assert (time.rate, time.length) == (rate, length)
    assert time.delay == time.future == time.starts_at
    assert (frames + time.room) // time.rate == length


@given(st.integers(1, 4), st.integers(0, 5), st.integers(0, 3), st.integers(1, 3), st.integers(40, 80))
def test_elements_of_a_recording_are_counted(rate: int, front: int, back: int, step: int, frames: int) -> None:
    time = Timeline(60).tapped(1, (0, 0), 0, stride=rate).cut(front, back, step)
    assert (frames + time.room) // time.rate == len(
        range(0, frames, rate)[front : len(range(0, frames, rate)) - back : step]
    )
    assert time.delay == rate * front and time.rate == rate * step


@given(st.integers(1, 4), st.integers(2, 3), st.integers(0, 3), st.integers(1, 4), st.integers(40, 80))
def test_elements_are_counted_in_whole_groups_after_upsampling(
    more: int, factor: int, front: int, step: int, frames: int
) -> None:
    time = Timeline(60).tapped(1, (0, 0), 0, stride=factor * more).upsampled(factor).cut(front, 0, step)
    elements = [j for j in range(0, frames, factor * more) for _ in range(factor)]
    assert time.elements(frames) == len(elements[front::step])
    assert (time.rate, time.delay) == (more * step, more * front)


@given(
    st.integers(1, 3), st.integers(1, 6), st.integers(1, 3), st.integers(0, 3), st.integers(0, 2), st.integers(41, 70)
)
def test_a_transposed_kernel_against_the_places_it_reaches(
    factor: int, taps: int, dilation: int, crop: int, more: int, frames: int
) -> None:
    strided = Timeline(60).tapped(1, (0, 0), 0, stride=factor)
    time = strided.transposed(factor, dilation * (taps - 1), crop, more)
    count = (strided.elements(frames) - 1) * factor + dilation * (taps - 1) + 1 + more - 2 * crop
    assert (time.elements(frames), time.rate) == (count, 1)
    seen = [
        (source * factor - (place - crop), source * factor <= time.delay + place - crop)
        for source in range(20)
        for tap in range(taps)
        for place in [source * factor + dilation * tap]
        if place >= crop
    ]
    assert all(known for _, known in seen), "no element is read before it is there"
    assert max(ahead for ahead, _ in seen) <= time.future and -min(ahead for ahead, _ in seen) <= time.past


def test_a_reader_between_two_elements_finds_the_newest_in_the_past() -> None:
    time = Timeline(20, rate=4, delay=2, starts_at=2)
    assert [time.age(delay) for delay in (2, 3, 6, 9)] == [(0, False), (0, True), (1, False), (1, True)]


def test_padding_and_slicing_only_renumber() -> None:
    time = Timeline(10, delay=4, starts_at=4)
    padded = time.padded(2, 1, 0.0)
    assert (padded.length, padded.delay, padded.starts_at, padded.first, padded.computable) == (13, 2, 4, 2, 4)
    assert padded.cut(2, 1).delay == 4 and padded.cut(2, 1).length == 10
    cut = time.cut(1, 2)
    assert (cut.length, cut.delay, cut.starts_at, cut.past, cut.future) == (7, 5, 5, -1, 1)


def test_merge_waits_for_the_latest_and_sees_the_widest() -> None:
    early, late = (
        Timeline(8, delay=1, starts_at=1, past=1, future=1),
        Timeline(8, delay=3, starts_at=5, past=0, future=3),
    )
    both = merged([early, late], 3, 8)
    assert (both.delay, both.starts_at, both.past, both.future, both.receptive_field) == (3, 5, 1, 3, 5)


def test_summary_is_numbered_by_the_element_at_which_its_window_ends() -> None:
    summary = Timeline(1, delay=9, starts_at=9, future=9).summary(9)
    assert (summary.delay, summary.starts_at, summary.past, summary.future) == (0, 9, 9, 0)


def test_weakest_promise_wins() -> None:
    assert worst("exact", "causal", "unpadded") == "causal"
    assert worst("exact", "unpadded") == "unpadded"


@pytest.mark.parametrize(("needs", "period"), [([3, 5, 2], 6), ([2], 2), ([10], 10), ([9, 10], 10), ([], 1)])
def test_common_period(needs: list[int], period: int) -> None:
    assert choose_period([(n, 1, 1) for n in needs])[0] == period


@given(st.lists(st.tuples(st.integers(2, MAX_PERIOD), st.integers(1, 1000)), min_size=1, max_size=5))
def test_period_is_the_cheapest_of_all(needs: list[tuple[int, int]]) -> None:
    period, counts = choose_period([(n, b, 1) for n, b in needs])
    assert all(period % c == 0 and c >= n for c, (n, _) in zip(counts, needs, strict=True))
    cost = sum(c * b for c, (_, b) in zip(counts, needs, strict=True))
    for other in range(max(n for n, _ in needs), MAX_PERIOD + 1):
        divisors = [[d for d in range(n, other + 1) if other % d == 0] for n, _ in needs]
        for choice in itertools.islice(itertools.product(*divisors), 500):
            assert cost <= sum(c * b for c, (_, b) in zip(choice, needs, strict=True))
