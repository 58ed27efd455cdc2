"""Whether a bundle gives on this device the answers that it gave where it was built."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgeco.bundle import Bundle, open_bundle
from edgeco.errors import CheckFailed, EngineError, SpecError
from edgeco.runtime.model import load_bundle
from edgeco.runtime.stream import Stream


@dataclass(frozen=True)
class OutputCheck:
    """One output of one variant over all golden frames.

    ``difference`` is the greatest difference from the golden answers, relative to their greatest magnitude; infinite
    if one has a NaN or an infinity where the other has not. ``worst_step`` is where it lies, None if nothing differs.
    """

    output: str
    difference: float
    worst_step: int | None


@dataclass(frozen=True)
class VariantCheck:
    """One variant; ``skipped`` says why the engine cannot run it, None if it did."""

    variant: str
    engine: str
    tolerance: float
    outputs: tuple[OutputCheck, ...] = ()
    skipped: str | None = None

    @property
    def passed(self) -> bool:
        return self.skipped is None and all(check.difference <= self.tolerance for check in self.outputs)


@dataclass(frozen=True)
class VerifyReport:
    """All variants of a bundle."""

    bundle: str
    sha256: str
    steps: int
    variants: tuple[VariantCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether at least one variant ran, and all that ran are within their tolerance."""
        ran = [check for check in self.variants if check.skipped is None]
        return bool(ran) and all(check.passed for check in ran)

    def to_json(self) -> dict[str, Any]:
        """Builtins only; an infinite difference is None, which JSON can carry."""
        record = asdict(self)
        for check, variant in zip(self.variants, record["variants"], strict=True):
            variant["passed"] = check.passed
            for output in variant["outputs"]:
                output["difference"] = output["difference"] if np.isfinite(output["difference"]) else None
        return {**record, "passed": self.passed}


class VerifyFailed(CheckFailed):
    """A variant is beyond its tolerance; ``report`` has all of them."""

    def __init__(self, message: str, report: VerifyReport) -> None:
        super().__init__(message)
        self.report = report


def verify(
    bundle: Bundle | str | os.PathLike[str],
    *,
    engine: str = "auto",
    threads: int | None = None,
    variants: Sequence[str] | None = None,
    precision: str | None = None,
    say: Callable[[str], None] | None = None,
) -> VerifyReport:
    """Run the golden frames through a stream of every variant and compare the answers.

    Args:
        bundle: an open bundle, or a path.
        engine: name of an engine, or "auto".
        threads: processor threads; None as for ``load``.
        variants: which to verify; None for all. One that the engine cannot run is reported as skipped.
        precision: or those of a precision, ``fp32``, ``fp16`` or ``int8``, by their names.
        say: called with what takes long.

    Raises:
        VerifyFailed: a variant differs by more than its tolerance.
        BundleError: the bundle is damaged or foreign.
        EngineError: the engine can run none of the variants.
        SpecError: there is no such variant.
    """
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    chosen = sorted(opened.manifest.variants) if variants is None else list(variants)
    if precision is not None:
        chosen = [name for name in chosen if precision in name.split("-")]
        if not chosen:
            raise SpecError(f"{opened.path} has no variant of {precision}; build it with --precision {precision}")
    frames, answers = opened.golden()
    checks = tuple(_verify_variant(opened, variant, engine, threads, frames, answers, say) for variant in chosen)
    report = VerifyReport(str(opened.path), opened.sha256, opened.manifest.golden.steps, checks)
    if all(check.skipped is not None for check in checks):
        reasons = _reasons(checks) or "none was named"
        raise EngineError(f"no variant of {opened.path} can be run here ({reasons})")
    if not report.passed:
        raise VerifyFailed(_complaint(report), report)
    return report


def _verify_variant(
    bundle: Bundle,
    variant: str,
    engine: str,
    threads: int | None,
    frames: dict[str, np.ndarray[Any, Any]],
    answers: dict[str, np.ndarray[Any, Any]],
    say: Callable[[str], None] | None = None,
) -> VariantCheck:
    manifest = bundle.manifest
    tolerance = manifest.variants[variant].tolerance if variant in manifest.variants else 0.0
    try:
        model = load_bundle(bundle, engine=engine, threads=threads, variant=variant, say=say)
        with model.stream() as stream:
            given = rollout(stream, frames)
    except EngineError as error:
        return VariantCheck(variant, engine, tolerance, skipped=str(error))
    checks = []
    for output in manifest.outputs:
        first = manifest.timeline.first_answer(output)
        difference, worst = relative_difference(given[output.name][first:], answers[output.name][first:])
        checks.append(OutputCheck(output.name, difference, None if worst is None else worst + first))
    return VariantCheck(variant, model.engine.name, tolerance, tuple(checks))


def rollout(stream: Stream, frames: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Answers of a stream of one row to frames (steps, *shape), stacked likewise; not yet valid ones included."""
    steps = min(len(array) for array in frames.values())
    results = [stream.step({name: array[index] for name, array in frames.items()}) for index in range(steps)]
    return {name: np.stack([result.outputs[name] for result in results]) for name in results[0].outputs}


def relative_difference(given: np.ndarray[Any, Any], golden: np.ndarray[Any, Any]) -> tuple[float, int | None]:
    """The greatest difference relative to the greatest finite magnitude of ``golden``, and the row where it lies.

    Equal infinities, and NaN where NaN belongs, are no difference; any other of them is an infinite one.
    """
    left, right = given.astype(np.float64), golden.astype(np.float64)
    usual = np.isfinite(left) & np.isfinite(right)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.where(usual, np.abs(left - right), np.inf))
    scale = float(np.max(np.abs(right), where=np.isfinite(right), initial=0.0))
    by_row = difference.max(axis=tuple(range(1, difference.ndim)), initial=0.0)
    worst = int(by_row.argmax()) if by_row.size else 0
    greatest = float(by_row[worst]) if by_row.size else 0.0
    if greatest == 0.0:
        return 0.0, None
    return (greatest / scale if scale > 0 else float("inf")), worst


def _reasons(checks: Sequence[VariantCheck]) -> str:
    """Why variants were skipped, what holds for several said once."""
    named: dict[str, list[str]] = {}
    for check in checks:
        named.setdefault(str(check.skipped), []).append(check.variant)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in named.items())


def _complaint(report: VerifyReport) -> str:
    for check in report.variants:
        for output in check.outputs:
            if output.difference > check.tolerance:
                return (
                    f"variant {check.variant} of {report.bundle} on {check.engine} differs from its golden answers by "
                    f"{output.difference:.3g} in output {output.output!r} at step {output.worst_step}, and "
                    f"{check.tolerance:.3g} is allowed; build the bundle again or run another variant"
                )
    return f"{report.bundle} did not verify"
