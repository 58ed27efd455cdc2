"""The live reader under a scripted producer: what is kept, what is dropped and why, and where every fault ends."""

from __future__ import annotations

import errno
import gc
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from edgeco.errors import SourceError, SpecError
from edgeco.runtime.sources.address import Address
from edgeco.runtime.sources.live import LiveSource
from edgeco.runtime.sources.patience import Patience, Pauses
from edgeco.runtime.sources.producer import Lost, Opened, Over, Reading
from edgeco.runtime.sources.scripted import Garbage, Pause, Raise, ScriptProducer, Step, Until, from_frames, scripted
from edgeco.runtime.sources.status import MOVES, Board, State

pytestmark = pytest.mark.usefixtures("leakless")

QUICK = Patience(stall=0.15, first_pause=0.01, longest_pause=0.02, hang=20)


def picture(value: int = 0, width: int = 8, height: int = 6) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


class Script:
    """Steps that may wait for the test to have taken so many frames, so that no machine is too slow for them."""

    def __init__(self, steps: Callable[[Callable[[int], Until]], list[Step]], patience: Patience = QUICK) -> None:
        self.source = scripted(steps(self.taken), patience=patience)

    def taken(self, frames: int) -> Until:
        return Until(lambda: self.source.status().frames >= frames)


class Gate:
    """A producer whose frames the test lets through one by one."""

    def __init__(self) -> None:
        self._allowed = threading.Semaphore(0)
        self.read_count = 0
        self._stop = threading.Event()

    def open(self, stop: threading.Event) -> Opened:
        self._stop = stop
        return Opened("gate", 25.0, "a gate")

    def read(self) -> Reading | None:
        while not self._allowed.acquire(timeout=0.01):
            if self._stop.is_set():
                return None
        self.read_count += 1
        return Reading(picture(self.read_count))

    def let(self, source: LiveSource, frames: int) -> None:
        """Let frames through and wait until they are counted."""
        target = source.status().captured + frames
        for _ in range(frames):
            self._allowed.release()
        until(lambda: source.status().captured == target)
        time.sleep(0.01)

    def close(self) -> None: ...


def gated(**patience: float) -> tuple[Gate, LiveSource]:
    gate = Gate()
    return gate, LiveSource(Address("gate"), gate, patience=Patience(**patience))  # type: ignore[arg-type]


def test_the_newest_frame_is_kept_and_the_others_are_counted() -> None:
    gate, source = gated()
    with source:
        gate.let(source, 1)
        first = source.wait(1)
        gate.let(source, 4)
        second = source.wait(1)
        gate.let(source, 1)
        third = source.wait(1)
        status = source.status()
    assert first is not None and second is not None and third is not None
    assert [int(frame.image[0, 0, 0]) for frame in (first, second, third)] == [1, 5, 6]
    assert [frame.gap for frame in (first, second, third)] == [0, 3, 0]
    assert [frame.index for frame in (first, second, third)] == [0, 1, 2]
    assert (status.frames, status.captured, dict(status.drops), status.dropped) == (3, 6, {"newer": 3}, 3)
    assert (status.state, status.backend, status.fps, status.size, status.detail) == (
        *(State.RUNNING, "gate", 25.0, (8, 6)),
        "a gate",
    )


def test_stamps_are_monotonic_nanoseconds_of_the_capture() -> None:
    gate, source = gated()
    before = time.monotonic_ns()
    with source:
        gate.let(source, 1)
        between = time.monotonic_ns()
        frame = source.wait(1)
    assert frame is not None and frame.taken is not None
    assert before < frame.taken < between
    assert frame.clock == "monotonic"
    assert frame.stamp == frame.taken * 1e-9


def test_wait_comes_back_without_a_frame_and_the_source_lives_on() -> None:
    gate, source = gated()
    with source:
        assert source.wait(0) is None
        assert source.wait(0.02) is None
        assert source.state is State.OPENING
        gate.let(source, 1)
        assert source.wait(0) is not None
    assert source.wait(0) is None
    assert source.state is State.ENDED
    assert list(source) == []


def test_what_waits_when_the_source_is_closed_is_counted_too() -> None:
    gate, source = gated()
    with source:
        gate.let(source, 2)
    status = source.status()
    assert (status.captured, status.frames, dict(status.drops)) == (2, 0, {"newer": 1, "closed": 1})


def test_frames_too_old_are_not_handed_out() -> None:
    gate, source = gated(max_age=1.0)
    with source:
        gate.let(source, 1)
        time.sleep(1.1)
        assert source.wait(0.01) is None
        gate.let(source, 1)
        frame = source.wait(1)
        assert dict(source.status().drops) == {"old": 1}
    assert frame is not None and int(frame.image[0, 0, 0]) == 2


