"""Cost of a new frame: the clip network over its whole clip, against the step network over that frame alone.

All contestants run in one process, in turn within every round, so that whatever else the machine does hits them alike;
the ratios are of paired rounds. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hand_written import HandWritten
from machine import bandwidth, bytes_moved, peak, start_up
from randomised import randomised
from torch import Tensor, nn

import edgeco
from edgeco.engines.protocol import Copies
from edgeco.engines.session import Session
from edgeco.models import x3d
from edgeco.runtime.model import Model

Array = np.ndarray[Any, Any]
Run = Callable[[], object]

SIZES = {"x3d_s": x3d.x3d_s, "x3d_m": x3d.x3d_m, "x3d_l": x3d.x3d_l}
AGREEMENT = 1e-3
"""Greatest relative difference between the answers of two contestants."""
TARGET_OVERHEAD = 0.05


def network(size: str = "x3d_s", pixels: int = 160, seed: int = 0) -> nn.Module:
    """X3D with its norms randomised."""
    torch.manual_seed(seed)
    return randomised(SIZES[size](pixels=pixels), seed)


SETTLE = 0.4
"""Seconds a contestant runs untimed in each round: OpenMP's threads spin 0.2 s after another's work, on its cores."""


@dataclass
class Contestant:
    """One way to answer a new frame, and how long it took in each round (seconds)."""

    name: str
    run: Run | None
    skipped: str = ""
    warm: int = 1
    timed: int = 1
    rounds: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """One round: after untimed runs of its own, for caches and spinning threads are still another's."""
        assert self.run is not None
        settled = time.perf_counter() + SETTLE
        runs = 0
        while runs < self.warm or time.perf_counter() < settled:
            self.run()
            runs += 1
        took = []
        for _ in range(self.timed):
            start = time.perf_counter()
            self.run()
            took.append(time.perf_counter() - start)
        self.rounds.append(statistics.median(took))


# -- the clip network ----------------------------------------------------------------------------------------------


def clip_torch(net: nn.Module, clip: Tensor) -> Run:
    """The network as it is, in PyTorch."""

    def run() -> Array:
        with torch.inference_mode():
            return net(clip).numpy()  # type: ignore[no-any-return]

    return run


def clip_onnx(net: nn.Module, clip: Tensor, folder: Path) -> Path:
    """The clip network as PyTorch's own exporter writes it."""
    path = folder / "clip.onnx"
    torch.onnx.export(net, (clip,), str(path), dynamo=True, external_data=False, verbose=False)
    return path


def clip_onnxruntime(path: Path, clip: Tensor, threads: int) -> Run:
    """The clip network in ONNX Runtime with its ordinary options, all optimisations on."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: clip.numpy()}
    return lambda: session.run(None, feed)[0]


def clip_openvino(path: Path, clip: Tensor, threads: int) -> Run:
    """The clip network in OpenVINO, tuned for latency. Raises ImportError where OpenVINO is not installed."""
    import openvino

    core = openvino.Core()
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(str(path)), "CPU", hints).create_infer_request()
    data = clip.numpy()
    return lambda: request.infer([data])[0]


def clip_contestants(net: nn.Module, clip: Tensor, threads: int, folder: Path) -> list[Contestant]:
    """Every way to run the clip network; those that differ from PyTorch's answer end the benchmark."""
    plain = clip_torch(net, clip)
    found = [Contestant("clip, torch", plain)]
    path = clip_onnx(net, clip, folder)
    found.append(Contestant("clip, ONNX Runtime", clip_onnxruntime(path, clip, threads)))
    try:
        found.append(Contestant("clip, OpenVINO", clip_openvino(path, clip, threads)))
    except ImportError as error:
        found.append(Contestant("clip, OpenVINO", None, f"cannot be imported ({error}); pip install openvino"))
    expected = np.asarray(plain())
    for contestant in found[1:]:
        if contestant.run is not None:
            difference = np.abs(np.asarray(contestant.run()) - expected).max() / np.abs(expected).max()
            if not difference <= AGREEMENT:
                raise SystemExit(f"{contestant.name} differs from PyTorch by {difference:.2g}: nothing to compare.")
    return found


# -- the step network ----------------------------------------------------------------------------------------------


def step_torch(net: nn.Module, clip: Tensor) -> Run:
    """The torch runner of the converted network, its state held from step to step."""
    program = edgeco.convert(net, clip)
    frame = clip.select(2, 0)
    held = [program.initial_state(1)]

    def run() -> object:
        with torch.inference_mode():
            answers, held[0] = program.step([frame], held[0])
        return answers

    return run


