"""What a pipeline tells of itself: counts and times, written by its threads and read by anyone."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from edgeco.runtime.result import Score
from edgeco.runtime.sinks.worker import SinkStatus
from edgeco.runtime.sources.status import SourceStatus
from edgeco.runtime.timing import Percentiles, Stages
from edgeco.runtime.timing import Summary as Times
from edgeco.runtime.work import BUSY, NO_INPUT, Outcome

STAGES = ("read", "prepare", "step", "deliver")
"""Waiting for a frame and decoding it; making of it what the network takes; stepping the network, as often as the pacer
says; making the record and handing it to the sinks. They overlap: their sum may exceed the time of the run."""

_RECENT = 64
"""Answers over which the present rate is measured."""


class State(str, Enum):
    """Where a pipeline stands."""

    NEW = "new"
    RUNNING = "running"
    STOPPING = "stopping"
    """No more frames are taken; those in hand are stepped and delivered."""
    ENDED = "ended"
    FAILED = "failed"

    @property
    def final(self) -> bool:
        return self in (State.ENDED, State.FAILED)


@dataclass(frozen=True, slots=True)
class PipelineStatus:
    """A snapshot; seconds throughout.

    Args:
        state: where the pipeline stands.
        ended: why it ended (``source``, ``frames``, ``stopped``, ``error``); None before.
        error: what ended it with an error, in one sentence.
        frames, stepped, valid, warm: frames delivered, stepped with, with a valid answer, with a warm one.
        gaps: frames that the source knows to be missing.
        pacer: the pacer's counts.
        drops: frames dropped, by cause: the source's own causes, ``busy`` and ``no input``.
        sinks: by name.
        stages: percentiles of ``STAGES`` that occurred, and ``age`` (capture to answer) for a live source.
        source: the source's own status, None where it has none.
        top: best classes of the last valid answer, best first.
        index, stamp: of the frame of that answer.
        is_valid, is_warm: of the last step.
        age: of that answer now: since its frame was captured; None where the source is not live.
        fps: answers per second over the last 64 of them.
        jitter: standard deviation of the time from answer to answer.
        seconds: since the start.
    """

    state: State
    ended: str | None = None
    error: str | None = None
    frames: int = 0
    stepped: int = 0
    valid: int = 0
    warm: int = 0
    gaps: int = 0
    pacer: Mapping[str, int] = field(default_factory=dict)
    drops: Mapping[str, int] = field(default_factory=dict)
    sinks: Mapping[str, SinkStatus] = field(default_factory=dict)
    stages: Mapping[str, Times] = field(default_factory=dict)
    source: SourceStatus | None = None
    top: tuple[Score, ...] = ()
    index: int | None = None
    stamp: float | None = None
    is_valid: bool = False
    is_warm: bool = False
    age: float | None = None
    fps: float = 0.0
    jitter: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did. Times are in seconds.

    Args:
        frames: frames taken from the source; each has one record in every JSON-lines sink.
        stepped: frames the network was stepped with.
        valid, warm: frames whose answer was valid, and whose network had seen a whole receptive field.
        gaps: frames that the source knows to be missing.
        seconds: from the start to the last record.
        ended: why it ended: ``source`` (its end), ``frames`` (as many as asked), ``stopped`` or ``error``.
        stages: count, mean, p50, p90, p99 and max for each of ``STAGES`` that occurred, and ``age`` of live sources.
        jitter: standard deviation of the time from answer to answer.
        pacer, drops, sinks: as in ``PipelineStatus``.
    """

    frames: int
    stepped: int
    valid: int
    warm: int
    gaps: int
    seconds: float
    ended: str
    stages: dict[str, dict[str, float]]
    jitter: float = field(default=0.0, compare=False)
    pacer: dict[str, int] = field(default_factory=dict, compare=False)
    drops: dict[str, int] = field(default_factory=dict, compare=False)
    sinks: dict[str, dict[str, Any]] = field(default_factory=dict, compare=False)

    @property
    def fps(self) -> float:
        """Frames per second of the whole run; 0 before anything ran."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    @property
    def answers_per_second(self) -> float:
        """Stepped frames per second of the whole run; 0 before anything ran."""
        return self.stepped / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """The summary as plain values."""
        return {**asdict(self), "fps": self.fps, "answers_per_second": self.answers_per_second}


def summarize(status: PipelineStatus) -> Summary:
    """A pipeline's status as the summary of its run."""
    stages = {name: asdict(stage) for name, stage in status.stages.items()}
    sinks = {name: asdict(sink) for name, sink in status.sinks.items()}
    return Summary(
        status.frames,
        status.stepped,
        status.valid,
        status.warm,
        status.gaps,
        status.seconds,
        status.ended or "error",
        stages,
        status.jitter,
        dict(status.pacer),
        dict(status.drops),
        sinks,
    )


