"""What cuda.bindings returns: a tuple of a result code and values."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from edgeco.errors import EngineError

STICKY = ("ILLEGAL_ADDRESS", "LAUNCH_FAILED", "LAUNCH_TIMEOUT", "HARDWARE_STACK", "ECC_UNCORRECTABLE", "ASSERT")
"""After these no call of the process to the GPU succeeds."""


def advice(name: str) -> str:
    """What to do about a driver's error."""
    if "OUT_OF_MEMORY" in name:
        return "close other programs on the GPU, or step fewer rows at once"
    if any(word in name for word in STICKY):
        return "start the program again, and report it with the bundle if it comes back"
    return "check the GPU with edgeco doctor, and start the program again"


def first_line(error: BaseException) -> str:
    """The first line of an error's message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


class Results:
    """Turns result codes into errors."""

    def __init__(self, driver: ModuleType) -> None:
        self._driver = driver

    def call(self, result: Any) -> Any:
        """The value, the values, or None. Raises EngineError."""
        if result[0]:
            name = self.name(result[0])
            raise EngineError(f"the GPU reports {name}; {advice(name)}")
        return None if len(result) == 1 else result[1] if len(result) == 2 else result[1:]

    def name(self, error: Any) -> str:
        """The driver's name of a result code."""
        failed, name = self._driver.cuGetErrorName(error)
        return str(error) if failed or not name else name.decode()
