"""What a build does and did: progress while it works, the conversion report when it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from edgeco.bundle import open_bundle
from edgeco.bundle.manifest import Input
from edgeco.engines.selection import MARGIN
from edgeco.show.console import bytes_text, count_text, facts, plain, table
from edgeco.show.drift import drift_table, floats_table
from edgeco.show.ranges import calibration_facts, ranges_tables

if TYPE_CHECKING:
    from edgeco.building import BuildReport

MEANING = {
    "exact": "answers equal the clip network's on the last frames",
    "unpadded": (
        "answers equal the clip network's on the whole recording; where it pads with zeros, the stream has frames"
    ),
    "causal": "the clip network uses the whole clip in mid-network; here an element sees the window that ends at it",
}
COSTLIEST = 8


@contextmanager
def build_progress(console: Console) -> Iterator[Callable[[str], None]]:
    """A function to be told each stage: a spinner on a terminal, a line per stage elsewhere."""
    began = perf_counter()
    if not console.is_terminal:
        yield lambda stage: console.print(plain(f"{perf_counter() - began:7.1f} s  {stage}"))
        return
    with console.status("starting") as status:
        last: list[tuple[str, float]] = []

        def say(stage: str) -> None:
            now = perf_counter()
            if last:
                console.print(plain(f"{now - last[0][1]:7.1f} s  {last[0][0]}", "dim"))
            last[:] = [(stage, now)]
            status.update(plain(stage))

        yield say


def show_built(report: BuildReport, out: Path, console: Console) -> None:
    """Print what a build made."""
    for made in report_tables(report.to_json()):
        console.print(made)
    bundle = open_bundle(out)
    ranges = bundle.ranges()
    for made in () if ranges is None else ranges_tables(ranges, tensors=False)[1:]:
        console.print(made)
    if report.forms:
        console.print(plain(f"all of it drawn: edgeco inspect {out} --page {out.with_suffix('.html').name}"))
    console.print(plain(f"{out} is built; run it with: {run_command(out, bundle.manifest.inputs)}"))


def run_command(out: Path, inputs: Sequence[Input]) -> str:
    """The command that runs a bundle of these inputs: numbers come as rows of a file, several inputs from ``--pre``."""
    source = "VIDEO" if any(entry.kind == "image" for entry in inputs) else "FILE.csv"
    return f"edgeco run {out} --source {source}" + (" --pre FILE.py:NAME" if len(inputs) > 1 else "")


def report_tables(report: Mapping[str, Any]) -> list[Table]:
    """A bundle's ``report.json`` as tables: gates, the operators that mix time, and where the work is."""
    per_frame = report["clip_macs"] / max(report["step_macs"], 1)
    values = {
        "answers": f"{report['exactness']}: {MEANING.get(report['exactness'], '')}",
        "step against clip network": f"{report['step_difference']:.1e} relative, on one clip",
        "exported graph against step": f"{report['engine_difference']:.1e} relative, over the golden frames",
        "receptive field": (
            f"{report['receptive_field']} frames, delay {report['delay']}, first answer at step {report['valid_from']}"
        ),
        "multiply-accumulates": (
            f"{count_text(report['clip_macs'])} a clip, {count_text(report['step_macs'])} a frame "
            f"({per_frame:.1f} times less)"
        ),
        "norms folded": report["folded_norms"],
        "depthwise convolutions widened": report.get("widened_depthwise", 0),
    }
    if report.get("merged_graph_convolutions"):
        values["graph convolutions merged"] = f"{report['merged_graph_convolutions']} sums"
    if report.get("weights"):
        values["weights"] = _weights(report["weights"])
    if report.get("pruning"):
        values["pruned"] = _pruned(report["pruning"])
    if report.get("target"):
        values["built for"] = _target(report["target"])
    for variant, drift in (report.get("drifts") or {}).items():
        values[variant] = f"{drift:.1e} from FP32 relative, over a stream"
    if report.get("pinned"):
        values["clip length"] = f"pinned: {report['pinned']}"
    calibrated = [calibration_facts(report["calibration"])] if report.get("calibration") else []
    forms = report.get("forms") or {}
    timed = next((told["milliseconds"] for told in forms.values() if told.get("milliseconds")), None)
    if timed is not None:
        values["INT8 on the processor that built it"] = _speed(timed)
    drifts = [drift_table(forms), floats_table(forms)] if forms else []
    tables = [facts("Conversion", values), *calibrated, *drifts]
    return [*tables, _lines(report["lines"]), _layers(report["step_layers"])]


def _speed(timed: Mapping[str, float]) -> str:
    """Which of two is to be run for speed: what is smaller is not always faster."""
    exact, small = timed["fp32"], timed["int8"]
    text = f"a step takes {small:.3g} ms, in FP32 {exact:.3g} ms"
    if small <= MARGIN * exact:
        return f"{text}: {exact / small:.2f} times faster, and what is run unless --precision fp32 is asked for"
    return f"{text}: not clearly faster, so that FP32 is run unless --precision int8 is asked for, for its small states"


def _weights(matched: Mapping[str, Any]) -> str:
    text = f"{matched['tensors']} tensors, every one matched"
    if matched["layout"]:
        text += f" by the names of {matched['layout']}"
    for what, names in (("not used", matched["unused"]), ("filled, changing nothing", matched["filled"])):
        text += f"; {what}: {', '.join(names)}" if names else ""
    return text


def _pruned(pruning: Mapping[str, Any]) -> str:
    """What a plan took out: figures before and after, as far as they were looked at."""
    before, after = pruning["before"], pruning["after"]
    parts = [
        f"{what} {show(before[key])} to {show(after[key])}"
        for key, what, show in (
            ("macs", "multiply-accumulates", count_text),
            ("parameters", "parameters", count_text),
            ("state", "state", bytes_text),
        )
        if before.get(key) is not None and after.get(key) is not None
    ]
    return f"to {pruning['budget']}: {', '.join(parts)}"


def _target(target: Mapping[str, Any]) -> str:
    limits = target["tensorrt"]
    if limits is None:
        return f"{target['device']}: {target['precision']}"
    typings = " and ".join(target["typings"])
    between = f"{limits['first'] or '…'} – {limits['last'] or '…'}"
    return f"{target['device']}: {target['precision']} unless told, TensorRT {between} ({typings} typing)"


def _lines(lines: list[Mapping[str, Any]]) -> Table:
    made = table("Operators that mix time", "operator", "becomes", "answers", "delay", "called at", right=(3,))
    for line in lines:
        cells = (line["op"].removeprefix("aten."), line["form"], line["exactness"], line["delay"], line["where"])
        made.add_row(*(plain(cell) for cell in cells))
    return made


def _layers(layers: list[Mapping[str, Any]]) -> Table:
    total = sum(layer["macs"] for layer in layers) or 1
    dearest = sorted(enumerate(layers), key=lambda pair: -pair[1]["macs"])[:COSTLIEST]
    made = table(
        f"Dearest of {len(layers)} layers of a step",
        "layer",
        "operator",
        "multiply-accumulates",
        "share",
        right=(0, 2, 3),
    )
    for place, layer in dearest:
        share = f"{layer['macs'] / total:.1%}"
        made.add_row(str(place), plain(layer["op"].removeprefix("aten.")), count_text(layer["macs"]), share)
    return made