def test_one_thread_opens_reads_and_releases() -> None:
    producer = ScriptProducer([picture(), Raise(Lost("gone")), picture()], None)
    with LiveSource(Address("script"), producer, patience=QUICK) as source:
        assert len(list(source)) >= 1
    assert len(producer.threads) == 1
    assert threading.get_ident() not in producer.threads
    assert (producer.opens, producer.closes) == (2, 2)


def test_nothing_is_opened_before_it_is_needed_and_closing_unopened_is_well() -> None:
    producer = ScriptProducer([picture()], None)
    source = LiveSource(Address("script"), producer)
    assert source.state is State.OPENING
    source.close()
    source.close()
    assert source.wait(1) is None
    assert producer.opens == 0
    assert repr(source) == "<LiveSource script ended>"


def test_end_of_file() -> None:
    with scripted([picture(1)]) as source:
        frames = list(source)
        status = source.status()
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1]
    assert (status.state, status.detail) == (State.ENDED, "its script is over")


def test_a_stall_is_seen_by_whoever_looks_and_passes() -> None:
    go_on = threading.Event()
    with Script(lambda taken: [picture(), Until(go_on.is_set), picture(), taken(2)]).source as source:
        assert source.wait(5) is not None
        until(lambda: source.state is State.STALLED)
        assert source.status().detail.startswith("no frame for ")
        go_on.set()
        assert source.wait(5) is not None
        assert source.wait(5) is None
    assert [event.state for event in source.events()] == [State.RUNNING, State.STALLED, State.RUNNING, State.ENDED]


def test_a_stall_is_noticed_while_a_frame_is_waited_for() -> None:
    with scripted([picture(), Pause(0.5), picture()], patience=QUICK) as source:
        assert len(list(source)) == 2
    assert State.STALLED in {event.state for event in source.events()}


def test_garbage_is_dropped_and_counted() -> None:
    bad: list[Step] = [Garbage(), np.zeros((0, 0, 3), np.uint8), np.zeros((4, 4, 2), np.uint8), np.full(3, np.nan)]
    with Script(lambda taken: [picture(1), taken(1), *bad, picture(2)]).source as source:
        frames = list(source)
        status = source.status()
    assert [(int(frame.image[0, 0, 0]), frame.gap) for frame in frames] == [(1, 0), (2, 4)]
    assert dict(status.drops) == {"garbage": 4}
    assert status.state is State.ENDED


def test_nothing_but_garbage_is_a_lost_connection() -> None:
    patience = Patience(attempts=1, first_pause=0.01)
    with (
        Script(lambda taken: [picture(), taken(1), *[Garbage()] * 200], patience).source as source,
        pytest.raises(SourceError, match=r"script: 50 frames in a row could not be used; given up after 1 attempt$"),
    ):
        list(source)
    assert source.state is State.FAILED
    assert source.status().drops["garbage"] == 100


def test_a_change_of_size_goes_through_and_is_told() -> None:
    with Script(lambda taken: [picture(width=8), taken(1), picture(width=16, height=4)]).source as source:
        shapes = [frame.image.shape for frame in source]
        assert source.status().size == (16, 4)
    assert shapes == [(6, 8, 3), (4, 16, 3)]
    told = [event for event in source.events() if "size" in event.detail]
    assert [(event.state, event.detail) for event in told] == [
        (State.RUNNING, "the frames' size changed from 8x6 to 16x4")
    ]


def test_stamps_that_go_back_or_stand_still_are_dropped() -> None:
    base = time.monotonic_ns()
    readings = [Reading(picture(number), base + offset) for number, offset in enumerate((10, 20, 20, 5, 30))]
    first, second, again, back, third = readings
    with Script(lambda taken: [first, taken(1), second, taken(2), again, back, third]).source as source:
        frames = list(source)
        status = source.status()
    assert [frame.taken for frame in frames] == [base + 10, base + 20, base + 30]
    assert frames[2].gap == 2
    assert dict(status.drops) == {"stamps": 2}


def test_frames_that_the_device_lost_are_in_the_gap() -> None:
    with Script(lambda taken: [Reading(picture()), taken(1), Reading(picture(), missing=3)]).source as source:
        assert [frame.gap for frame in source] == [0, 3]


def test_an_unplugged_device_is_opened_again() -> None:
    gone = Raise(OSError(errno.ENODEV, "No such device"))
    with Script(lambda taken: [picture(1), taken(1), gone, picture(2)]).source as source:
        frames = list(source)
        status = source.status()
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 2]
    assert (status.state, status.reconnects) == (State.ENDED, 1)
    lost = next(event for event in source.events() if event.state is State.RECONNECTING)
    assert lost.detail.startswith("the device is gone (No such device); trying again in 0.0")


def test_attempts_are_limited_where_that_is_asked() -> None:
    patience = Patience(attempts=3, first_pause=0.01, longest_pause=0.01)
    with (
        scripted([picture(), *[Raise(Lost("connection lost"))] * 10], patience=patience) as source,
        pytest.raises(SourceError, match=r"^script: connection lost; given up after 3 attempts$"),
    ):
        list(source)
    assert source.state is State.FAILED
    with pytest.raises(SourceError, match="given up after 3 attempts"):
        source.wait(1)


