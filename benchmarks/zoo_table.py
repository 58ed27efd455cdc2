"""One row a network of the zoo: operations, state and time, side by side with the clip network and with its peers.

Each network is prepared (bundle built, clip network exported, the reference library's answers compared) and measured
in a process of its own; what was measured is kept in ``zoo.json`` beside this file, from which ``docs/zoo.md`` is
drawn. Broken off, it goes on where it was.
See README.md beside this file.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from randomised import randomised
from step_vs_clip import AGREEMENT, Contestant, clip_onnx, clip_onnxruntime, clip_openvino, clip_torch
from torch import Tensor, nn
from zoo_drawing import draw

import edgeco
from edgeco.bundle import open_bundle
from edgeco.bundle.manifest import Manifest
from edgeco.factory import carried_fields, find_factory, make_network
from edgeco.files import replace_file
from edgeco.models.catalogue import NETWORKS, known
from edgeco.models.s_tr import JointAttention
from edgeco.runtime.model import Model

RESULTS = Path(__file__).with_name("zoo.json")
PAGE = Path(__file__).parents[1] / "docs" / "zoo.md"
MOST_STEPS = 400
"""Steps over which a peer's answers are compared: three receptive fields, but no more than these where that is more."""
BUDGET = 45.0
"""Seconds in which a network's rounds should be done; three rounds are the least."""


def network(name: str) -> nn.Module:
    """A network of the zoo with random weights and norms."""
    torch.manual_seed(0)
    net = randomised(make_network(find_factory(name), {}))
    for module in net.modules():
        if isinstance(module, JointAttention):  # else logits of 10^5 let a last bit choose the joint looked at
            module.attention_conv.qkv_conv.weight.data *= 0.1
    return net


def fields_of(name: str) -> dict[str, Any]:
    """How it is built: as by its name, but for its random norms."""
    factory = find_factory(name)
    made_by = {"model": f"{Path(__file__).resolve()}:network", "arguments": {"name": name}, "golden": 2}
    return {**carried_fields(factory), **made_by, "name": name}


def prepare(name: str, folder: Path) -> None:
    """Build the bundle and export the clip network, unless that was done."""
    folder.mkdir(parents=True, exist_ok=True)
    bundle, clip = folder / f"{name}.edgeco", folder / f"{name}.clip.onnx"
    if not bundle.exists():
        _say(f"{name}: building the bundle")
        edgeco.build(fields_of(name), bundle)
    if not clip.exists() and not clip.with_suffix(".failed").exists():
        _say(f"{name}: exporting the clip network")
        with tempfile.TemporaryDirectory(dir=folder) as place:
            try:
                clip_onnx(_exportable(network(name)), example(name), Path(place)).rename(clip)
            except Exception as error:  # the exporter's own classes have no common root
                clip.with_suffix(".failed").write_text(_first_line(error), encoding="utf-8")
    _prepared_peer(name, folder)


def _prepared_peer(name: str, folder: Path) -> None:
    path = folder / f"{name}.peer.json"
    if not path.exists():
        _say(f"{name}: comparing the reference library's answers")
        checked = check_peer(name)
        with replace_file(path) as file:
            file.write(json.dumps(checked).encode())


def _exportable(net: nn.Module) -> nn.Module:
    """The same network for PyTorch's exporter, which does not know edgeco's operator of recycled positions."""
    for module in list(net.modules()):
        for key, child in module.named_children():
            if isinstance(child, edgeco.RecyclingPositionalEncoding):
                setattr(module, key, _Added(child.table))
    return net


