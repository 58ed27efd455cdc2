"""Which engine runs a bundle on this device, in which numeric form, and why."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from edgeco.bundle import Bundle
from edgeco.bundle.manifest import Manifest, Preference
from edgeco.devices.profile import Profile
from edgeco.engines import NAMES, open_engine
from edgeco.engines.protocol import Engine
from edgeco.engines.tensorrt.order import Options
from edgeco.errors import EngineError, SpecError

EXACT = "fp32"
"""The variant every bundle holds, and the one the processor runs unless told or the bundle prefers another: halves and
quarters are not faster there on every machine, and only the exact one needs no gate."""

INT8 = "int8"
"""The variant of INT8 for processors."""

MARGIN = 0.95
"""Of FP32's time another variant must take at most to be preferred: less is the noise of timings, and FP32 is exact."""

SMALL = 20_000_000
"""Multiply-accumulates of a step below which a second thread costs more than it saves. Measured on 2 cores: 43 against
79 microseconds for 23 thousand, 1.42 against 1.50 ms at 30 frames a second for 24 million."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Opened:
    """An engine over a bundle: the variant whose numbers it gives, and one sentence on why these."""

    engine: Engine
    variant: str
    why: str


def open_bundle_engine(
    bundle: Bundle,
    *,
    engine: str = "auto",
    threads: int | None = None,
    variant: str | None = None,
    options: Options | None = None,
    say: Say | None = None,
    rows: int = 1,
    again: bool = False,
) -> Opened:
    """Open an engine for a bundle.

    Args:
        bundle: the network.
        engine: one of ``NAMES``; "auto" takes TensorRT where it, a GPU and a graph for it are there, else ONNX Runtime.
        threads: processor threads; None for the physical cores this process may use, or one if a step is small.
        variant: numeric form; None for the best for the engine: on a processor that which the bundle prefers.
        options: of a compilation by TensorRT.
        say: called with what takes long.
        rows: for how many streams to compile where only that tells which form TensorRT takes.
        again: find that out anew, whatever is remembered of it.

    Raises:
        EngineError: the engine is missing or refuses the graph.
        SpecError: the bundle has no such variant, or there is no such engine.
    """
    if variant is not None and variant not in bundle.manifest.variants:
        known = ", ".join(sorted(bundle.manifest.variants))
        raise SpecError(f"{bundle.manifest.name} has no variant {variant!r}; it has {known}")
    if engine == "tensorrt":
        return _tensorrt(bundle, variant, options or Options(), say, "as asked", rows, again)
    passed = None
    if engine == "auto":
        try:
            return _tensorrt(bundle, variant, options or Options(), say, "the fastest here", rows, again)
        except EngineError as error:
            passed = str(error)
    precision = options.precision if options is not None else None
    return _onnxruntime(bundle, engine, threads, variant or _by_precision(bundle, precision), precision, passed)


def _by_precision(bundle: Bundle, precision: str | None) -> str | None:
    """The variant for a processor that a precision names; FP16 names none."""
    if precision != "int8":
        return EXACT if precision == "fp32" and EXACT in bundle.manifest.variants else None
    if INT8 not in bundle.manifest.variants:
        raise SpecError(
            f"{bundle.manifest.name} has no variant {INT8!r} for processors; build it with --precision int8 and "
            "--calibrate SOURCE"
        )
    return INT8


def _onnxruntime(
    bundle: Bundle, engine: str, threads: int | None, variant: str | None, precision: str | None, passed: str | None
) -> Opened:
    manifest = bundle.manifest
    chosen, because = _variant(manifest, variant, precision, engine)
    counted = "as asked" if threads is not None else "the physical cores it may use"
    if threads is None and manifest.costs.step_macs < SMALL:
        threads, counted = 1, "a step is too small to share"
    name = "onnxruntime" if engine == "auto" else engine
    compiled = open_engine(bundle.phases(chosen), engine=name, threads=threads)
    asked = "as asked" if passed is None else f"not TensorRT: {passed.rstrip('.')}"
    where = "on the processor" if name == "onnxruntime" else "on the GPU"
    plural = "s" if compiled.threads > 1 else ""
    why = (
        f"{compiled.name} ({asked}) {where} with {compiled.threads} thread{plural} ({counted}), "
        f"variant {chosen} ({because})."
    )
    return Opened(compiled, chosen, why)


def _variant(manifest: Manifest, asked: str | None, precision: str | None, engine: str) -> tuple[str, str]:
    """The variant that ONNX Runtime is to run, and one clause on why."""
    if asked is not None:
        return asked, "as asked"
    if EXACT not in manifest.variants:
        return sorted(manifest.variants)[0], f"the bundle has no {EXACT}"
    if precision == "fp16":
        return EXACT, "exact, for processors compute FP16 in FP32"
    preference = manifest.preferred.get("cpu")
    if preference is None or engine not in ("auto", "onnxruntime"):
        return EXACT, "exact; lesser precisions are run only if asked for"
    return _by_preference(preference, platform.machine())


def _by_preference(preference: Preference, machine: str) -> tuple[str, str]:
    """What a bundle prefers on processors, where it was timed on one of this architecture."""
    taken = preference.milliseconds
    others = sorted((name for name in taken if name != EXACT), key=lambda name: taken[name])
    other = preference.variant if preference.variant != EXACT or not others else others[0]
    if preference.machine != machine:
        return EXACT, f"exact; {other} was timed on {preference.machine} alone, and this is {machine}"
    timed = ", ".join(f"{name} {taken[name]:.3g} ms a step" for name in taken)
    if preference.variant == EXACT:
        return EXACT, f"exact, and {other} was not clearly faster when they were timed: {timed}"
    return (
        other,
        f"the faster when they were timed, and within its limits of drift: {timed}; precision {EXACT} is exact",
    )


def _tensorrt(
    bundle: Bundle, variant: str | None, options: Options, say: Say | None, because: str, rows: int, again: bool
) -> Opened:
    from edgeco.devices.detect import profile_of_gpu
    from edgeco.engines.cuda import open_cuda
    from edgeco.engines.tensorrt.api import find_tensorrt
    from edgeco.engines.tensorrt.cache import PlanCache
    from edgeco.engines.tensorrt.engine import TensorRtEngine
    from edgeco.engines.tensorrt.graph_io import GraphIo, read_io
    from edgeco.engines.tensorrt.plans import Plans
    from edgeco.engines.tensorrt.recipe import Recipe, choose_recipe, float_states

    api = find_tensorrt()
    manifest = bundle.manifest

    def graphs(name: str) -> list[GraphIo]:
        return [read_io(graph, full=True) for graph in bundle.phases(name) if graph is not None]

    recipe = choose_recipe(api, manifest, graphs, options.precision, variant)
    cuda = open_cuda()  # before anything of TensorRT is made, which without a GPU can end the process
    options = _suited(options, profile_of_gpu(cuda.device.name))
    plans = Plans(api, cuda, PlanCache(), say or (lambda text: None), manifest.name)

    def opened(chosen: Recipe) -> TensorRtEngine:
        graphs = bundle.phases(chosen.variant)
        return TensorRtEngine(graphs, plans, chosen.precision, chosen.strong, chosen.half, options, full=chosen.full)

    engine = opened(recipe)
    # Not every version takes INT8 at the ends of a network. A variant that was asked for by name is not exchanged.
    other = float_states(recipe, manifest) if variant is None else None
    if other is not None:
        refused = engine.refusal(rows, again)
        if refused is not None:
            recipe = replace(other, because=f"{other.because}, for INT8 states are refused: {refused}")
            engine = opened(recipe)
    why = (
        f"tensorrt {api.text} ({because}) on {cuda.device.name} through {cuda.name}, variant {recipe.variant} "
        f"({recipe.because})."
    )
    return Opened(engine, recipe.numbers, why)


def _suited(options: Options, profile: Profile | None) -> Options:
    """The options, with what a device's profile says of compilations where the user said nothing."""
    if profile is None:
        return options
    workspace = profile.workspace and profile.workspace << 20
    level = profile.optimisation_level if options.level is None else options.level
    return msgspec.structs.replace(options, workspace=options.workspace or workspace, level=level)


__all__ = ["NAMES", "Opened", "Options", "open_bundle_engine"]