def test_a_source_that_never_opened_fails_at_once_unless_it_is_patient() -> None:
    with scripted([picture()], unopenable=2) as source:
        assert source.status().state in (State.OPENING, State.FAILED)
        with pytest.raises(SourceError, match=r"^script: cannot be opened$"):
            next(source)
        assert source.state is State.FAILED
    patient = Patience(patient=True, first_pause=0.01, longest_pause=0.01)
    with scripted([picture()], unopenable=2, patience=patient) as source:
        assert len(list(source)) == 1
        assert source.state is State.ENDED


def test_closing_cuts_a_pause_before_reconnecting_short() -> None:
    patience = Patience(first_pause=60, longest_pause=60, hang=100)
    source = scripted([picture(), Raise(Lost("gone"))], patience=patience)
    source.start()
    until(lambda: source.state is State.RECONNECTING)
    begun = time.monotonic()
    source.close()
    assert time.monotonic() - begun < 20
    assert source.state is State.ENDED


def test_closing_from_another_thread_ends_a_wait() -> None:
    source = scripted([Pause(60)])
    closer = threading.Timer(0.1, source.close)
    closer.start()
    assert list(source) == []
    closer.join()
    assert source.state is State.ENDED


def test_a_driver_that_never_returns_ends_in_a_failure_not_in_a_wait() -> None:
    release = threading.Event()

    class Stuck(Gate):
        def read(self) -> Reading | None:
            release.wait(60)
            return Reading(picture())

    source = LiveSource(Address("stuck"), Stuck(), patience=Patience(hang=0.2))
    with pytest.raises(SourceError, match=r"stuck: its driver has not returned for 0.2 s and cannot be interrupted"):
        next(source)
    assert source.state is State.FAILED
    source.close()
    release.set()


def test_a_fault_in_a_producer_is_a_failure_with_its_name() -> None:
    with scripted([picture(), Raise(ValueError("odd"))]) as source:
        assert source.wait(5) is not None
        with pytest.raises(SourceError, match=r"script: its reader failed: ValueError: odd$"):
            source.wait(5)
    assert source.state is State.FAILED


def test_a_forgotten_source_ends_its_thread() -> None:
    gate, source = gated()
    source.start()
    gate.let(source, 1)
    reader = source._reader
    del source
    gc.collect()
    reader.join(5)
    assert not reader.is_alive()


def test_functions_and_iterators_are_sources() -> None:
    left = [picture(1), picture(2)]
    with from_frames(lambda: left.pop(0) if left else None, fps=4) as recording:
        assert not recording.live
        assert [(frame.stamp, frame.clock, frame.gap) for frame in recording] == [(0, "rate", 0), (0.25, "rate", 0)]
        assert recording.state is State.ENDED
    rows = (np.full(3, number, np.float32) for number in range(5))
    with from_frames(rows, live=True, fps=50) as live:
        assert live.live
        frames = list(live)
    assert live.status().frames + live.status().dropped == 5
    assert frames[-1].image.tolist() == [4, 4, 4]
    with pytest.raises(SpecError, match="patience is for live"):
        from_frames([], patience=Patience())


def test_a_producer_may_end_by_itself() -> None:
    with scripted([picture(), Raise(Over("the pipeline ended"))]) as source:
        assert len(list(source)) == 1
        assert source.status().detail == "the pipeline ended"


@pytest.mark.parametrize("name", ["open_timeout", "read_timeout", "stall", "hang", "first_pause", "max_age"])
def test_patience_is_checked(name: str) -> None:
    for value in (0, -1, float("nan"), float("inf"), "5"):
        with pytest.raises(SpecError, match=f"{name} is"):
            Patience(**{name: value})
    with pytest.raises(SpecError, match="attempts is -1"):
        Patience(attempts=-1)


def test_pauses_double_up_to_a_cap_with_jitter() -> None:
    pauses = Pauses(1.0, 5.0)
    drawn = [next(pauses) for _ in range(6)]
    for pause, bound in zip(drawn, (1, 2, 4, 5, 5, 5), strict=True):
        assert bound / 2 <= pause <= bound
    pauses.reset()
    assert next(pauses) <= 1
    assert len({next(Pauses(1.0, 5.0)) for _ in range(20)}) > 1


def test_final_states_are_final_and_only_moves_of_the_table_happen() -> None:
    assert {state for state in State if state.final} == {state for state in State if not MOVES[state]}
    for before in State:
        for after in State:
            board = Board("x")
            for step in {State.STALLED: [State.RUNNING, before]}.get(before, [before]):
                board.move(step)
            allowed = after in MOVES[before] or (after is before and not before.final)
            assert board.move(after) is allowed, (before, after)
            assert board.state is (after if allowed else before)
