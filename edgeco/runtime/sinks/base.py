"""What a sink is, and what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from edgeco.runtime.frame import Frame
from edgeco.runtime.result import Result


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """One frame and what became of it.

    Args:
        frame: the frame as the source gave it; its picture is empty, (0, 0, 3), where it was dropped for lack of time.
        result: the answer of its last step; None where the network was not stepped with it.
        record: its JSON line, as ``edgeco.runtime.record`` describes it. Not to be changed: all sinks share it.
    """

    frame: Frame
    result: Result | None
    record: Mapping[str, Any]


class Keeps(str, Enum):
    """Which deliveries a sink must not lose."""

    ALL = "all"
    """None is lost: the pipeline waits for the sink, and its failure ends the run."""
    RECORDINGS = "recordings"
    """None of a recording, which can wait; of a live source as ``NEWEST``. A failure is counted."""
    NEWEST = "newest"
    """The oldest that wait are dropped, and counted, when the sink is slow. A failure is counted."""


class Sink(Protocol):
    """Takes deliveries in the order of the frames. Every sink of a pipeline is called from one thread of its own.

    A sink may also have the attributes ``name`` (how reports call it; its class's name otherwise), ``keeps`` (one of
    ``Keeps``, ``NEWEST`` otherwise), and ``pictures``: where that is false its deliveries come with an empty picture,
    so that many may wait.
    """

    def take(self, delivery: Delivery) -> None:
        """Take one delivery. Called by the same thread as ``close``, and not before the pipeline starts."""

    def close(self) -> None:
        """Release what it holds; called once, after the last delivery. May raise if something was not written."""
