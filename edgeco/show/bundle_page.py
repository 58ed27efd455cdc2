"""A bundle's report as a page: what each precision answers, stores and takes, and what a calibration saw, drawn."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from edgeco.bundle import Bundle
from edgeco.bundle.manifest import Manifest
from edgeco.bundle.ranges import Ranges, TensorRange
from edgeco.bundle.validate import state_bytes
from edgeco.engines.selection import EXACT
from edgeco.errors import SpecError
from edgeco.files import check_target, replace_file
from edgeco.page import bars, chart, document, folded, histogram, note, paragraph, section, table
from edgeco.page.document import Cell
from edgeco.show.console import bytes_text, count_text, share_text
from edgeco.show.inspect import variant_states
from edgeco.show.ranges import method_text

RUNS = 40
"""Parts of the stream over which the agreement of the greatest class is averaged: of one step it is yes or no."""


def write_page(bundle: Bundle, path: str | os.PathLike[str]) -> None:
    """Write the page of a bundle.

    Raises:
        SpecError: it would be written over the bundle.
        WriteError: it cannot be written.
    """
    if Path(path).resolve() == Path(bundle.path).resolve():
        raise SpecError(f"{path} is the bundle itself; give the page another name, such as report.html.")
    check_target(path)
    with replace_file(path) as file:
        file.write(bundle_page(bundle).encode())


def bundle_page(bundle: Bundle) -> str:
    """One HTML document: what the build report, the manifest and the ranges of a bundle hold."""
    manifest, report, ranges = bundle.manifest, bundle.report() or {}, bundle.ranges()
    forms: Mapping[str, Mapping[str, Any]] = _mapping(report.get("forms"))
    parts = [
        paragraph(_head(manifest, report)),
        section("Against FP32", *_drifts(forms)),
        section("What is in INT8, and what is not", *_placements(forms)),
        section("States", *_states(manifest)),
        section("A step on the processor", *_speed(manifest)),
        _conversion(report),
        section("What calibration saw", *_ranges(ranges)),
        note(f"bundle {bundle.sha256}", *((f"calibrated on {ranges.data}",) if ranges is not None else ())),
    ]
    return document(manifest.name, parts)


def _head(manifest: Manifest, report: Mapping[str, Any]) -> str:
    timeline, costs = manifest.timeline, manifest.costs
    text = (
        f"{count_text(costs.parameters)} parameters, {count_text(costs.step_macs)} multiply-accumulates a step where a "
        f"clip takes {count_text(costs.clip_macs)}; receptive field {timeline.receptive_field} frames, delay "
        f"{timeline.delay}."
    )
    target = _mapping(report.get("target")).get("device")
    return f"{text} Built for {target}." if target else text


def _mapping(value: object) -> Mapping[str, Any]:
    """A part of a report, which another builder may have written otherwise."""
    return value if isinstance(value, Mapping) else {}


def _drifts(forms: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    told = [(name, drift) for name, form in forms.items() for drift in form.get("drift", ())]
    if not told:
        return
    yield paragraph(
        "Each form ran over one part of a recording, to and fro, for ten receptive fields at least, and its answers "
        "were held against FP32's step by step. What is typed for TensorRT was simulated on a processor."
    )
    yield table(
        ("form", "output", "answers", "cosine, least", "mean", "error, mean", "last / second tenth", "top-1"),
        [
            (
                *(name, drift["output"], drift["steps"], f"{drift['cosine']:.5f}", f"{drift['mean_cosine']:.5f}"),
                *(f"{drift['mean_error']:.2e}", f"{drift['growth']:.2f}"),
                "" if drift["agreement"] is None else f"{drift['agreement']:.1%}",
            )
            for name, drift in told
        ],
    )
    for output in dict.fromkeys(drift["output"] for _, drift in told):
        of_output = {name: drift for name, drift in told if drift["output"] == output}
        yield from _curves(output, of_output)


def _curves(output: str, drifts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Cosine, error and agreement of one output over the stream; forms that answer alike are drawn once."""
    alike: dict[tuple[Any, ...], list[str]] = {}
    for name, drift in drifts.items():
        alike.setdefault((tuple(drift["cosines"]), tuple(drift["errors"])), []).append(name)
    named = {
        names[0] + (f" and {len(names) - 1} alike" if len(names) > 1 else ""): drifts[names[0]]
        for names in alike.values()
    }
    across = "answer"
    cosines = {name: _spread(drift["cosines"], drift["steps"]) for name, drift in named.items()}
    yield chart(cosines, title=f"Cosine with FP32's {output}, by step", across=across, high=1.0)
    errors = {name: _spread(drift["errors"], drift["steps"]) for name, drift in named.items()}
    yield chart(errors, title=f"Relative error of {output}, by step", across=across, logarithmic=True)
    agreed = {
        name: _spread(_averaged(drift["agreements"]), drift["steps"])
        for name, drift in named.items()
        if drift.get("agreements")
    }
    if agreed:
        least = min(value for curve in agreed.values() for _, value in curve)
        yield chart(
            agreed,
            title=f"Answers with FP32's greatest class of {output}, by parts of the stream",
            across=across,
            low=min(least, 0.9),
            high=1.0,
            percent=True,
        )


def _spread(values: Sequence[float], steps: int) -> list[tuple[float, float]]:
    """Points of a curve over so many steps, of which each is the worst, or the mean, of a run."""
    return [(round((place + 0.5) * steps / len(values)), value) for place, value in enumerate(values)]


