"""What TensorRT says while it works: kept, so that a failure can be told in its own words."""

from __future__ import annotations

from collections import deque
from types import ModuleType
from typing import Any

KEPT = 20
ERROR = 1
"""TensorRT's severities: 0 internal error, 1 error, 2 warning, 3 information, 4 verbose."""


def make_logger(trt: ModuleType) -> Any:
    """An ``ILogger`` that prints nothing; ``errors`` has the latest errors, oldest first."""

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=KEPT)

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= ERROR:
                self.errors.append(" ".join(message.split()))

    return Logger()


def last_words(logger: Any, otherwise: str = "it gives no reason") -> str:
    """The first error since the last call, which is the cause of the others."""
    words = logger.errors[0] if logger.errors else otherwise
    logger.errors.clear()
    return str(words)
