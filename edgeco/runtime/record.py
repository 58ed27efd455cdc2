"""The JSON line of a frame.

Always ``index``, ``stamp`` (seconds on the source's clock), ``gap`` (frames the source knows to be missing before),
``stepped`` (how often the network was stepped with it: 0, 1 or more), ``valid`` and ``warm``. Where it was stepped
``step``, the number of its last step since reset. Besides, where they apply:

===========  ==================================================================================================
``why``      why it was not stepped with once (``rate``, ``stamp``, ``no input``, ``busy``, ``gap``), or once after
             a gap (``gap``) or on a clock that began anew (``clock``)
``missed``   frames that the network should have had between the last stepped and this one
``reset``    the state was reset before: ``gap``, ``clock``, or ``asked``
``age``      seconds from capture to answer, of live sources
``truth``    what the frame is known to show
``top``      the best classes with index, label and score, where the answer is valid; smoothed if so asked
``raw``      the best classes before smoothing
``outputs``  the values of a network without labels, unless they are more than a thousand
===========  ==================================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from edgeco.runtime.frame import Frame
from edgeco.runtime.result import Result, Score
from edgeco.runtime.work import Outcome

_MOST_VALUES = 1024
"""Greatest number of output values that a record repeats, for networks without labels."""


def record(frame: Frame, result: Result, top: int = 5, *, labelled: bool = True) -> dict[str, Any]:
    """What is written of a frame that was stepped with once."""
    return outcome_record(Outcome(frame, result, 1), result.top(top), labelled=labelled)


def outcome_record(
    outcome: Outcome, top: Iterable[Score], *, raw: Iterable[Score] | None = None, labelled: bool = True
) -> dict[str, Any]:
    """What is written of any frame.

    Args:
        outcome: what became of it.
        top: the best classes, best first.
        raw: those before smoothing, where there is any.
        labelled: whether the network has labels; its values are written otherwise.
    """
    frame, result = outcome.frame, outcome.result
    entry: dict[str, Any] = {
        "index": frame.index,
        "stamp": round(frame.stamp, 9),
        "gap": frame.gap,
        "stepped": outcome.stepped,
    }
    if result is not None:
        entry["step"] = result.step
    entry["valid"] = result is not None and bool(result.valid)
    entry["warm"] = result is not None and bool(result.warm)
    for name, value in (("why", outcome.why), ("missed", outcome.missed), ("reset", outcome.reset)):
        if value:
            entry[name] = value
    if outcome.age is not None:
        entry["age"] = round(outcome.age, 6)
    if frame.label is not None:
        entry["truth"] = frame.label
    if result is not None and result.valid:
        entry["top"] = _scores(top)
        if raw is not None:
            entry["raw"] = _scores(raw)
        if not labelled and sum(values.size for values in result.outputs.values()) <= _MOST_VALUES:
            entry["outputs"] = {name: np.asarray(values).tolist() for name, values in result.outputs.items()}
    return entry


def _scores(scores: Iterable[Score]) -> list[dict[str, Any]]:
    return [{"index": score.index, "label": score.label, "score": _finite(score.score)} for score in scores]


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
