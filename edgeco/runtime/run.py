"""The run loop: frames of a source through a network, one record per frame, every stage timed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgeco.errors import SpecError
from edgeco.runtime.frame import Frame
from edgeco.runtime.model import Model
from edgeco.runtime.result import Result
from edgeco.runtime.sinks import Sink
from edgeco.runtime.stream import Stream
from edgeco.runtime.timing import Stages, now

STAGES = ("read", "step", "deliver")
"""Reading and decoding a frame; preprocessing it and stepping the network; writing its record and calling back."""

_MOST_VALUES = 1024
"""Greatest number of output values that a record repeats, for networks without labels."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did. Times are in seconds.

    Args:
        frames: frames decoded; each has one record in every sink.
        stepped: frames the network was stepped with.
        valid, warm: frames whose answer was valid, and whose network had seen a whole receptive field.
        gaps: frames that the source knows to be missing.
        seconds: from the first read to the last record.
        ended: why it ended: ``source`` (its end), ``frames`` (as many as asked), ``stopped`` or ``error``.
        stages: count, mean, p50, p90, p99 and max for each of ``STAGES`` that occurred.
    """

    frames: int
    stepped: int
    valid: int
    warm: int
    gaps: int
    seconds: float
    ended: str
    stages: dict[str, dict[str, float]]

    @property
    def fps(self) -> float:
        """Frames per second of the whole run; 0 before anything ran."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """The summary as plain values."""
        return {**asdict(self), "fps": self.fps}


class Run:
    """One run of a network over a source, whose ``summary`` can be asked for at any time, also after an error.

    Args:
        model: the network; it must take pictures.
        sinks: each gets one record per decoded frame.
        on_frame: called with the frame and its result after its record is written.
        top: how many classes a record names.
    """

    def __init__(
        self,
        model: Model,
        sinks: Sequence[Sink] = (),
        *,
        on_frame: Callable[[Frame, Result], None] | None = None,
        top: int = 5,
    ) -> None:
        if model.manifest.preprocessing is None:
            raise SpecError(
                f"{model.manifest.name} takes arrays, not pictures, so a camera or recording cannot feed it; "
                "step it from Python with model.stream()"
            )
        if top < 1:
            raise SpecError(f"top takes at least 1 class, not {top}")
        self._model, self._sinks, self._on_frame, self._top = model, tuple(sinks), on_frame, top
        self._stages = Stages()
        self._frames = self._stepped = self._valid = self._warm = self._gaps = self._nanoseconds = 0
        self._ended = "error"

    def over(
        self, source: Iterable[Frame], frames: int | None = None, stop: Callable[[], bool] | None = None
    ) -> Summary:
        """Step every frame of a source from a fresh stream, until it ends, ``frames`` are done or ``stop()`` is true.

        Errors of the source, the network or a sink pass through; records of the frames before are written by then.
        """
        start = now()
        self._ended = "error"
        try:
            with self._model.stream() as stream:
                self._ended = self._loop(stream, iter(source), frames, stop)
        finally:
            self._nanoseconds += now() - start
        return self.summary

    def _loop(
        self, stream: Stream, source: Iterator[Frame], frames: int | None, stop: Callable[[], bool] | None
    ) -> str:
        done = 0
        while frames is None or done < frames:
            if stop is not None and stop():
                return "stopped"
            before = now()
            frame = next(source, None)
            if frame is None:
                return "source"
            self._stages.add("read", (now() - before) * 1e-9)
            self._take(stream, frame)
            done += 1
        return "frames"

    def _take(self, stream: Stream, frame: Frame) -> None:
        before = now()
        result = stream.step(frame)
        between = now()
        self._stages.add("step", (between - before) * 1e-9)
        self._frames += 1
        self._stepped += 1
        self._valid += result.valid
        self._warm += result.warm
        self._gaps += frame.gap
        if self._sinks:
            entry = record(frame, result, self._top, labelled=self._model.labels is not None)
            for sink in self._sinks:
                sink.write(entry)
        if self._on_frame is not None:
            self._on_frame(frame, result)
        self._stages.add("deliver", (now() - between) * 1e-9)

    @property
    def summary(self) -> Summary:
        """The summary so far."""
        stages = {name: asdict(stage) for name, stage in self._stages.report().items()}
        seconds = self._nanoseconds * 1e-9
        return Summary(self._frames, self._stepped, self._valid, self._warm, self._gaps, seconds, self._ended, stages)


def run(
    model: Model,
    source: Iterable[Frame],
    sinks: Sequence[Sink] = (),
    frames: int | None = None,
    on_frame: Callable[[Frame, Result], None] | None = None,
    *,
    top: int = 5,
    stop: Callable[[], bool] | None = None,
) -> Summary:
    """Run a network over a source of frames.

    Args:
        model: the network; it must take pictures.
        source: frames, as ``open_source`` gives them.
        sinks: each gets one record per decoded frame, always.
        frames: end after as many; None for all.
        on_frame: called with the frame and its result after its record is written.
        top: how many classes a record names.
        stop: asked before every frame; true ends the run.

    Returns:
        Counts and percentiles per stage.

    Raises:
        SpecError: the network takes no pictures, or ``top`` is below 1.
        EdgecoError: whatever the source, the network or a sink raises; records of the frames before are written.

    Example::

        with open_source("clip.mp4") as source, JsonLines("answers.jsonl") as sink:
            summary = run(load("gesture.edgeco"), source, [sink])
    """
    return Run(model, sinks, on_frame=on_frame, top=top).over(source, frames, stop)


def record(frame: Frame, result: Result, top: int = 5, *, labelled: bool = True) -> dict[str, Any]:
    """What is written of one frame.

    ``index``, ``stamp`` (seconds), ``gap``, ``stepped``, ``step``, ``valid``, ``warm``; ``truth`` where the source
    knows the label; where the answer is valid ``top``, the best classes with index, label and score, and for a network
    without labels ``outputs``, its values unless they are more than a thousand.
    """
    entry: dict[str, Any] = {
        "index": frame.index,
        "stamp": round(frame.stamp, 9),
        "gap": frame.gap,
        "stepped": 1,
        "step": result.step,
        "valid": bool(result.valid),
        "warm": bool(result.warm),
    }
    if frame.label is not None:
        entry["truth"] = frame.label
    if result.valid:
        entry["top"] = [
            {"index": score.index, "label": score.label, "score": _finite(score.score)} for score in result.top(top)
        ]
        if not labelled and sum(values.size for values in result.outputs.values()) <= _MOST_VALUES:
            entry["outputs"] = {name: np.asarray(values).tolist() for name, values in result.outputs.items()}
    return entry


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