class Figures:
    """Counts and times of one pipeline."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages = Stages()
        self._age = Percentiles()
        self._counts: Counter[str] = Counter()
        self._drops: Counter[str] = Counter()
        self._started: float | None = None
        self._ended: float | None = None
        self._answers: deque[float] = deque(maxlen=_RECENT)
        self._intervals = _Spread()
        self._last: Outcome | None = None
        self._told: tuple[Outcome, tuple[Score, ...]] | None = None

    def start(self) -> None:
        self._started = time.monotonic()

    def end(self) -> None:
        self._ended = time.monotonic()

    def add(self, stage: str, nanoseconds: int) -> None:
        """Count one pass through a stage."""
        with self._lock:
            self._stages.add(stage, nanoseconds * 1e-9)

    def stepped(self, outcome: Outcome) -> None:
        """Count an answer, just as it comes."""
        at = time.monotonic()
        with self._lock:
            if self._answers:
                self._intervals.add(at - self._answers[-1])
            self._answers.append(at)
            if outcome.age is not None:
                self._age.add(outcome.age)

    def delivered(self, outcome: Outcome, top: tuple[Score, ...]) -> None:
        """Count a frame that was handed to the sinks."""
        result, counts = outcome.result, self._counts
        with self._lock:
            counts["frames"] += 1
            counts["gaps"] += outcome.frame.gap
            if result is None:
                if outcome.why in (BUSY, NO_INPUT):
                    self._drops[outcome.why] += 1
                return
            counts["stepped"] += 1
            counts["valid"] += result.valid
            counts["warm"] += result.warm
            self._last = outcome
            if result.valid:
                self._told = outcome, top

    def status(
        self,
        state: State,
        ended: str | None,
        error: str | None,
        pacer: Mapping[str, int],
        sinks: Mapping[str, SinkStatus],
        source: SourceStatus | None,
    ) -> PipelineStatus:
        """A snapshot, with what others tell."""
        with self._lock:
            stages = self._stages.report()
            stages = {name: stages[name] for name in STAGES if name in stages}
            if self._age.count:
                stages["age"] = self._age.summary()
            now = time.monotonic()
            until = now if self._ended is None else self._ended
            last = self._last.result if self._last is not None else None
            told, top = self._told if self._told is not None else (None, ())
            taken = told.frame.taken if told is not None else None
            counts = self._counts
            return PipelineStatus(
                state,
                ended,
                error,
                frames=counts["frames"],
                stepped=counts["stepped"],
                valid=counts["valid"],
                warm=counts["warm"],
                gaps=counts["gaps"],
                pacer=pacer,
                drops={**(source.drops if source is not None else {}), **self._drops},
                sinks=sinks,
                stages=stages,
                source=source,
                top=top,
                index=told.frame.index if told is not None else None,
                stamp=told.frame.stamp if told is not None else None,
                is_valid=last is not None and bool(last.valid),
                is_warm=last is not None and bool(last.warm),
                age=(time.monotonic_ns() - taken) * 1e-9 if taken is not None else None,
                fps=self._rate(until),
                jitter=self._intervals.deviation,
                seconds=until - self._started if self._started is not None else 0.0,
            )

    def _rate(self, until: float) -> float:
        """Answers per second lately; falls when none come any more."""
        times = self._answers
        if len(times) < 2 or times[-1] <= times[0]:
            return 0.0
        usual = (times[-1] - times[0]) / (len(times) - 1)
        return (len(times) - 1) / (max(times[-1], until - usual) - times[0])


class _Spread:
    """Standard deviation of a stream of numbers, by Welford's recurrence."""

    def __init__(self) -> None:
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, value: float) -> None:
        self._count += 1
        off = value - self._mean
        self._mean += off / self._count
        self._squares += off * (value - self._mean)

    @property
    def deviation(self) -> float:
        return math.sqrt(self._squares / self._count) if self._count else 0.0
