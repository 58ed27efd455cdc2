"""A run in one call: frames of a source through a network, one record per frame, every stage timed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from edgeco.runtime.figures import STAGES, Summary
from edgeco.runtime.frame import Frame
from edgeco.runtime.pacer import Pacer
from edgeco.runtime.pipeline import Pipeline
from edgeco.runtime.record import record
from edgeco.runtime.result import Result
from edgeco.runtime.sinks import Callback, Keeps, Sink

if TYPE_CHECKING:
    from edgeco.runtime.model import Model

__all__ = ["STAGES", "Summary", "record", "run"]


def run(
    model: Model,
    source: Iterable[Frame],
    sinks: Sequence[Sink] = (),
    frames: int | None = None,
    on_frame: Callable[[Frame, Result], None] | None = None,
    *,
    top: int = 5,
    stop: Callable[[], bool] | None = None,
    pacer: Pacer | None = None,
) -> Summary:
    """Run a network over a source of frames, and wait for the end.

    Args:
        model: the network.
        source: frames, as ``open_source`` gives them.
        sinks: each gets every frame, and is closed at the end.
        frames: end after as many; None for all.
        on_frame: called, in another thread, with every frame that was stepped with and its result.
        top: how many classes a record names.
        stop: asked before every frame; true ends the run.
        pacer: which frames are stepped with; the bundle's rate with gaps skipped unless given.

    Returns:
        Counts and percentiles per stage.

    Raises:
        SpecError: ``top`` or ``frames`` is below 1.
        EdgecoError: whatever the source, the network or a sink that must lose nothing raises; records of the frames
            before are written.

    Example::

        with open_source("clip.mp4") as source:
            summary = run(load("gesture.edgeco"), source, [JsonLines("answers.jsonl")])
    """
    called = [] if on_frame is None else [Callback(on_frame, Keeps.ALL)]
    return Pipeline(model, source, [*sinks, *called], top=top, frames=frames, pacer=pacer).run(stop)
