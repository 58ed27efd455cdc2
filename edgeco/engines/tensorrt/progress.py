"""How far a build is, told while it goes on, from TensorRT 10.0 on."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any


def make_monitor(trt: ModuleType, say: Callable[[str], None], cancelled: Callable[[], bool]) -> Any:
    """An ``IProgressMonitor`` that tells each tenth of the outermost phases, and ends the build when asked."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self._told: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None or parent_phase in self._steps:
                self._steps[phase_name] = max(num_steps, 1)
                self._told[phase_name] = 0

        def step_complete(self, phase_name: str, step: int) -> bool:
            tenth = 10 * step // self._steps.get(phase_name, 1)
            if phase_name in self._steps and tenth > self._told[phase_name]:
                self._told[phase_name] = tenth
                say(f"{phase_name}: {tenth * 10} %")
            return not cancelled()

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)
            self._told.pop(phase_name, None)

    return Monitor()
