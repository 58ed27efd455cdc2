"""Everything that only a GPU can prove, in one run: right answers over 300 steps, and what a step costs.

Runs from a checkout wherever there are a GPU, TensorRT and one of the CUDA packages; writes a table and a JSON. It has
two parts. The first needs torch and onnx and no GPU: bundles with golden answers, and the graphs that they are compared
with (``--prepare`` does this part alone). The second needs the GPU and edgeco's run side alone, and takes what the
first left in ``--bundles``. Where torch has the GPU too, other ways to run the same networks are measured beside.
See README.md beside this file.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import sys
import traceback
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu_floor import empty_kernel
from gpu_steps import check, layers_of, runner_time, time_stacked, time_steps, without_graphs

import edgeco
from edgeco.bundle import Bundle, open_bundle
from edgeco.engines.cuda import open_cuda
from edgeco.engines.tensorrt.api import find_tensorrt
from edgeco.engines.tensorrt.order import Options
from edgeco.errors import EdgecoError, EngineError
from edgeco.files import replace_file
from edgeco.runtime.model import load_bundle

OWN = Path(__file__).with_name("gpu_networks.py")
NETWORKS: dict[str, dict[str, Any]] = {
    "camera-motion": {"model": "camera-motion"},
    "x3d_s": {"model": f"{OWN}:x3d_s"},
    "st_gcn_star": {"model": f"{OWN}:st_gcn_star"},
    "encoder": {"model": f"{OWN}:encoder"},
}
STEPS = 300
ROWS = (1, 2, 4, 8, 16, 32, 64)
PRECISIONS: tuple[Literal["fp32", "fp16"], ...] = ("fp32", "fp16")
VARIANTS = ("trt-fp32", "trt-fp16")
TARGETS = {
    "floor": "an FP16 step within 1.5 times its floor",
    "clip": "at least 10 times the clip network per frame at the best number of streams",
    "single": "one stream is no slower than the clip network",
    "library": "at least 5 times faster than the library's step",
    "overhead": "less than 20 microseconds of runner around the engine",
}


def prepare(folder: Path, networks: list[str]) -> None:
    """Build what is not there: bundles, their golden answers the torch runner's over 300 steps, and stacked graphs."""
    from gpu_stacked import can_be_stacked, checked

    from edgeco.building import build

    folder.mkdir(parents=True, exist_ok=True)
    for name in networks:
        target = folder / f"{name}.edgeco"
        if not target.exists():
            say(f"building {name}")
            build({**NETWORKS[name], "name": name, "tensorrt": True, "golden": STEPS}, target)
        bundle = open_bundle(target)
        for variant in VARIANTS if can_be_stacked(bundle.manifest) else ():
            if not stacked_path(folder, name, variant).exists():
                say(f"stacking the states of {name}, {variant}")
                with replace_file(stacked_path(folder, name, variant)) as handle:
                    handle.write(checked(bundle, variant))


def say(text: str) -> None:
    """What takes long."""
    print(text, file=sys.stderr)


def stacked_path(folder: Path, name: str, variant: str) -> Path:
    """Where a network's graph with stacked states lies."""
    return folder / f"{name}.{variant}.stacked.onnx"


def prove(name: str, folder: Path, rows: tuple[int, ...], tactics: tuple[str, ...] | None) -> dict[str, Any]:
    """Everything about one network that needs no torch."""
    path = folder / f"{name}.edgeco"
    if not path.exists():
        raise EngineError(f"{path} is not there; make it where torch is: python benchmarks/gpu_proof.py --prepare")
    bundle = open_bundle(path)
    facts: dict[str, Any] = {"network": name, "state_bytes": bundle.manifest.costs.state_bytes, "failed": {}}
    for precision in PRECISIONS:
        say(f"{name}, {precision}")
        try:
            facts[precision] = prove_form(bundle, precision, folder, rows, tactics)
        except Exception as error:  # a form that fails is a line of the table: what the others do is worth as much
            traceback.print_exc()
            facts["failed"][precision] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return facts


def prove_form(
    bundle: Bundle, precision: Literal["fp32", "fp16"], folder: Path, rows: tuple[int, ...],
    tactics: tuple[str, ...] | None,
) -> dict[str, Any]:  # fmt: skip
    """One precision of a network: first whether its answers are right, then what it takes."""
    model = load_bundle(bundle, engine="tensorrt", options=Options(precision=precision, tactics=tactics), say=say)
    found: dict[str, Any] = {"why": model.why, "check": check(model), "layers": layers_of(model)}
    times = found["rows"] = [time_steps(model, number) for number in rows]
    found["without graphs"] = time_steps(without_graphs(model), 1)["step"]
    found["runner"] = runner_time(model)
    found["best frames per second"] = max(1e6 * t["rows"] / t["step"]["p50"] for t in times)
    compiled = VARIANTS[1] if find_tensorrt().strong and precision == "fp16" else VARIANTS[0]
    stacked = stacked_path(folder, bundle.path.stem, compiled)
    if stacked.exists():
        found["stacked"] = time_stacked(model, stacked.read_bytes())
    return found


