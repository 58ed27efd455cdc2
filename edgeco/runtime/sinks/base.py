"""What a sink is, and what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edgeco.runtime.frame import Frame
from edgeco.runtime.result import Result


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """One frame and what became of it.

    Args:
        frame: the frame as the source gave it.
        result: the answer of its last step; None where the network was not stepped with it.
        record: its JSON line, as ``edgeco.runtime.record`` describes it. Not to be changed: all sinks share it.
    """

    frame: Frame
    result: Result | None
    record: Mapping[str, Any]


class Sink(Protocol):
    """Takes deliveries in the order of the frames. Every sink of a pipeline is called from one thread of its own.

    A sink may also have the attributes ``name`` (how reports call it; its class's name otherwise) and ``lossless``:
    where that is true no delivery is ever dropped, the pipeline waits for it rather, and its failure ends the run. Of
    any other sink the oldest delivery that waits is dropped when it is slow, and a failure is counted.
    """

    def take(self, delivery: Delivery) -> None:
        """Take one delivery. Called by the same thread as ``close``, and not before the pipeline starts."""

    def close(self) -> None:
        """Release what it holds; called once, after the last delivery. May raise if something was not written."""
