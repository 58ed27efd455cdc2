"""Everything that only a GPU can prove, in one run: right answers over 300 steps, and what a step costs.

Runs from a checkout wherever there are a GPU, TensorRT and one of the CUDA packages; writes a table and a JSON. Bundles
are built first where torch and onnx are installed, else taken from the folder that an earlier run with ``--prepare``
filled, so that the GPU's machine needs the run side alone. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import edgeco
from edgeco.bundle import open_bundle
from edgeco.engines.cuda import open_cuda
from edgeco.engines.session import Session
from edgeco.engines.tensorrt.api import find_tensorrt
from edgeco.engines.tensorrt.engine import TensorRtEngine
from edgeco.errors import EdgecoError
from edgeco.runtime.model import Model
from edgeco.runtime.timing import now
from edgeco.runtime.verify import relative_difference, rollout

NETWORKS: dict[str, dict[str, Any]] = {
    "camera-motion": {"model": "camera-motion"},
    "x3d_s": {"model": f"{Path(__file__).with_name('gpu_networks.py')}:x3d_s"},
    "encoder": {"model": f"{Path(__file__).with_name('gpu_networks.py')}:encoder"},
}
STEPS = 300
ROWS = (1, 2, 4, 8, 16, 32, 64)
EXACT = 1e-3
"""Greatest relative difference of FP32 from the torch runner: the GPU adds up in another order."""
TARGETS = {
    "floor": "an FP16 step within 1.5 times its floor",
    "clip": "at least 10 times the clip network per frame at the best number of streams (X3D-S)",
    "library": "at least 5 times faster than the library's step",
    "overhead": "less than 20 microseconds of runner around the engine",
}


def prepare(folder: Path, networks: list[str]) -> None:
    """Build the bundles that are not there, their golden answers the torch runner's over 300 steps."""
    from edgeco.building import build

    folder.mkdir(parents=True, exist_ok=True)
    for name in networks:
        target = folder / f"{name}.edgeco"
        if not target.exists():
            print(f"building {name}", file=sys.stderr)
            build({**NETWORKS[name], "name": name, "tensorrt": True, "golden": STEPS}, target)


def microseconds(run: Callable[[], object], times: int = 200, warm_up: int = 50) -> dict[str, float]:
    """Median and percentiles of a call that ends when its work is done."""
    for _ in range(warm_up):
        run()
    taken = []
    for _ in range(times):
        start = now()
        run()
        taken.append((now() - start) * 1e-3)
    taken.sort()
    return {"p50": statistics.median(taken), "p90": taken[int(0.9 * times)], "p99": taken[int(0.99 * times)]}


def check(model: Model) -> dict[str, Any]:
    """A stream over the golden frames against the torch runner's answers."""
    frames, answers = model.bundle.golden()
    with model.stream() as stream:
        given = rollout(stream, frames)
    worst = 0.0
    for output in model.manifest.outputs:
        off, _ = relative_difference(given[output.name][output.valid_from :], answers[output.name][output.valid_from :])
        worst = max(worst, off) if off == off else float("inf")
    tolerance = EXACT if model.variant == "fp32" else model.manifest.variants[model.variant].tolerance
    steps = model.manifest.golden.steps
    return {"difference": worst, "tolerance": tolerance, "steps": steps, "passed": worst <= tolerance}


@contextmanager
def session_of(model: Model, rows: int) -> Iterator[tuple[Session, dict[str, np.ndarray]]]:
    """A session and frames for it; closed at the end, whatever happens."""
    session = Session(model.engine, model.manifest, rows)
    try:
        frames, _ = model.bundle.golden()
        shaped = {n: a[0] if rows == 1 else np.stack([a[i % len(a)] for i in range(rows)]) for n, a in frames.items()}
        yield session, shaped
    finally:
        session.close()


def time_steps(model: Model, rows: int) -> dict[str, Any]:
    """A whole step as a user calls it, and the engine alone with a wait at its end."""
    with session_of(model, rows) as (session, frames):
        memory = session.engine.memory
        outputs = list(session.outputs.values())

        def whole() -> None:
            for name, buffer in session.inputs.items():
                memory.write(buffer, frames[name])
            session.run()
            memory.read_all(outputs)

        def alone() -> None:
            session.engine.run(session.binding())
            memory.read_all(outputs[:1])

        return {"rows": rows, "step": microseconds(whole), "engine": microseconds(alone), "plain": session.engine.plain}


def without_graphs(model: Model) -> Model:
    """The same plans, enqueued in every step."""
    engine = model.engine
    assert isinstance(engine, TensorRtEngine)
    return Model(model.bundle, engine.plain_twin(), model.variant, "without CUDA graphs")


def runner_time(model: Model, steps: int = 300) -> float:
    """Microseconds of Python around the GPU's work: a step's time less that of its queue, from event to event."""
    cuda = open_cuda()
    with session_of(model, 1) as (session, frames):
        memory, (name, buffer) = session.engine.memory, next(iter(session.inputs.items()))
        outputs = list(session.outputs.values())
        stream = session.engine.stream
        with cuda:
            start, end = cuda.event(timing=True), cuda.event(timing=True)
        over = []
        for _ in range(steps):
            began = now()
            with cuda:
                cuda.record(start, stream)
            memory.write(buffer, frames[name])
            session.run()
            with cuda:
                cuda.record(end, stream)
            memory.read_all(outputs)
            with cuda:
                cuda.finish(end)
                over.append((now() - began) * 1e-3 - 1e3 * cuda.milliseconds(start, end))
        with cuda:
            cuda.close_event(start)
            cuda.close_event(end)
    return statistics.median(over)