def peers_here() -> str | None:
    """Why the other ways to run these networks cannot be measured; None if they can."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import torch

    return None if torch.cuda.is_available() else "torch does not see the GPU"


def verdicts(found: list[dict[str, Any]], kernel: float | None) -> dict[str, Any]:
    """The targets that what was measured can decide, each with the ratio that decides it."""
    said: dict[str, Any] = {}

    def decide(name: str, target: str, ratio: float, met: bool) -> None:
        said[f"{name}: {TARGETS[target]}"] = {"ratio": ratio, "met": met}

    for facts in (facts for facts in found if "fp16" in facts):
        half, name = facts["fp16"], facts["network"]
        times = facts.get("peers", {}).get("times", {})
        engine, step = half["rows"][0]["engine"]["p50"], half["rows"][0]["step"]["p50"]
        decide(name, "overhead", half["runner"] / 20, half["runner"] < 20)
        if kernel is not None:
            floor = half["floor"] = kernel * half["layers"]
            decide(name, "floor", engine / floor, engine <= 1.5 * floor)
        if "clip, TensorRT" in times:
            clip = times["clip, TensorRT"]
            decide(name, "single", clip["p50"] / step, clip["p50"] >= step)
            if name == "x3d_s":
                ratio = clip["best"] * half["best frames per second"] * 1e-6
                decide(name, "clip", ratio, ratio >= 10)
        for peer, taken in times.items():
            if peer.startswith("step, continual-inference"):
                decide(name, "library", taken["p50"] / step, taken["p50"] >= 5 * step)
    return said


def show(report: dict[str, Any]) -> None:
    """The table."""
    print(f"{report['gpu']}, TensorRT {report['tensorrt']}, {report['cuda']}, edgeco {report['edgeco']}")
    heads = ("difference", "step us", "plain us", "stacked us", "engine us", "floor us", "runner us", "frames/s")
    print(f"{'network':16}{'':6}" + "".join(f"{head:>12}" for head in heads))
    for facts in report["networks"]:
        for precision, reason in facts["failed"].items():
            print(f"{facts['network']:16}{precision:6} FAILED: {reason}")
        for precision in (precision for precision in PRECISIONS if precision in facts):
            row = facts[precision]
            first = row["rows"][0]
            figures = (
                first["step"]["p50"], row["without graphs"]["p50"], row.get("stacked", {}).get("p50"),
                first["engine"]["p50"], row.get("floor"), row["runner"],
            )  # fmt: skip
            texts = [f"{'-' if figure is None else format(figure, '.1f'):>12}" for figure in figures]
            print(
                f"{facts['network']:16}{precision:6}{row['check']['difference']:12.2e}{''.join(texts)}"
                f"{row['best frames per second']:12.0f}{'' if row['check']['passed'] else '  WRONG'}"
            )
        for peer, times in facts.get("peers", {}).get("times", {}).items():
            print(f"{'':16}{peer:60}{times['p50']:10.1f} us")
        for peer, reason in facts.get("peers", {}).get("missing", {}).items():
            print(f"{'':16}{peer:60}not measured: {reason}")
    if report["no peers"]:
        print(f"other ways to run these networks were not measured: {report['no peers']}")
    for target, verdict in report["targets"].items():
        print(f"{'met' if verdict['met'] else 'MISSED':8}{target} ({verdict['ratio']:.2f})")


def write(report: dict[str, Any], path: Path) -> None:
    """The JSON, with verdicts on what has been measured so far."""
    report["targets"] = verdicts(report["networks"], report["empty kernel us"])
    with replace_file(path) as handle:
        handle.write(json.dumps(report, indent=1).encode())


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundles", type=Path, default=Path("build/gpu_proof"), help="folder of the bundles")
    parser.add_argument("--prepare", action="store_true", help="only the part that needs torch and no GPU")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rows", nargs="+", type=int, default=list(ROWS), help="streams in lock-step, 1 first")
    parser.add_argument("--no-peers", action="store_true", help="time edgeco alone")
    parser.add_argument(
        "--tactic", action="append", metavar="NAME",
        help="allow these tactic sources of TensorRT's only; repeatable. A TensorRT without cuBLAS and cuDNN needs "
        "EDGE_MASK_CONVOLUTIONS and JIT_CONVOLUTIONS",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("gpu_proof.json"))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Both parts, or what was asked for."""
    options = options_of(arguments)
    tactics = tuple(options.tactic) if options.tactic else None
    try:
        if importlib.util.find_spec("torch") is not None and importlib.util.find_spec("onnx") is not None:
            prepare(options.bundles, options.networks)
        elif options.prepare:
            raise EngineError("bundles are built with torch and onnx: pip install 'edgeco[build]'")
        if options.prepare:
            return 0
        api, cuda = find_tensorrt(), open_cuda()
        kernel = empty_kernel(cuda)
        rows = (1, *(number for number in options.rows if number != 1))
        without = "as asked" if options.no_peers else peers_here()
        found: list[dict[str, Any]] = []
        report = {
            "gpu": cuda.device.name, "capability": cuda.device.capability, "driver": cuda.device.driver,
            "tensorrt": api.text, "cuda": cuda.name, "graphs": cuda.graphs is not None, "edgeco": edgeco.__version__,
            "python": platform.python_version(), "empty kernel us": kernel, "no peers": without, "networks": found,
        }  # fmt: skip
        for name in options.networks:
            found.append(prove(name, options.bundles, rows, tactics))
            write(report, options.out)  # a machine may be taken away before the end
        for facts in found if without is None else ():
            from gpu_peers import peers_of

            say(f"{facts['network']}, peers")
            facts["peers"] = peers_of(facts["network"], tactics)
            write(report, options.out)
    except EdgecoError as error:
        print(f"gpu_proof: {error}", file=sys.stderr)
        return error.exit_code
    show(report)
    wrong = [f for f in found for p in PRECISIONS if p not in f or not f[p]["check"]["passed"]]
    return 1 if wrong or not all(verdict["met"] for verdict in report["targets"].values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
