"""A run that is only told: a pipeline's status and deliveries as a test wants them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgeco.runtime.frame import Frame
from edgeco.runtime.pipeline import PipelineStatus, SinkStatus, State
from edgeco.runtime.result import Score
from edgeco.runtime.sinks import Delivery
from edgeco.runtime.sources.status import SourceStatus
from edgeco.runtime.sources.status import State as SourceState
from edgeco.runtime.timing import Stages

LABELS = ("wave", "clap", 'a "quoted" <b>label</b>')


class ToldRun:
    """Stands for a pipeline: its status is what a test says."""

    def __init__(self) -> None:
        stages = Stages()
        for _ in range(10):
            stages.add("read", 0.002)
            stages.add("step", 0.008)
        source = SourceStatus(
            "rtsp://cam/1", SourceState.RUNNING, 9, 9, {"stale": 2}, 1, (64, 48), 30.0, 29.5, "ffmpeg"
        )
        top = tuple(
            Score(index, label, score) for (index, label), score in zip(enumerate(LABELS), (0.7, 0.2, 0.1), strict=True)
        )
        self.now = PipelineStatus(
            State.RUNNING,
            frames=9,
            stepped=8,
            valid=7,
            warm=6,
            pacer={"stepped": 8, "passed": 1},
            drops={"stale": 2, "busy": 0},
            sinks={"preview": SinkStatus(taken=9), "video": SinkStatus(taken=4, dropped=5)},
            stages=stages.report(),
            source=source,
            top=top,
            is_valid=True,
            is_warm=True,
            age=0.05,
            fps=15.0,
            jitter=0.002,
            seconds=0.6,
        )
        self.resets = 0
        self.asked = 0

    def status(self) -> PipelineStatus:
        self.asked += 1
        return self.now

    def request_reset(self) -> None:
        self.resets += 1

    def become(self, of_source: SourceState | None = None, **changes: Any) -> None:
        """Change the status, or the state of its source."""
        if of_source is not None and self.now.source is not None:
            changes["source"] = replace(self.now.source, state=of_source)
        self.now = replace(self.now, **changes)


def delivery(number: int, scores: tuple[float, ...] = (0.7, 0.2, 0.1), image: Any = None) -> Delivery:
    """One delivery with the classes' scores, best first; each picture differs from the one before."""
    image = np.full((48, 64, 3), number % 256, np.uint8) if image is None else image
    ranked = sorted(enumerate(scores), key=lambda entry: -entry[1])
    top = [{"index": index, "label": LABELS[index], "score": score} for index, score in ranked]
    return Delivery(Frame(image, number / 10, "rate", number), None, {"index": number, "top": top})