def _averaged(values: Sequence[float]) -> list[float]:
    parts = min(RUNS, len(values))
    edges = [len(values) * place // parts for place in range(parts + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


def _placements(forms: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    listed = {name: form for name, form in forms.items() if "floats" in form}
    counts: list[tuple[Cell, ...]] = [
        (name, *(len(form.get(what, ())) for what in ("quantised", "histories", "floats", "equalised")))
        for name, form in listed.items()
    ]
    yield table(("form", "layers in INT8", "histories in INT8", "left in float", "made equal first"), counts)
    left: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name, form in listed.items():
        reasons: dict[str, list[str]] = {}
        for what, reason in form["floats"].items():
            reasons.setdefault(reason, []).append(what)
        for reason, names in reasons.items():
            left.setdefault((reason, tuple(names)), []).append(name)
    rows = [(reason, ", ".join(names), ", ".join(where)) for (reason, names), where in left.items()]
    yield table(("left in float, because", "layers and histories", "in"), rows)
    small = [
        (name, ", ".join(form.get("quantised", ())) or "none", ", ".join(form.get("histories", ())) or "none")
        for name, form in listed.items()
    ]
    yield folded("What is in INT8, by name", table(("form", "layers", "histories"), small))


def _states(manifest: Manifest) -> Iterator[str]:
    if not manifest.histories:
        return
    states = {name: variant_states(manifest, name) for name in manifest.variants}
    whole = sum(map(state_bytes, manifest.histories))
    rows = [
        (name, float(whole), float(told["bytes"]), bytes_text(told["bytes"]) + _in_codes(told["in_codes"]))
        for name, told in states.items()
    ]
    yield bars(rows, f"Bytes of all histories of one stream, by variant; in grey FP32's {bytes_text(whole)}.")
    types = {name: {h.name: h.dtype for h in manifest.of_variant(name).histories} for name in manifest.variants}
    shown: list[tuple[Cell, ...]] = [
        (
            *(h.name, h.storage, " x ".join(map(str, h.shape)) or "one value", h.depth, state_bytes(h)),
            *(types[name][h.name] for name in types),
        )
        for h in manifest.histories
    ]
    head = ("history", "storage", "element", "depth", "bytes in FP32", *types)
    yield folded(f"All {len(shown)} histories", table(head, shown))


def _in_codes(share: float) -> str:
    return f", {share_text(share)} of it in INT8" if share else ""


def _speed(manifest: Manifest) -> Iterator[str]:
    for target, preference in manifest.preferred.items():
        timed = preference.milliseconds
        rows = [(name, taken, taken, f"{taken:.3g} ms") for name, taken in timed.items()]
        yield bars(rows, f"Median of a step on {target} ({preference.machine}), timed in turn when this was built.")
        others = "" if preference.variant == EXACT else f", on processors of other kinds {EXACT}"
        yield paragraph(f"There {preference.variant} is run unless another precision is asked for{others}.")


def _conversion(report: Mapping[str, Any]) -> str:
    lines = report.get("lines") or ()
    columns = ("op", "form", "exactness", "delay", "where")
    rows = [tuple(line.get(column, "") for column in columns) for line in lines if isinstance(line, Mapping)]
    facts = [
        ("answers", report.get("exactness")),
        ("step against clip network, relative", report.get("step_difference")),
        ("exported graph against step network, relative", report.get("engine_difference")),
    ]
    known = [(name, f"{value:.1e}" if isinstance(value, float) else str(value)) for name, value in facts if value]
    head = ("operator", "becomes", "answers", "delay", "called at")
    return section("Conversion", table(("", ""), known), folded("Operators that mix time", table(head, rows)))


def _ranges(ranges: Ranges | None) -> Iterator[str]:
    if ranges is None:
        return
    reset = f"reset every {ranges.reset} frames" if ranges.reset else "never reset but at their beginning"
    names = ", ".join(ranges.sources[:6]) + (f" and {len(ranges.sources) - 6} more" if len(ranges.sources) > 6 else "")
    method = method_text(ranges.method, ranges.percentile)
    yield paragraph(
        f"{ranges.frames:,} frames of {ranges.streams} streams, {reset}; method {method}"
        + (f", from {names}." if names else ".")
        + " Magnitudes run from 0 to the greatest, the height of a bar is the logarithm of how many there were, and "
        "what INT8 clips stands in red."
    )
    yield "<h3>Histories</h3>" if ranges.histories else ""
    yield _drawn(ranges.histories)
    others = {key: found for key, found in ranges.tensors.items() if found not in ranges.histories.values()}
    yield folded(f"All {len(others)} tensors that no history holds, of {len(ranges.tensors)}", _drawn(others))


def _drawn(ranges: Mapping[str, TensorRange]) -> str:
    rows = [
        (
            *(name, f"{found.low:.4g}", f"{found.high:.4g}", "always 0" if found.dead else f"{found.amax:.4g}"),
            *(count_text(found.count), _histogram(name, found)),
        )
        for name, found in ranges.items()
    ]
    return table(("name", "least", "most", "INT8 to", "numbers", "magnitudes"), rows, drawn=(5,))


def _histogram(name: str, found: TensorRange) -> str:
    """The intervals up to the greatest number, at most sixty."""
    if not found.histogram:
        return ""
    whole = len(found.histogram)
    used = min(int(whole * found.peak / found.limit) + 1, whole)
    joined = -(-used // 60)
    counts = [sum(found.histogram[place : place + joined]) for place in range(0, used, joined)]
    reach = len(counts) * joined / whole * found.limit
    return histogram(
        counts, kept=1.0 if found.amax >= found.peak else found.amax / reach, title=f"magnitudes of {name}"
    )
