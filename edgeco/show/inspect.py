"""What a bundle says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from edgeco.bundle import Bundle
from edgeco.bundle.manifest import Manifest, Preference
from edgeco.bundle.validate import state_bytes
from edgeco.show.build import report_tables
from edgeco.show.console import bytes_text, count_text, facts, plain, seconds_text, share_text, table


def bundle_facts(bundle: Bundle) -> dict[str, Any]:
    """The manifest with what follows from it, and the build report, as plain values."""
    manifest = bundle.manifest
    timeline = manifest.timeline
    return {
        "path": str(bundle.path),
        "sha256": bundle.sha256,
        "size": sum(member.size for member in manifest.members.values()),
        "first_answer_seconds": _seconds(_first_answer(manifest), timeline.fps),
        "warm_seconds": _seconds(max(0, timeline.warm_from - timeline.lead), timeline.fps),
        "history_bytes": {history.name: state_bytes(history) for history in manifest.histories},
        "variant_states": {name: variant_states(manifest, name) for name in manifest.variants},
        "manifest": msgspec.to_builtins(manifest),
        "report": bundle.report(),
    }


def variant_states(manifest: Manifest, name: str) -> dict[str, Any]:
    """Bytes of a variant's histories for one stream, and the share of FP32's bytes that it stores in codes."""
    own = manifest.of_variant(name).histories
    whole = sum(map(state_bytes, manifest.histories))
    coded = sum(
        state_bytes(before)
        for before, after in zip(manifest.histories, own, strict=True)
        if after.dtype in ("int8", "uint8")
    )
    return {"bytes": sum(map(state_bytes, own)), "in_codes": coded / whole if whole else 0.0}


def _first_answer(manifest: Manifest) -> int:
    """Step, counted from the first frame, from which every output has answered."""
    return max(manifest.timeline.first_answer(output) for output in manifest.outputs)


def _seconds(step: int, fps: float | None) -> float | None:
    """Seconds from the first frame until the answer of a step, which needs step + 1 frames."""
    return None if fps is None else (step + 1) / fps


def show_bundle(bundle: Bundle, console: Console) -> None:
    """Print a bundle's tables."""
    manifest = bundle.manifest
    console.print(_head(bundle))
    console.print(_ends(manifest))
    console.print(_timeline(manifest))
    if manifest.preprocessing is not None:
        console.print(_preprocessing(manifest))
    if manifest.labels is not None:
        console.print(facts("Labels", {str(len(manifest.labels)): ", ".join(manifest.labels)}))
    console.print(_costs(manifest))
    if manifest.histories:
        console.print(_histories(manifest))
    console.print(_variants(manifest))
    for target, preference in manifest.preferred.items():
        console.print(_preferred(target, preference))
    console.print(_members(manifest))
    report = bundle.report()
    if report is None:
        return
    try:
        tables = report_tables(report)
    except (KeyError, TypeError, AttributeError, ValueError):  # a report that another builder wrote
        console.print(plain("Conversion report", "bold"))
        for line in report_lines(report):
            console.print(plain(line))
        return
    for made in tables:
        console.print(made)


def _head(bundle: Bundle) -> Table:
    manifest = bundle.manifest
    size = sum(member.size for member in manifest.members.values())
    values = {
        "file": bundle.path,
        "size": bytes_text(size),
        "identity": bundle.sha256,
        "schema": manifest.schema_version,
        "golden frames": f"{manifest.golden.steps} steps",
    }
    return facts(manifest.name, values)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one value"


def _ends(manifest: Manifest) -> Table:
    made = table("Inputs and outputs", "name", "kind", "shape", "type", "valid from step", "delay", right=(4, 5))
    for frame in manifest.inputs:
        made.add_row(plain(frame.name), f"input, {frame.kind}", _shape(frame.shape), frame.dtype, "", "")
    for answer in manifest.outputs:
        kind = "output" if manifest.activation == "none" else f"output, {manifest.activation}"
        valid, delay = str(manifest.timeline.first_answer(answer)), str(answer.delay)
        made.add_row(plain(answer.name), kind, _shape(answer.shape), answer.dtype, valid, delay)
    return made


def _timeline(manifest: Manifest) -> Table:
    timeline = manifest.timeline
    fps = timeline.fps
    answered, whole = _first_answer(manifest), max(0, timeline.warm_from - timeline.lead)
    first, warm = _seconds(answered, fps), _seconds(whole, fps)
    values = {
        "clip": f"{timeline.clip_length} frames",
        "receptive field": f"{timeline.receptive_field} frames",
        "delay": f"{timeline.delay} frames" + (f" ({seconds_text(timeline.delay / fps)})" if fps else ""),
        "frame rate": f"{fps:g} per second" if fps else "not stated",
        "first answer": f"after {answered + 1} frames" + (f", {seconds_text(first)}" if first else ""),
        "fully warm": f"after {whole + 1} frames" + (f", {seconds_text(warm)}" if warm else ""),
        "start": f"as after {timeline.lead} steps of the first frame" if timeline.lead else "as the network pads",
        "stride": _rates(manifest),
        "period": f"{timeline.period} steps",
    }
    return facts("Timeline", values)


