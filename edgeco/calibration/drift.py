"""How far a form of a network drifts from FP32 over a long stream, step by step.

Rounding that stayed in the states would grow with the stream: the error of its last tenth is held against that of its
second, the first still holding the start. Cosine and error are of the whole answer of a step; ``agreement`` is of the
greatest class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgeco.bundle.manifest import Manifest
from edgeco.errors import CheckFailed

Array = np.ndarray[Any, Any]

FIELDS = 10
"""Receptive fields that a stream must last for its drift to count."""
SHOWN = 240
"""Points of the curves that are kept."""
SHORTEST = 20
"""Steps of a tenth at least."""
LEAST_COSINE = 0.97
"""Cosine of every answer with FP32's that a form must have unless another is asked for. It is that of the worst step,
which trained networks come near to without losing a case of those held out (``docs/precision.md``)."""
NOTHING = 1e-4
"""A relative error so small that its growth says nothing: that of another order of sums."""


@dataclass(frozen=True)
class Drift:
    """What one output of a form differs by from FP32, over the steps that give it.

    Attributes:
        output: its name.
        steps: how many valid answers were compared.
        cosine: the least of any step.
        mean_cosine: over all steps.
        moving: the cosine of what differs from the mean answer, over the whole stream: a network that answers nearly
            the same to everything, as an untrained one does, has a high cosine whatever is done to it, but not this.
        error: the greatest of any number, relative to the greatest magnitude of all answers.
        mean_error: the mean over steps of |difference| / |answer|, both Euclidean.
        agreement: the share of steps in which the greatest class is the same; None of one number alone.
        second, last: mean error of the second and the last tenth of the stream.
        cosines, errors: by step, at most ``SHOWN``, each the worst of a run of steps.
        agreements: the share of each such run in which the greatest class is the same; empty of one number alone.
    """

    output: str
    steps: int
    cosine: float
    mean_cosine: float
    moving: float
    error: float
    mean_error: float
    agreement: float | None
    second: float
    last: float
    cosines: tuple[float, ...]
    errors: tuple[float, ...]
    agreements: tuple[float, ...]

    @property
    def growth(self) -> float:
        """The error of the last tenth by that of the second; 1 where there is no error to speak of."""
        return 1.0 if self.last <= NOTHING else self.last / max(self.second, 1e-12)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "growth": self.growth}


@dataclass(frozen=True)
class Limits:
    """Beyond which a form is refused.

    Attributes:
        cosine: the least that any step's answer may have with FP32's.
        growth: how many times the error of the second tenth that of the last may be.
    """

    cosine: float = LEAST_COSINE
    growth: float = 1.2


def drift_stream(frames: Array, manifest: Manifest) -> Array:
    """A stream of at least ten receptive fields after the first valid answer, for comparisons.

    One part of the recording is played to and fro ten times, so that every tenth sees the same frames and what differs
    between them is drift, not what happens in the recording. Played from its beginning again it would jump, which no
    recording does and no calibration has seen.

    Args:
        frames: (steps, *shape), of which the first are taken.
        manifest: of the network.
    """
    timeline = manifest.timeline
    tenth = -(-max(timeline.receptive_field, SHORTEST) // timeline.stride) * timeline.stride
    return to_and_fro(frames, _places(np.arange(timeline.valid_from + FIELDS * tenth), tenth))


def to_and_fro(frames: Array, steps: int | Array) -> Array:
    """So many steps of a recording, or the steps that are named, played to and fro where there are more than frames."""
    steps = np.arange(steps) if isinstance(steps, int) else steps
    return np.asarray(frames[_places(steps, 2 * (len(frames) - 1))])


def _places(steps: Array, period: int) -> Array:
    """Places that go up by one to half the period and down again."""
    inside = steps % max(period, 1)
    return np.asarray(np.minimum(inside, period - inside))


def check_drift(name: str, found: Sequence[Drift], limits: Limits, remedy: str) -> None:
    """Raises CheckFailed, with what can be done, if a form drifts beyond the limits."""
    for drift in found:
        wrong = None
        if not drift.cosine >= limits.cosine:
            wrong = f"its answers have a cosine of {drift.cosine:.4f} with FP32's at worst, below {limits.cosine:g}"
        elif not drift.growth <= limits.growth:
            wrong = f"its error grows {drift.growth:.2f} times from the second to the last tenth of the stream"
        if wrong is not None:
            raise CheckFailed(
                f"The form {name} drifts from FP32 over {drift.steps} answers of {drift.output!r}: {wrong}. {remedy}"
            )


def drifts(manifest: Manifest, expected: dict[str, Array], given: dict[str, Array]) -> list[Drift]:
    """Compare the answers of two forms, (steps, *shape) each, output by output."""
    made = []
    for output in manifest.outputs:
        first = manifest.timeline.first_answer(output)
        right = expected[output.name][first :: output.rate].astype(np.float64)
        left = given[output.name][first :: output.rate].astype(np.float64)
        made.append(_drift(output.name, right.reshape(len(right), -1), left.reshape(len(left), -1)))
    return made


def _drift(name: str, right: Array, left: Array) -> Drift:
    tiny = 1e-12
    sizes = np.linalg.norm(right, axis=1)
    errors = np.linalg.norm(left - right, axis=1) / np.maximum(sizes, tiny)
    products = np.maximum(sizes * np.linalg.norm(left, axis=1), tiny)
    cosines = np.where(sizes > tiny, (left * right).sum(axis=1) / products, 1.0)
    errors, cosines = np.nan_to_num(errors, nan=np.inf), np.nan_to_num(cosines, nan=-1.0)
    agreed = (left.argmax(1) == right.argmax(1)).astype(np.float64) if right.shape[1] > 1 else None
    tenth = max(len(right) // 10, 1)
    return Drift(
        output=name,
        steps=len(right),
        cosine=float(cosines.min()),
        mean_cosine=float(cosines.mean()),
        moving=_moving(right, left),
        error=float(np.nan_to_num(np.abs(left - right), nan=np.inf).max() / max(float(np.abs(right).max()), tiny)),
        mean_error=float(errors.mean()),
        agreement=None if agreed is None else float(agreed.mean()),
        second=float(errors[tenth : 2 * tenth].mean()) if len(right) >= 2 * tenth else float(errors.mean()),
        last=float(errors[-tenth:].mean()),
        cosines=_thinned(cosines, np.min),
        errors=_thinned(errors, np.max),
        agreements=() if agreed is None else _thinned(agreed, np.mean),
    )


def _moving(right: Array, left: Array) -> float:
    a, b = (right - right.mean(axis=0)).ravel(), (left - left.mean(axis=0)).ravel()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.nan_to_num(a @ b / size, nan=-1.0)) if size > 0 else 1.0


def _thinned(curve: Array, of_run: Callable[[Array], Any]) -> tuple[float, ...]:
    parts = np.array_split(curve, min(len(curve), SHOWN))
    return tuple(round(float(of_run(part)), 6) for part in parts)
