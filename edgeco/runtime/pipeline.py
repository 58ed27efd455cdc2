"""Capture, preprocessing, steps and delivery side by side, each in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from edgeco.runtime.frame import Frame
from edgeco.runtime.pacer import Pacer
from edgeco.runtime.result import Score
from edgeco.runtime.sinks import Sink
from edgeco.runtime.timing import Summary as Times

if TYPE_CHECKING:
    from edgeco.runtime.model import Model
    from edgeco.runtime.run import Summary
    from edgeco.runtime.sources.status import SourceStatus


class State(str, Enum):
    """Where a pipeline stands."""

    NEW = "new"
    RUNNING = "running"
    STOPPING = "stopping"
    """No more frames are taken; those in hand are stepped and delivered."""
    ENDED = "ended"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """What a sink did: deliveries taken, dropped because it was slow, and failed; its last failure in one sentence."""

    taken: int = 0
    dropped: int = 0
    failed: int = 0
    error: str | None = None


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
        drops: frames dropped, by cause: the source's own causes, and ``busy``.
        sinks: by name.
        stages: percentiles of ``read``, ``prepare``, ``step`` and ``deliver``; ``age`` for a live source.
        source: the source's own status, None where it has none.
        top: best classes of the last valid answer, best first.
        index, stamp: of the frame of that answer.
        is_valid, is_warm: of the last step.
        age: of that answer now: since its frame was captured; None where the source is not live.
        fps: answers per second over the last seconds.
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


class Pipeline:
    """One stream of a network over one source, to as many sinks as wanted."""

    def __init__(
        self,
        model: Model,
        source: Iterable[Frame],
        sinks: Sequence[Sink] = (),
        *,
        pacer: Pacer | None = None,
        pre: Callable[[Frame], Any] | None = None,
        top: int = 5,
        frames: int | None = None,
    ) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Start the threads. Raises what opening the stream raises."""
        raise NotImplementedError

    def stop(self) -> None:
        """Take no more frames; those in hand are stepped and delivered. Returns at once."""
        raise NotImplementedError

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end; false if it did not come in time. Raises what ended the run with an error."""
        raise NotImplementedError

    def run(self, stop: Callable[[], bool] | None = None) -> Summary:
        """``start`` and ``join`` in one, asking ``stop()`` before every frame."""
        raise NotImplementedError

    def request_reset(self) -> None:
        """Reset the network's state before its next step."""
        raise NotImplementedError

    def status(self) -> PipelineStatus:
        """A snapshot, from any thread."""
        raise NotImplementedError
