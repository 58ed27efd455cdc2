"""Outputs of the step network: when each is computed, how it is stacked, and what it promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import fx

from edgeco.continual.context import Note
from edgeco.continual.value import Kind, Value
from edgeco.graph.timeline import Timeline, worst
from edgeco.graph.trace import op_name, where


@dataclass(frozen=True)
class Answer:
    """One output of the step network: its name, timeline, and where time stood in the clip network's output."""

    name: str
    timeline: Timeline
    stack_dim: int
    """Axis along which the answers of a recording are stacked."""
    folded: bool
    """Whether that axis is merged into the one before it, as in the clip network."""
    per_element: bool
    """Whether the clip network gives an element per frame, rather than one answer per clip."""


def between_rounds(value: Value) -> bool:
    """Whether an answer to a whole clip differs with where in the recording the clip begins."""
    per_clip = value.kind is Kind.WINDOW or (value.kind is Kind.STREAM and value.time.length == 1)
    return per_clip and value.time.anchored


def answer_of(name: str, value: Value, delay: int) -> Answer:
    timeline = value.time.aged(delay) if delay != value.time.delay or value.time.border is not None else value.time
    axis = value.layout.time if value.kind is Kind.STREAM else None
    if axis is None:
        return Answer(name, timeline, 1, False, False)
    pure = value.layout.pure_time is not None
    return Answer(name, timeline, axis if pure else axis + 1, not pure, value.time.length > 1)


def warm_from(answers: Sequence[Answer]) -> int:
    """Step from which every answer rests on a whole receptive field of real frames."""
    return max(max(t.receptive_field - 1, t.past + t.delay, t.starts_at) for t in (a.timeline for a in answers))


def graded(node: fx.Node, value: Value, report: list[Note]) -> Value:
    """An answer to a clip, with its grade lowered if the clip may begin between two elements of a strided part."""
    if not between_rounds(value):
        return value
    time = replace(value.time, exactness=worst(value.time.exactness, "unpadded"))
    form = (
        f"windows may begin between the {time.grid} frames of a strided part that was upsampled: what they hold is "
        "the whole recording's; exact=True answers where they begin together"
    )
    report.append(Note(op_name(node), where(node), time.exactness, form, time.delay))
    return replace(value, timeline=time)
