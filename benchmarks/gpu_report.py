"""What ``gpu_proof.py`` makes of its figures: verdicts on targets, a table, and a JSON that is never half a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from edgeco.files import replace_file

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
TARGETS = {
    "floor": "an FP16 step within 1.5 times its floor",
    "clip": "at least 10 times the clip network per frame at the best number of streams",
    "single": "one stream is no slower than the clip network",
    "library": "at least 5 times faster than the library's step",
    "overhead": "less than 20 microseconds of runner around the engine",
}
HEADS = ("difference", "step us", "plain us", "stacked us", "engine us", "gpu us", "floor us", "runner us", "frames/s")


def verdicts(found: list[dict[str, Any]], kernel: float | None) -> dict[str, Any]:
    """The targets that what was measured can decide, each with the ratio that decides it."""
    said: dict[str, Any] = {}

    def decide(name: str, target: str, ratio: float, met: bool) -> None:
        said[f"{name}: {TARGETS[target]}"] = {"ratio": ratio, "met": met}

    for facts in found:
        name, half = facts["network"], facts.get("fp16", {})
        if kernel is not None and "layers" in half:
            half["floor"] = kernel * half["layers"]
        if "runner" in half:
            decide(name, "overhead", half["runner"] / 20, half["runner"] < 20)
        if not half.get("rows"):
            continue
        times = facts.get("peers", {}).get("times", {})
        engine, step = half["rows"][0]["engine"]["p50"], half["rows"][0]["step"]["p50"]
        if "floor" in half:
            decide(name, "floor", engine / half["floor"], engine <= 1.5 * half["floor"])
        if "clip, TensorRT" in times:
            clip = times["clip, TensorRT"]
            decide(name, "single", clip["p50"] / step, clip["p50"] >= step)
            if name == "x3d_s":
                ratio = clip.get("best", clip["p50"]) * half["best frames per second"] * 1e-6
                decide(name, "clip", ratio, ratio >= 10)
        for peer, taken in times.items():
            if peer.startswith("step, continual-inference"):
                decide(name, "library", taken["p50"] / step, taken["p50"] >= 5 * step)
    return said


def failures(report: dict[str, Any]) -> list[str]:
    """What was not measured, or wrong, a line each."""
    lines = [f"{what} could not be made: {reason}" for what, reason in report["not made"].items()]
    for facts in report["networks"]:
        lines += [f"{facts['network']} {form} FAILED: {reason}" for form, reason in facts["failed"].items()]
        for precision in PRECISIONS:
            form = facts.get(precision, {})
            lines += [f"{facts['network']} {precision}, {what}: {why}" for what, why in form.get("missing", {}).items()]
            check = form.get("check")
            if check is not None and not check["passed"]:
                off = f"{check['difference']:.2e}, where {check['tolerance']:.2e} is allowed"
                lines.append(f"{facts['network']} {precision} is WRONG: it differs from the torch runner by {off}")
    return lines


def show(report: dict[str, Any]) -> None:
    """The table."""
    print(f"{report['gpu']}, TensorRT {report['tensorrt']}, {report['cuda']}, edgeco {report['edgeco']}")
    print(f"{'network':16}{'':6}" + "".join(f"{head:>12}" for head in HEADS))
    for facts in report["networks"]:
        for precision in (precision for precision in PRECISIONS if precision in facts):
            print(f"{facts['network']:16}{precision:6}" + "".join(f"{text:>12}" for text in _row(facts[precision])))
        for peer, times in facts.get("peers", {}).get("times", {}).items():
            print(f"{'':16}{peer:60}{times['p50']:10.1f} us")
        for peer, reason in facts.get("peers", {}).get("missing", {}).items():
            print(f"{'':16}{peer:60}not measured: {reason}")
    for line in failures(report):
        print(line)
    if report["no peers"]:
        print(f"other ways to run these networks were not measured: {report['no peers']}")
    for target, verdict in report["targets"].items():
        print(f"{'met' if verdict['met'] else 'MISSED':8}{target} ({verdict['ratio']:.2f})")


def _row(form: dict[str, Any]) -> list[str]:
    check, first = form.get("check"), (form.get("rows") or [{}])[0]
    figures = (
        first.get("step", {}).get("p50"), form.get("without graphs", {}).get("p50"),
        form.get("stacked", {}).get("p50"), first.get("engine", {}).get("p50"), first.get("gpu", {}).get("p50"),
        form.get("floor"), form.get("runner"),
    )  # fmt: skip
    texts = ["-" if figure is None else format(figure, ".1f") for figure in figures]
    best = form.get("best frames per second")
    return ["-" if check is None else f"{check['difference']:.2e}", *texts, "-" if best is None else f"{best:.0f}"]


def write(report: dict[str, Any], path: Path) -> None:
    """The JSON, with verdicts on what has been measured so far."""
    report["targets"] = verdicts(report["networks"], report["empty kernel us"])
    with replace_file(path) as handle:
        handle.write(json.dumps(report, indent=1).encode())