class _Added(nn.Module):
    """The first rows of a table added to the tokens (B, T, width)."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table[torch.arange(x.shape[1]) % len(self.table)]


def example(name: str) -> Tensor:
    """A random clip."""
    return torch.randn(1, *carried_fields(find_factory(name))["clip"], generator=torch.Generator().manual_seed(1))


# -- contestants ---------------------------------------------------------------------------------------------------


def clip_contestants(name: str, net: nn.Module, folder: Path, threads: int) -> dict[str, Contestant]:
    """Every way to run the clip network; one that does not run, or answers otherwise, says why."""
    clip, path = example(name), folder / f"{name}.clip.onnx"
    plain = clip_torch(net, clip)
    expected = np.asarray(plain())
    found = {"torch": Contestant("clip, torch", plain)}
    for engine, start in (("onnxruntime", clip_onnxruntime), ("openvino", clip_openvino)):
        found[engine] = _tried(f"clip, {engine}", lambda start=start: _exported(start, path, clip, threads), expected)
    return found


def _exported(start: Callable[..., Any], path: Path, clip: Tensor, threads: int) -> Any:
    if not path.exists():
        raise RuntimeError(f"PyTorch's exporter refuses it: {path.with_suffix('.failed').read_text(encoding='utf-8')}")
    return start(path, clip, threads)


def _tried(name: str, start: Callable[[], Any], expected: np.ndarray[Any, Any]) -> Contestant:
    try:
        run = start()
        given = np.asarray(run())
    except Exception as error:  # engines raise classes of their own
        return Contestant(name, None, _first_line(error))
    difference = float(np.abs(given.reshape(expected.shape) - expected).max() / np.abs(expected).max())
    if not difference <= AGREEMENT:
        return Contestant(name, None, f"its answer differs from PyTorch's by {difference:.2g}")
    return Contestant(name, run)


def step_contestants(model: Model, frames: np.ndarray[Any, Any]) -> dict[str, Contestant]:
    """The bundle by edgeco, and its graph by OpenVINO once the two agree over a stream; a run is a whole round."""
    rounds = model.manifest.timeline.stride
    expected = _answers(model, frames)
    made = {"edgeco": _rounds(model, frames[0], rounds)}
    try:
        from openvino_engine import open_openvino

        engine = open_openvino(model.bundle.phases("fp32"), model.engine.threads)
        other = Model(model.bundle, engine, model.variant, model.why)
        difference = np.abs(_answers(other, frames) - expected).max() / np.abs(expected).max()
        if not difference <= AGREEMENT:
            raise RuntimeError(f"its answers differ from edgeco's by {difference:.2g}")
        made["openvino"] = _rounds(other, frames[0], rounds)
    except Exception as error:  # OpenVINO raises classes of its own
        made["openvino"] = Contestant("step, openvino", None, _first_line(error))
    return made


def _answers(model: Model, frames: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The first answer and the two rounds after it."""
    timeline, found = model.manifest.timeline, []
    with model.stream() as stream:
        for i in range(timeline.valid_from + 2 * timeline.stride + 1):
            result = stream.step(frames[i % len(frames)])
            if result.valid:
                found.append(np.concatenate([value.ravel() for value in result.outputs.values()]))
    return np.stack(found)


