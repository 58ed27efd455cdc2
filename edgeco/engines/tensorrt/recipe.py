"""Which of a bundle's graphs the installed TensorRT takes, and how: the precision decided, or the reason why not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgeco.bundle.manifest import Manifest
from edgeco.engines.tensorrt.api import Api
from edgeco.engines.tensorrt.graph_io import GraphIo
from edgeco.engines.tensorrt.order import Precision
from edgeco.errors import EngineError, SpecError

BASE, PLAIN, HALF = "fp32", "trt-fp32", "trt-fp16"
"""Variants: every bundle's own; the same numbers as TensorRT takes them (opset 17); the graph typed FP16 throughout."""

WEAK, STRONG, FLOAT_STATES = "trt-int8", "trt-int8-typed", "-float-states"
"""INT8 for a network that is typed by flags, and one that is typed itself; and what is added to either's name where
histories are not kept in INT8, for a version that does not take it at the ends of a network."""

REMEDY = "build the bundle again with: edgeco build … --tensorrt"


@dataclass(frozen=True)
class Recipe:
    """How a bundle is compiled.

    Attributes:
        variant: whose graphs are compiled.
        numbers: the variant whose numbers come out, for tolerances and snapshots.
        precision: of the numbers inside.
        strong: whether the types are those that the graph says.
        half: tensors of the states that are kept in FP16, where the graph does not say so itself.
        full: results that are computed in FP32 although others are not, where the graph does not say so itself.
        because: one clause.
    """

    variant: str
    numbers: str
    precision: Precision
    strong: bool
    half: frozenset[str]
    because: str
    full: frozenset[str] = frozenset()


def choose_recipe(
    api: Api,
    manifest: Manifest,
    graphs: Callable[[str], Sequence[GraphIo]],
    precision: Precision | None,
    variant: str | None = None,
) -> Recipe:
    """Decide.

    Args:
        api: the installed TensorRT.
        manifest: of the bundle.
        graphs: the inputs, outputs and opset of a variant's graphs, one per phase that has one.
        precision: what was asked for; None for FP16 if that can be had.
        variant: or by the name of a variant.

    Raises:
        EngineError: the bundle has no graph that this TensorRT takes in this precision.
        SpecError: precision and variant contradict each other.
    """
    asked = _asked(precision, variant)
    if asked == "int8":
        return _quantised_recipe(api, manifest, graphs, "" if variant is None else variant)
    if asked != "fp32":
        reason = _refusal(api, manifest, HALF if api.strong else PLAIN, graphs, HALF)
        if reason is None:
            return _half_recipe(api, lambda: graphs(HALF))
        if asked is not None:
            raise EngineError(reason)
        because = f"fp32, for {reason}"
    else:
        because = "fp32, as asked"
    chosen = PLAIN if PLAIN in manifest.variants else BASE
    reason = _refusal(api, manifest, chosen, graphs)
    if reason is not None:
        raise EngineError(reason)
    # A graph of FP32 alone means the same typed and untyped; where typing is complete it is not deprecated.
    return Recipe(chosen, BASE if BASE in manifest.variants else chosen, "fp32", api.strong, frozenset(), because)


def _asked(precision: Precision | None, variant: str | None) -> Precision | None:
    if variant is None:
        return precision
    known: dict[str, Precision] = {BASE: "fp32", PLAIN: "fp32", HALF: "fp16"}
    known |= dict.fromkeys((WEAK, STRONG, WEAK + FLOAT_STATES, STRONG + FLOAT_STATES), "int8")
    of = known.get(variant)
    if of is None:
        raise EngineError(f"TensorRT does not run the variant {variant!r}; it runs {', '.join(known)}")
    if precision is not None and precision != of:
        raise SpecError(f"the variant {variant!r} is {of}, and {precision} was asked for; leave one of them out")
    return of


def _refusal(
    api: Api, manifest: Manifest, variant: str, graphs: Callable[[str], Sequence[GraphIo]], also: str | None = None
) -> str | None:
    """Why the graphs of a variant cannot be compiled here; None if they can."""
    for needed in (also, variant):
        if needed is not None and needed not in manifest.variants:
            return f"{manifest.name} has no variant {needed} for TensorRT {api.text}; {REMEDY}"
    if variant == BASE and any(entry.kind == "image" for entry in manifest.inputs):
        return f"{manifest.name} takes its pictures in a form that TensorRT does not; {REMEDY}"
    opset = max(io.opset for io in graphs(variant))
    if opset > api.ceiling:
        return f"{manifest.name} is written in opset {opset}, and TensorRT {api.text} reads {api.ceiling}; {REMEDY}"
    return None


def _halved(graphs: Sequence[GraphIo]) -> frozenset[str]:
    """The states that the typed graphs keep in FP16, which an untyped network must be told."""
    return frozenset(t.name for io in graphs for t in (*io.inputs, *io.outputs) if t.dtype == "float16")


def _full(graphs: Sequence[GraphIo]) -> frozenset[str]:
    """What the typed graphs compute in FP32."""
    return frozenset[str]().union(*(io.full for io in graphs))


def _half_recipe(api: Api, graphs: Callable[[], Sequence[GraphIo]]) -> Recipe:
    if api.strong:
        return Recipe(HALF, HALF, "fp16", True, frozenset(), "fp16, typed in the graph")
    typed = graphs()
    because = "fp16, chosen by TensorRT layer by layer where the typed form has it"
    return Recipe(PLAIN, HALF, "fp16", False, _halved(typed), because, _full(typed))


def float_states(recipe: Recipe, manifest: Manifest) -> Recipe | None:
    """What to do instead where INT8 at the ends of a network is refused; None where that is not how it came."""
    other = recipe.variant + FLOAT_STATES
    if recipe.precision != "int8" or other not in manifest.variants:
        return None
    half = recipe.half | frozenset(
        name
        for history in manifest.histories
        if history.name in manifest.variants[recipe.variant].histories
        for name in (history.write, *(read.name for read in history.reads))
    )
    kept = frozenset[str]() if recipe.strong else half
    return replace(recipe, variant=other, numbers=other, half=kept, because="int8, states FP16")


def _quantised_recipe(api: Api, manifest: Manifest, graphs: Callable[[str], Sequence[GraphIo]], variant: str) -> Recipe:
    """INT8 in the typing of the installed version."""
    chosen = variant or (STRONG if api.strong else WEAK)
    strong = chosen.startswith(STRONG)
    if strong != api.strong:
        typing = "typed" if api.strong else "not typed"
        raise EngineError(f"TensorRT {api.text} wants a network that is {typing}, which the variant {chosen!r} is not")
    if chosen not in manifest.variants:
        raise EngineError(
            f"{manifest.name} has no variant {chosen} for TensorRT {api.text}; build it again with --precision int8 "
            "and --calibrate"
        )
    reason = _refusal(api, manifest, chosen, graphs)
    if reason is not None:
        raise EngineError(reason)
    typed = chosen.replace(WEAK, STRONG, 1) if not strong else chosen
    sides = graphs(typed) if not strong and typed in manifest.variants else ()
    how = "typed in the graph" if strong else "with FP16 beside it, chosen by TensorRT layer by layer"
    return Recipe(chosen, chosen, "int8", strong, _halved(sides), f"int8, {how}", _full(sides))
