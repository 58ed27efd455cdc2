"""``edgeco compile``: the plans of a bundle made on the device beforehand, and what came of each."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgeco.bundle import Bundle, open_bundle
from edgeco.engines.selection import Options, open_bundle_engine
from edgeco.engines.tensorrt.engine import TensorRtEngine
from edgeco.errors import EngineError, SpecError

DLA = (
    "edgeco does not use the DLA: TensorRT up to 10.7 takes no Q/DQ there, later ones have no DLA but 11.4.1 on AGX "
    "Orin, and what it computes cannot be recorded in a CUDA graph; leave --dla out, and the GPU does all"
)


@dataclass(frozen=True)
class PlanReport:
    """One plan: the rows it is for, the seconds it took when it was made, its bytes, whether it was there already."""

    key: str
    path: str
    rows: int
    seconds: float
    size: int
    cached: bool


@dataclass(frozen=True)
class CompileReport:
    """All plans of a bundle, and why these."""

    bundle: str
    variant: str
    why: str
    plans: tuple[PlanReport, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def compile_bundle(
    bundle: Bundle | str | os.PathLike[str],
    *,
    options: Options | None = None,
    rows: Sequence[int] = (1,),
    fresh: bool = False,
    dla: bool = False,
    say: Callable[[str], None] | None = None,
) -> CompileReport:
    """Compile a bundle for this device with TensorRT, and keep the plans.

    Args:
        bundle: an open bundle, or a path.
        options: of the compilation.
        rows: for how many streams at once, one plan for each.
        fresh: compile even what is there already.
        dla: refused, with the reason.
        say: called with what is going on.

    Raises:
        BundleError: the bundle is damaged or foreign.
        EngineError: TensorRT or a GPU is missing, or a graph is refused.
        SpecError: a number of rows below 1.
    """
    if dla:
        raise EngineError(DLA)
    if any(number < 1 for number in rows):
        raise SpecError(f"rows are counted from 1; {min(rows)} was asked for")
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    chosen = open_bundle_engine(
        opened, engine="tensorrt", options=options, say=say, rows=next(iter(rows), 1), again=fresh
    )
    engine = chosen.engine
    assert isinstance(engine, TensorRtEngine)
    plans = []
    for number in dict.fromkeys(rows):
        for plan in engine.compile(number, fresh, exactly=True):
            sidecar = plan.sidecar
            path = str(engine.plan_path(sidecar.key))
            plans.append(PlanReport(sidecar.key, path, number, sidecar.seconds, sidecar.size, plan.cached))
    return CompileReport(str(opened.path), chosen.variant, chosen.why, tuple(plans))
