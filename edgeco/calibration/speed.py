"""What a step takes in several forms on this processor, and which of them is to be run on its like."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from statistics import median

from edgeco.bundle.manifest import Manifest, Preference
from edgeco.engines import open_engine
from edgeco.engines.selection import EXACT, MARGIN, SMALL
from edgeco.engines.session import Session
from edgeco.export.exported import Exported
from edgeco.export.tensorrt_forms import Form

ROUNDS = 15
STEPS = 4
"""Steps of one form before it is the other's turn."""


def step_milliseconds(
    forms: Mapping[str, tuple[Exported, Manifest]], rounds: int = ROUNDS, threads: int | None = None
) -> dict[str, float]:
    """Median milliseconds of a step in each form, measured in turn, so that a busy machine is busy for all.

    Args:
        forms: by name the graphs and the manifest with the histories as that form stores them.
        rounds: turns of each; the first is not counted.
        threads: processor threads; None for those that a run takes: the physical cores, or one if a step is small.
    """
    if threads is None and all(manifest.costs.step_macs < SMALL for _, manifest in forms.values()):
        threads = 1
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


def preferred(forms: Sequence[Form]) -> dict[str, Preference]:
    """What a manifest says of forms that were timed: by kind of device the variant that is run there unless told.

    What is smaller is not always faster: a form takes FP32's place only where it was clearly faster.

    Args:
        forms: those to be written, all of which have passed their gates; ``told["milliseconds"]`` of one that was timed
            holds its own and FP32's.
    """
    for form in forms:
        timed: dict[str, float] = form.told.get("milliseconds", {})
        if timed:
            variant = form.name if timed[form.name] <= MARGIN * timed[EXACT] else EXACT
            return {"cpu": Preference(variant=variant, machine=platform.machine(), milliseconds=timed)}
    return {}