def _rates(manifest: Manifest) -> str:
    """How often there are answers, and how often the work comes round, which need not be the same."""
    often = [f"every {rate} frames" if rate > 1 else "for every frame" for rate in sorted(_answer_rates(manifest))]
    rounds = manifest.timeline.stride
    text = "an answer " + " or ".join(often)
    return text if rounds == max(_answer_rates(manifest)) else f"{text}; the work repeats every {rounds}"


def _answer_rates(manifest: Manifest) -> set[int]:
    return {output.rate for output in manifest.outputs}


def _preprocessing(manifest: Manifest) -> Table:
    spec = manifest.preprocessing
    assert spec is not None
    height, width = spec.size
    resize = spec.resize if spec.resize != "letterbox" else f"letterbox, padded with {spec.pad_value}"
    values = {
        "frame": f"{width} wide, {height} high, {spec.colour}",
        "resize": f"{resize}, {spec.interpolation}",
        "region": "the whole picture" if spec.roi is None else ", ".join(f"{part:g}" for part in spec.roi),
        "mean, std": f"{', '.join(map('{:g}'.format, spec.mean))}; {', '.join(map('{:g}'.format, spec.std))}",
    }
    return facts("Preprocessing", values)


def _costs(manifest: Manifest) -> Table:
    costs = manifest.costs
    ratio = f"{costs.clip_macs / costs.step_macs:.1f} times less" if costs.step_macs else ""
    values = {
        "parameters": count_text(costs.parameters),
        "whole clip": f"{count_text(costs.clip_macs)} multiply-accumulates",
        "one step": f"{count_text(costs.step_macs)} multiply-accumulates  {ratio}".rstrip(),
        "state": f"{bytes_text(costs.state_bytes)} per stream",
    }
    return facts("Costs", values)


def _histories(manifest: Manifest) -> Table:
    title = f"Histories ({len(manifest.histories)})"
    made = table(title, "name", "storage", "element", "type", "depth", "read at ages", "border", "bytes", right=(4, 7))
    for history in manifest.histories:
        ages = ", ".join("all" if read.age is None else str(read.age) for read in history.reads)
        rows = f" x {history.rows_per_stream} rows" if history.rows_per_stream > 1 else ""
        element, size = _shape(history.shape) + rows, bytes_text(state_bytes(history))
        depth, border = str(history.depth), f"{history.border:g}" if history.before == "border" else "first element"
        made.add_row(plain(history.name), history.storage, element, history.dtype, depth, ages, border, size)
    total = bytes_text(sum(map(state_bytes, manifest.histories)))
    made.add_row("all", "", "", "", "", "", "", total, style="bold")
    return made


def _variants(manifest: Manifest) -> Table:
    made = table("Variants", "name", "graphs", "weights", "states", "in INT8", "tolerance", right=(3, 4, 5))
    for name, variant in manifest.variants.items():
        graphs = ", ".join(dict.fromkeys(variant.graphs))
        states = variant_states(manifest, name)
        share = share_text(states["in_codes"])
        cells = (plain(name), plain(graphs), plain(variant.weights), bytes_text(states["bytes"]), share)
        made.add_row(*cells, f"{variant.tolerance:.1e}")
    return made


def _preferred(target: str, preference: Preference) -> Table:
    timed = ", ".join(f"{name} {taken:.3g} ms" for name, taken in preference.milliseconds.items())
    values = {
        "variant": f"{preference.variant}, unless another is asked for with --precision",
        "a step took": f"{timed}, on {preference.machine}; on others fp32 is run",
    }
    return facts(f"Run on {target}", values)


def _members(manifest: Manifest) -> Table:
    made = table("Members", "name", "bytes", "sha256", right=(1,))
    for name, member in sorted(manifest.members.items()):
        made.add_row(plain(name), bytes_text(member.size), member.sha256[:16])
    return made


def report_lines(report: object, indent: str = "") -> Iterator[str]:
    """A build report as indented lines: lists line by line, everything else with its name."""
    if isinstance(report, dict):
        for name, value in report.items():
            if isinstance(value, (dict, list)) and value:
                yield f"{indent}{name}:"
                yield from report_lines(value, indent + "  ")
            else:
                yield f"{indent}{name}: {_leaf(value)}"
    elif isinstance(report, list):
        for value in report:
            if isinstance(value, dict):
                yield indent + ", ".join(f"{name} {_leaf(part)}" for name, part in value.items())
            else:
                yield indent + _leaf(value)
    else:
        yield indent + _leaf(report)


def _leaf(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