def step_by_hand(net: nn.Module, clip: Tensor, model: Model, threads: int) -> Run:
    """The graph one would write by hand, once its answers are those of the bundle: when the past holds frames alone."""
    _, _, window, pixels, _ = clip.shape
    hand = HandWritten(net, pixels, window, threads)
    frames = np.random.default_rng(1).integers(0, 256, (7, *model.manifest.inputs[0].shape)).astype(np.uint8)
    with model.stream() as stream:
        for i in range(model.manifest.timeline.warm_from + window):
            pixel = frames[i % len(frames)]
            rgb = pixel if model.manifest.preprocessing.colour == "rgb" else pixel[..., ::-1]
            hand.frame[0] = ((rgb / 255 - x3d.MEAN) / x3d.STD).transpose(2, 0, 1)
            given, expected = hand.step()[0], next(iter(stream.step(pixel).outputs.values()))
    difference = np.abs(given - expected).max() / np.abs(expected).max()
    if not difference <= AGREEMENT:
        raise SystemExit(f"The graph written by hand differs from the bundle by {difference:.2g}: nothing to compare.")
    return hand.step


def step_raw(model: Model) -> Run:
    """The engine alone, over buffers bound beforehand."""
    session = Session(model.engine, model.manifest)
    binding = session.binding()
    return lambda: model.engine.run(binding)