def layers_of(model: Model) -> int:
    """Fused layers of a step, as the engine's inspector counts them; the greatest of the phases."""
    engine = model.engine
    assert isinstance(engine, TensorRtEngine)
    counts = []
    for plan in engine.compile(1):
        text = Path(engine.plan_path(plan.sidecar.key)).with_suffix("").with_suffix(".layers.json").read_text()
        counts.append(len(json.loads(text or '{"Layers": []}').get("Layers", [])))
    return max(counts)


def prove(name: str, folder: Path, rows: tuple[int, ...], peers: bool) -> dict[str, Any]:
    """Everything about one network."""
    bundle = folder / f"{name}.edgeco"
    facts: dict[str, Any] = {"network": name, "state_bytes": open_bundle(bundle).manifest.costs.state_bytes}
    for precision in ("fp32", "fp16"):
        print(f"{name}, {precision}", file=sys.stderr)
        model = edgeco.load(bundle, engine="tensorrt", precision=precision, say=lambda t: print(t, file=sys.stderr))
        times = [time_steps(model, number) for number in rows]
        plain = time_steps(without_graphs(model), 1)
        facts[precision] = {
            "why": model.why,
            "check": check(model),
            "layers": layers_of(model),
            "rows": times,
            "without graphs": plain["step"],
            "runner": runner_time(model),
            "best frames per second": max(1e6 * t["rows"] / t["step"]["p50"] for t in times),
        }
    if peers and importlib.util.find_spec("torch") is not None:
        from gpu_peers import peers_of

        facts["peers"] = peers_of(name)
    return facts


def verdicts(found: list[dict[str, Any]], kernel: float | None) -> dict[str, Any]:
    """The targets that what was measured can decide."""
    said: dict[str, Any] = {}
    for facts in found:
        half, name, peers = facts["fp16"], facts["network"], facts.get("peers", {})
        step = half["rows"][0]["engine"]["p50"]
        said[f"{name}: {TARGETS['overhead']}"] = half["runner"] < 20
        if kernel is not None:
            floor = kernel * half["layers"]
            said[f"{name}: {TARGETS['floor']} of {floor:.1f} us"] = step <= 1.5 * floor
        if name == "x3d_s" and "clip, TensorRT" in peers.get("times", {}):
            per_frame = 1e6 / half["best frames per second"]
            said[f"{name}: {TARGETS['clip']}"] = peers["times"]["clip, TensorRT"]["best"] >= 10 * per_frame
        if "step, continual-inference" in peers.get("times", {}):
            library = peers["times"]["step, continual-inference"]["p50"]
            said[f"{name}: {TARGETS['library']}"] = library >= 5 * half["rows"][0]["step"]["p50"]
    return said


def show(report: dict[str, Any]) -> None:
    """The table."""
    print(f"{report['gpu']}, TensorRT {report['tensorrt']}, {report['cuda']}, edgeco {report['edgeco']}")
    print(f"{'network':16}{'':6}{'difference':>12}{'step us':>10}{'plain us':>10}{'runner us':>11}{'frames/s':>10}")
    for facts in report["networks"]:
        for precision in ("fp32", "fp16"):
            row = facts[precision]
            step, difference = row["rows"][0]["step"]["p50"], row["check"]["difference"]
            verdict = "" if row["check"]["passed"] else "  WRONG"
            print(
                f"{facts['network']:16}{precision:6}{difference:12.2e}{step:10.1f}{row['without graphs']['p50']:10.1f}"
                f"{row['runner']:11.1f}{row['best frames per second']:10.0f}{verdict}"
            )
        for peer, times in facts.get("peers", {}).get("times", {}).items():
            print(f"{'':16}{peer:40}{times['p50']:10.1f} us")
        for peer, reason in facts.get("peers", {}).get("missing", {}).items():
            print(f"{'':16}{peer:40}not measured: {reason}")
    for target, met in report["targets"].items():
        print(f"{'met' if met else 'MISSED':8}{target}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundles", type=Path, default=Path("build/gpu_proof"), help="folder of the bundles")
    parser.add_argument("--prepare", action="store_true", help="only build the bundles; needs no GPU")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rows", nargs="+", type=int, default=list(ROWS), help="streams in lock-step")
    parser.add_argument("--no-peers", action="store_true", help="time edgeco alone")
    parser.add_argument("--out", type=Path, default=Path("gpu_proof.json"))
    options = parser.parse_args()
    try:
        if importlib.util.find_spec("torch") is not None and importlib.util.find_spec("onnx") is not None:
            prepare(options.bundles, options.networks)
        if options.prepare:
            return 0
        api, cuda = find_tensorrt(), open_cuda()
        found = [prove(name, options.bundles, tuple(options.rows), not options.no_peers) for name in options.networks]
    except EdgecoError as error:
        print(f"gpu_proof: {error}", file=sys.stderr)
        return error.exit_code
    kernel = next((facts["peers"]["empty kernel"] for facts in found if "peers" in facts), None)
    report = {
        "gpu": cuda.device.name, "capability": cuda.device.capability, "driver": cuda.device.driver,
        "tensorrt": api.text, "cuda": cuda.name, "graphs": cuda.graphs is not None, "edgeco": edgeco.__version__,
        "python": platform.python_version(), "empty kernel us": kernel, "networks": found,
        "targets": verdicts(found, kernel),
    }  # fmt: skip
    options.out.write_text(json.dumps(report, indent=1))
    show(report)
    wrong = [f for f in found for p in ("fp32", "fp16") if not f[p]["check"]["passed"]]
    return 1 if wrong or not all(report["targets"].values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
