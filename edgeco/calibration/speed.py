"""What a step takes in several forms on this processor, measured in turn, so that a busy machine is busy for all."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median

from edgeco.bundle.manifest import Manifest
from edgeco.engines import open_engine
from edgeco.engines.session import Session
from edgeco.export.exported import Exported

ROUNDS = 15
STEPS = 4
"""Steps of one form before it is the other's turn."""


def step_milliseconds(
    forms: Mapping[str, tuple[Exported, Manifest]], rounds: int = ROUNDS, threads: int | None = None
) -> dict[str, float]:
    """Median milliseconds of a step in each form.

    Args:
        forms: by name the graphs and the manifest with the histories as that form stores them.
        rounds: turns of each; the first is not counted.
        threads: processor threads; None for the physical cores.
    """
    sessions = {
        name: Session(open_engine(made.phases(), engine="onnxruntime", threads=threads), manifest)
        for name, (made, manifest) in forms.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(rounds + 1):
        for name, session in sessions.items():
            for _ in range(STEPS * forms[name][1].timeline.stride):
                start = time.perf_counter()
                session.run()
                if turn:
                    taken[name].append(time.perf_counter() - start)
    return {name: 1e3 * median(times) for name, times in taken.items()}