class Idle:
    """An engine that binds and does not compute: what is left of a step is the runner's own time."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def lane(self, rows: int) -> Idle:
        """What a session takes for its rows is idle too."""
        return Idle(self._engine.lane(rows))

    def run(self, binding: object, copies: Copies = ()) -> None:
        """The copies alone."""
        for copy in copies:
            copy()


def runner_time(model: Model, frame: Array, steps: int = 3000) -> float:
    """Seconds that Stream.step takes beside the engine: the median with an engine that does nothing."""
    idle = Model(model.bundle, Idle(model.engine), model.variant, model.why)  # type: ignore[arg-type]
    took = []
    with idle.stream() as stream:
        for _ in range(steps):
            start = time.perf_counter()
            stream.step(frame)
            took.append(time.perf_counter() - start)
    return statistics.median(took)


# -- the run -------------------------------------------------------------------------------------------------------


def prepare(
    size: str, pixels: int, threads: int, folder: Path, say: Callable[[str], None]
) -> tuple[list[Contestant], Model, Array]:
    """All contestants, the loaded model and a frame for it."""
    torch.set_num_threads(threads)
    net = network(size, pixels)
    frames = SIZES[size].clip[1]  # type: ignore[attr-defined]
    clip = torch.randn(1, 3, frames, pixels, pixels, generator=torch.Generator().manual_seed(1))
    say("exporting the clip network")
    found = clip_contestants(net, clip, threads, folder)
    say("deriving the step network for PyTorch")
    found.append(Contestant("step, torch", step_torch(net, clip), warm=1, timed=2))
    bundle = folder / f"{size}.edgeco"
    fields = {
        "model": f"{Path(__file__).resolve()}:network",
        "arguments": {"size": size, "pixels": pixels},
        "clip": (3, frames, pixels, pixels),
        "mean": x3d.MEAN,
        "std": x3d.STD,
        "golden": 1,
    }
    edgeco.build(fields, bundle, lambda text: say(f"building the bundle: {text}"))
    model = edgeco.load(bundle, threads=threads)
    entry = model.manifest.inputs[0]
    frame = np.random.default_rng(0).integers(0, 256, entry.shape).astype(entry.dtype)
    stream = model.stream()
    found.append(Contestant("step, by hand", step_by_hand(net, clip, model, threads), warm=5, timed=25))
    found.append(Contestant("step, edgeco", lambda: stream.step(frame), warm=5, timed=25))
    found.append(Contestant("step, engine alone", step_raw(model), warm=5, timed=25))
    return found, model, frame


def report(found: list[Contestant], model: Model, frame: Array, threads: int, rounds: int) -> dict[str, Any]:
    """Run the rounds and gather every figure, in seconds and bytes."""
    running = [c for c in found if c.run is not None]
    for _ in range(rounds):
        for contestant in running:
            contestant.measure()
    times = {c.name: c.rounds for c in running}
    step = times["step, edgeco"]
    raw = times["step, engine alone"]
    own = runner_time(model, frame)
    moved, rate, macs = bytes_moved(model), bandwidth(), model.manifest.costs.step_macs
    speed = peak()
    return {
        "rounds": rounds,
        "threads": threads,
        "contestants": [_row(c, step, times["step, by hand"]) for c in found],
        "runner": {
            "seconds": own,
            "share": own / statistics.median(raw),
            "paired_seconds": statistics.median(s - r for s, r in zip(step, raw, strict=True)),
            "target_share": TARGET_OVERHEAD,
        },
        "start_up": start_up(Path(model.bundle.path), threads),
        "clip_macs": model.manifest.costs.clip_macs,
        "step_macs": macs,
        "state_bytes": model.manifest.costs.state_bytes,
        "floor": {
            "bytes": moved,
            "bytes_per_second": rate,
            "memory_seconds": moved / rate,
            "macs_per_second": speed,
            "compute_seconds": macs / speed,
            "times_floor": min(raw) / max(moved / rate, macs / speed),
        },
    }


def _row(contestant: Contestant, step: list[float], by_hand: list[float]) -> dict[str, Any]:
    if contestant.run is None:
        return {"name": contestant.name, "skipped": contestant.skipped}
    return {
        "name": contestant.name,
        "median": statistics.median(contestant.rounds),
        "least": min(contestant.rounds),
        "ratio": statistics.median(a / b for a, b in zip(contestant.rounds, step, strict=True)),
        "ratio_by_hand": statistics.median(a / b for a, b in zip(contestant.rounds, by_hand, strict=True)),
    }


def show(facts: dict[str, Any]) -> None:
    """The report as tables."""
    print(f"{facts['network']}, per new frame, {facts['threads']} threads, {facts['rounds']} paired rounds\n")
    print(f"{'':22}{'median ms':>11}{'least ms':>11}{'x step':>9}{'x by hand':>11}")
    for row in facts["contestants"]:
        if "skipped" in row:
            print(f"{row['name']:22}  skipped: {row['skipped']}")
            continue
        ratios = f"{row['ratio']:9.2f}{row['ratio_by_hand']:11.2f}"
        print(f"{row['name']:22}{row['median'] * 1e3:11.2f}{row['least'] * 1e3:11.2f}{ratios}")
    runner, floor = facts["runner"], facts["floor"]
    clip, step = facts["clip_macs"] / 1e6, facts["step_macs"] / 1e6
    own = f"{runner['seconds'] * 1e6:.0f} us, {runner['share']:.1%} of its time (at most {TARGET_OVERHEAD:.0%})"
    memory = f"{floor['bytes'] / 1e6:.1f} MB at {floor['bytes_per_second'] / 1e9:.1f} GB/s"
    arithmetic = f"{step:.0f} M at {floor['macs_per_second'] / 1e9:.0f} G/s"
    lines = {
        "runner beside the engine": f"{own}; paired difference {runner['paired_seconds'] * 1e6:+.0f} us",
        "start-up": ", ".join(f"{name} {seconds * 1e3:.0f} ms" for name, seconds in facts["start_up"].items()),
        "multiply-accumulates": f"clip {clip:.0f} M, step {step:.0f} M ({clip / step:.1f} x)",
        "state": f"{facts['state_bytes'] / 2**20:.1f} MiB",
        "floor, memory": f"{memory}: {floor['memory_seconds'] * 1e3:.2f} ms",
        "floor, arithmetic": f"{arithmetic}: {floor['compute_seconds'] * 1e3:.2f} ms",
        "fastest step": f"{floor['times_floor']:.1f} x the higher floor",
    }
    print()
    for name, text in lines.items():
        print(f"{name:26}{text}")


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=sorted(SIZES), default="x3d_s")
    parser.add_argument("--pixels", type=int, help="side of the frame; the size's own")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args()
    pixels = given.pixels or SIZES[given.size].clip[3]  # type: ignore[attr-defined]

    def say(text: str) -> None:
        print(f"… {text}", file=sys.stderr)

    with tempfile.TemporaryDirectory() as folder:
        found, model, frame = prepare(given.size, pixels, given.threads, Path(folder), say)
        say("measuring")
        facts = report(found, model, frame, given.threads, given.rounds)
    facts["network"] = f"{given.size} at {pixels}x{pixels}"
    if given.json:
        print(json.dumps(facts, indent=1))
    else:
        show(facts)


if __name__ == "__main__":
    main()
