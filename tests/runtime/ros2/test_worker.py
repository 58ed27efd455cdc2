"""The thread between callbacks and network: nothing waits for it, and what it leaves out is counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edgeco.errors import EngineError, FrameError, SpecError
from edgeco.runtime.model import Model
from edgeco.runtime.pacer import Pacer
from edgeco.runtime.pre import preparer
from edgeco.runtime.ros2 import Answer, Worker
from edgeco.runtime.sources import open_source

MS = 10**6
PICTURES = [frame.image for frame in open_source("pattern://motion?size=64x48&script=pan-left:20,zoom-in:30")]


class Bench:
    """A worker whose decoding waits for a permit, so that tests say what it finds."""

    def __init__(self, model: Model, pacer: Pacer | None = None, **options: Any) -> None:
        self.stream = model.stream()
        self.answers: list[Answer] = []
        self.said: list[str] = []
        self.permits = threading.Semaphore(0)
        self.decoded: list[int] = []
        self.now = 0
        options = {"clock": lambda: self.now, "say": self.said.append, "deliver": self.answers.append, **options}
        deliver = options.pop("deliver")
        pacer = pacer or Pacer(None)
        self.worker = Worker(self.stream, self.decode, preparer(model), deliver, pacer, **options)

    def decode(self, message: int) -> np.ndarray[Any, Any]:
        self.permits.acquire()
        self.decoded.append(message)
        if message < 0:
            raise FrameError(f"picture {message} is none")
        return PICTURES[message]

    def feed(self, message: int, stamp: int) -> None:
        """Offer a message and wait until the worker is done with it."""
        before = self.handled()
        self.permits.release()
        self.worker.offer(message, stamp)
        self.until(lambda: self.handled() > before)
        while self.permits.acquire(blocking=False):
            pass

    def handled(self) -> int:
        status = self.worker.status()
        return status.stepped + sum(count for cause, count in status.drops.items() if cause != "undelivered")

    def until(self, holds: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < end
            time.sleep(0.001)


@pytest.fixture
def bench(model: Model) -> Iterator[Bench]:
    made = Bench(model)
    made.worker.start()
    yield made
    for _ in range(100):
        made.permits.release()
    made.worker.stop()
    made.stream.close()


def alone(model: Model, messages: list[int]) -> list[np.ndarray[Any, Any]]:
    """Valid answers of a stream of its own."""
    prepare = model.preprocessor()
    with model.stream() as stream:
        results = [stream.step(prepare(PICTURES[message])) for message in messages]
    return [result.outputs["output"] for result in results if result.valid]


def same(answers: list[Answer], expected: list[np.ndarray[Any, Any]]) -> None:
    assert len(answers) == len(expected) > 0
    for answer, want in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(answer.result.outputs["output"], want)


def test_answers_are_those_of_a_stream(bench: Bench, model: Model) -> None:
    for message in range(30):
        bench.feed(message, (message + 1) * 80 * MS)
    same(bench.answers, alone(model, list(range(30))))
    assert [answer.message for answer in bench.answers] == list(range(13, 30))
    assert bench.answers[0].stamp == 14 * 80 * MS
    status = bench.worker.status()
    assert (status.received, status.stepped, status.valid, status.warm) == (30, 30, 17, 17)
    assert status.drops == {} and status.valid_now and status.step["p99"] > 0


def test_a_callback_never_waits_and_the_newest_is_kept(bench: Bench) -> None:
    bench.worker.offer(0, 1)
    bench.until(lambda: bench.worker._slot is None)  # the worker holds message 0, and waits
    for message in range(1, 9):
        bench.worker.offer(message, 1 + message)
    assert bench.worker.status().drops == {"busy": 7}
    for _ in range(2):
        bench.permits.release()
    bench.until(lambda: bench.worker.status().stepped == 2)
    assert bench.decoded == [0, 8]


def test_frames_too_many_are_not_even_decoded(model: Model) -> None:
    made = Bench(model, Pacer(12.5))
    made.worker.start()
    for message in range(40):
        made.feed(message, 10**9 + message * 20 * MS)
    status = made.worker.status()
    assert status.stepped == len(made.decoded) == 10
    assert status.drops == {"rate": 30}
    made.worker.stop()


def test_a_gap_is_repeated_or_resets_by_policy(model: Model) -> None:
    for policy, expected in (("repeat", [0, 1, 2, 3, *[7] * 4, *range(8, 20)]), ("skip", [0, 1, 2, 3, *range(7, 20)])):
        made = Bench(model, Pacer(12.5, policy))  # type: ignore[arg-type]
        made.worker.start()
        for message in (0, 1, 2, 3, *range(7, 20)):
            made.feed(message, 10**9 + message * 80 * MS)
        same(made.answers, alone(model, expected)[len(alone(model, expected)) - len(made.answers) :])
        made.worker.stop()
    made = Bench(model, Pacer(12.5, "reset", 0.2))
    made.worker.start()
    for message in (*range(5), *range(9, 30)):
        made.feed(message, 10**9 + message * 80 * MS)
    same(made.answers, alone(model, list(range(9, 30))))
    assert made.worker.status().resets == {"gap": 1}
    made.worker.stop()


@pytest.mark.parametrize("fps", [None, 12.5])
def test_a_bag_played_again_begins_anew(model: Model, fps: float | None) -> None:
    made = Bench(model, Pacer(fps))
    made.worker.start()
    for _ in range(2):
        for message in range(20):
            made.feed(message, 10**9 + message * 80 * MS)
    same(made.answers, 2 * alone(model, list(range(20))))
    assert made.worker.status().resets == {"clock": 1}
    made.worker.stop()


def test_a_stamp_that_goes_back_a_little_is_passed_over(bench: Bench) -> None:
    bench.feed(0, 10**9)
    bench.feed(1, 10**9 - 30 * MS)
    bench.feed(2, 10**9)
    bench.feed(3, 10**9 + 1)
    assert bench.decoded == [0, 3]
    assert bench.worker.status().drops == {"stamp": 2}


def test_a_driver_without_time_is_stamped_on_arrival(bench: Bench) -> None:
    for message in range(16):
        bench.now += 80 * MS
        bench.feed(message, 0)
    assert [answer.stamp for answer in bench.answers] == [14 * 80 * MS, 15 * 80 * MS, 16 * 80 * MS]


def test_a_message_that_cannot_be_read_is_said_once_and_left_out(bench: Bench, model: Model) -> None:
    for index, message in enumerate([*range(5), -1, -1, -2, *range(5, 20)]):
        bench.feed(message, (index + 1) * 80 * MS)
    assert bench.said == ["picture -1 is none", "picture -2 is none"]
    same(bench.answers, alone(model, list(range(20))))
    status = bench.worker.status()
    assert status.drops == {"unreadable": 3} and not status.unreadable_now and status.error == "picture -2 is none"


def test_what_goes_wrong_in_delivery_stops_nothing(model: Model) -> None:
    def full(answer: Answer) -> None:
        raise OSError("no room")

    made = Bench(model, deliver=full)
    made.worker.start()
    for message in range(20):
        made.feed(message, (message + 1) * 80 * MS)
    made.until(lambda: made.worker.status().drops == {"undelivered": 7})
    assert made.said == ["an answer could not be delivered (OSError: no room)"]
    assert made.worker.status().state == "running" and made.worker.status().stepped == 20
    made.worker.stop()


@pytest.mark.parametrize("error", [EngineError("the engine broke."), ZeroDivisionError("division")])
def test_a_failing_engine_ends_the_worker_and_is_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(frame: object) -> None:
        raise error

    monkeypatch.setattr(bench.stream, "step", broken)
    bench.permits.release()
    bench.worker.offer(0, 1)
    bench.until(lambda: bench.worker.status().state == "failed")
    bench.worker.offer(1, 2)
    assert bench.worker.status().drops == {"failed": 1}
    assert bench.said == ["the engine broke." if isinstance(error, EngineError) else "ZeroDivisionError: division"]


def test_stopping_forgets_and_starting_begins_anew(bench: Bench, model: Model) -> None:
    for message in range(20):
        bench.feed(message, (message + 1) * 80 * MS)
    bench.worker.stop()
    bench.worker.stop()
    assert bench.stream.steps == 0 and bench.worker.status().state == "idle"
    bench.worker.offer(0, 1)
    assert bench.worker.status().drops == {"idle": 1}
    bench.worker.start()
    with pytest.raises(SpecError, match="runs already"):
        bench.worker.start()
    for message in range(20):
        bench.feed(message, (message + 1) * 80 * MS)
    same(bench.answers, 2 * alone(model, list(range(20))))
    assert bench.worker.status().resets == {}, "stamps of another run are not compared"


def test_a_reset_that_was_asked_for(bench: Bench, model: Model) -> None:
    for message in range(30):
        if message == 10:
            bench.worker.request_reset()
        bench.feed(message, (message + 1) * 80 * MS)
    same(bench.answers, alone(model, list(range(10, 30))))
    assert bench.worker.status().resets == {"asked": 1}


def test_threads_end(model: Model) -> None:
    before = threading.active_count()
    for _ in range(5):
        made = Bench(model)
        made.worker.start()
        made.worker.stop()
        made.stream.close()
    assert threading.active_count() == before
