"""A function as a sink."""

from __future__ import annotations

from collections.abc import Callable

from edgeco.runtime.frame import Frame
from edgeco.runtime.result import Result
from edgeco.runtime.sinks.base import Delivery, Keeps


class Callback:
    """Calls a function with every frame that the network was stepped with, and its result.

    Args:
        function: called in the sink's own thread.
        keeps: which calls must not be lost. With ``Keeps.ALL`` an exception of the function ends the run.
        name: how reports call it; the function's own name otherwise.
    """

    def __init__(
        self, function: Callable[[Frame, Result], object], keeps: Keeps = Keeps.NEWEST, name: str | None = None
    ) -> None:
        self._function = function
        self.keeps = keeps
        self.name = name or getattr(function, "__name__", "callback")

    def take(self, delivery: Delivery) -> None:
        if delivery.result is not None:
            self._function(delivery.frame, delivery.result)

    def close(self) -> None:
        """Nothing."""