def _rounds(model: Model, frame: np.ndarray[Any, Any], steps: int) -> Contestant:
    stream = model.stream()

    def run() -> None:
        for _ in range(steps):
            stream.step(frame)

    return Contestant("step", run, warm=5, timed=max(3, 25 // steps))


def check_peer(name: str) -> dict[str, Any]:
    """Whether the reference library's step gives edgeco's answers: ``reason`` says why it does not, or is not run."""
    try:
        from zoo_peers import NONE, peer
    except ImportError as error:
        return {"reason": f"the library cannot be imported ({error})"}
    if name in NONE:
        return {"reason": NONE[name]}
    net, fields = network(name), carried_fields(find_factory(name))
    step = peer(net)
    program = edgeco.convert(net, example(name), time_dim=fields.get("time_dim", 2), exact=fields.get("exact", False))
    reach = program.receptive_field
    steps = max(reach + 12, min(3 * reach, MOST_STEPS))
    generator, worst, compared = torch.Generator().manual_seed(2), 0.0, 0
    with torch.inference_mode():
        for i in range(steps):
            frame = torch.randn(frame_shape(name), generator=generator)
            given, expected = step.forward_step(frame), program.forward_step(frame)
            if isinstance(given, Tensor) and expected is not None and i >= reach:
                compared += 1
                worst = max(worst, float((given.reshape(-1) - expected.reshape(-1)).abs().max() / expected.abs().max()))
    if not compared:
        return {"reason": "put together of its operators it gives no answer where edgeco does"}
    if not worst <= AGREEMENT:
        return {"reason": f"put together of its operators it differs by {worst:.2g} within {steps} steps"}
    return {"difference": worst, "steps": steps}


def frame_shape(name: str) -> list[int]:
    """One frame, batch counted."""
    time_dim = carried_fields(find_factory(name)).get("time_dim", 2)
    return [size for axis, size in enumerate(example(name).shape) if axis != time_dim]


def peer_contestant(name: str, net: nn.Module, model: Model, folder: Path) -> tuple[Contestant, int | None]:
    """The reference library's step with its past full, and the bytes of its state; a run is a whole round."""
    checked = json.loads((folder / f"{name}.peer.json").read_text(encoding="utf-8"))
    if "reason" in checked:
        return Contestant("peer", None, checked["reason"]), None
    from zoo_peers import peer, state_bytes

    step, frame, timeline = peer(net), torch.randn(frame_shape(name)), model.manifest.timeline

    def run(steps: int = timeline.stride) -> None:
        with torch.inference_mode():
            for _ in range(steps):
                step.forward_step(frame)

    run(-(-timeline.warm_from // timeline.stride) * timeline.stride)
    return Contestant("peer", run, warm=2, timed=5), state_bytes(step)


# -- the run -------------------------------------------------------------------------------------------------------


def measure(name: str, folder: Path, threads: int, rounds: int) -> dict[str, Any]:
    """Everything of one row: see `zoo_drawing.Result`."""
    torch.set_num_threads(threads)
    model = edgeco.load(folder / f"{name}.edgeco", threads=threads)
    net = network(name)
    entry, rng = model.manifest.inputs[0], np.random.default_rng(0)
    image = entry.dtype == "uint8"
    frames = rng.integers(0, 256, (7, *entry.shape)) if image else rng.standard_normal((7, *entry.shape))
    _say(f"{name}: comparing contestants")
    clips = clip_contestants(name, net, folder, threads)
    steps = step_contestants(model, frames.astype(entry.dtype))
    peer, state = peer_contestant(name, net, model, folder)
    running = [c for c in (*clips.values(), *steps.values(), peer) if c.run is not None]
    _say(f"{name}: measuring")
    _take_turns(running, rounds)
    rate = model.manifest.timeline.stride
    return {
        **counted(name, model.manifest),
        "clip": {engine: _seconds(c, 1) for engine, c in clips.items()},
        "step": {engine: _seconds(c, rate) for engine, c in steps.items()},
        "peer": {"reason": peer.skipped}
        if peer.run is None
        else {"seconds": _seconds(peer, rate), "state_bytes": state},
        "rounds": len(running[0].rounds),
        "machine": machine(threads),
    }


def counted(name: str, manifest: Manifest) -> dict[str, Any]:
    """What of a row needs no clock."""
    figures = next(entry for entry in known() if entry["name"] == name)
    return {
        "name": name,
        "rate": manifest.timeline.stride,
        "clip_macs": figures["clip_macs"],
        "step_macs": figures["step_macs"],
        "step_macs_executed": manifest.costs.step_macs,
        "state_bytes": manifest.costs.state_bytes,
    }


def count(name: str, folder: Path) -> None:
    """A row without times, where there is none yet."""
    if name not in results():
        manifest = open_bundle(folder / f"{name}.edgeco").manifest
        checked = json.loads((folder / f"{name}.peer.json").read_text(encoding="utf-8"))
        reason = {key: value for key, value in checked.items() if key == "reason"}
        keep({**counted(name, manifest), "clip": {}, "step": {}, "peer": reason, "rounds": 0})


def _row_of_peer(peer: Contestant, rate: int, state: int | None) -> dict[str, Any]:
    return {"reason": peer.skipped} if peer.run is None else {"seconds": _seconds(peer, rate), "state_bytes": state}


def _take_turns(running: list[Contestant], rounds: int) -> None:
    """The rounds, fewer of a network whose clips take long."""
    began = time.perf_counter()
    for done in range(rounds):
        if done >= 3 and (time.perf_counter() - began) * (done + 1) / done > BUDGET:
            break
        for contestant in running:
            contestant.measure()


def _seconds(contestant: Contestant, steps: int) -> float | str:
    """The median, of one step where a run is several; or why there is none."""
    return contestant.skipped if contestant.run is None else statistics.median(contestant.rounds) / steps


@functools.cache
def machine(threads: int) -> str:
    """Where, and by what."""
    import onnxruntime

    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    versions = [f"PyTorch {torch.__version__}", f"ONNX Runtime {onnxruntime.__version__}"]
    for package in ("openvino", "continual-inference"):
        versions += [f"{package} {found}" for found in [_version(package)] if found]
    return f"{names[0] if names else platform.machine()}, {threads} threads; {', '.join(versions)}"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package).split("-")[0]
    except metadata.PackageNotFoundError:
        return None


def results() -> dict[str, dict[str, Any]]:
    """What was measured, by name."""
    if not RESULTS.exists():
        return {}
    return {entry["name"]: entry for entry in json.loads(RESULTS.read_text(encoding="utf-8"))}


def keep(result: dict[str, Any]) -> None:
    """Put a row among the others, in the order of the catalogue, and draw the page anew."""
    found = {**results(), result["name"]: result}
    rows = [found[name] for name in NETWORKS if name in found]
    with replace_file(RESULTS) as file:
        file.write((json.dumps(rows, indent=1) + "\n").encode())
    redraw(rows)


def redraw(rows: list[dict[str, Any]]) -> None:
    """Write the page."""
    said = "; ".join(dict.fromkeys(row["machine"] for row in rows if row["rounds"]))
    with replace_file(PAGE) as file:
        file.write(draw(rows, said).encode())


def _say(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


def _first_line(error: BaseException) -> str:
    text = re.sub(r"\x1b\[\d*m", "", next((line.strip() for line in str(error).splitlines() if line.strip()), ""))
    return f"{type(error).__name__}: {text}"[:160].rstrip(".: ")


def main() -> None:
    """Parse; without names, everything that has no row yet, a process each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks; those without a row if none is named")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--folder", type=Path, default=Path("build/zoo"), help="where bundles and exports are kept")
    parser.add_argument("--only", choices=("prepare", "count", "measure", "draw"), help="one part of it")
    given = parser.parse_args()
    if given.only == "draw":
        return redraw(list(results().values()))
    timed = {name for name, row in results().items() if row["rounds"]}
    names = given.names or [name for name in NETWORKS if name not in timed]
    if len(names) == 1:
        if given.only in (None, "prepare"):
            prepare(names[0], given.folder)
        if given.only == "count":
            count(names[0], given.folder)
        if given.only in (None, "measure"):
            keep(measure(names[0], given.folder, given.threads, given.rounds))
        return None
    options = [f"--{key}={value}" for key, value in vars(given).items() if key != "names" and value is not None]
    for name in names:
        subprocess.run([sys.executable, __file__, name, *options], check=True, env=dict(os.environ))
    return None


if __name__ == "__main__":
    main()
