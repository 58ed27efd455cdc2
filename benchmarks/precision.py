"""FP16 and INT8 against FP32 over ten receptive fields, by step, and how many held-out cases each tells rightly.

``python benchmarks/precision.py NETWORK … -o precision.json``. Networks without weights of their own get random ones,
norms included; ``precision_data.py`` says what they are calibrated on, compared on and tested with. With ``--keep
FOLDER`` the forms are kept, for ``precision_speed.py`` to time.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from precision_data import TRAINED, material
from randomised import randomised

from edgeco.building import _Work, resolve
from edgeco.bundle.manifest import Manifest
from edgeco.bundle.validate import state_bytes
from edgeco.calibration.drift import Drift, drift_stream, drifts
from edgeco.calibration.forms import described, measured, prepare, quantised_form
from edgeco.calibration.half_range import half_range
from edgeco.calibration.recordings import recorded
from edgeco.calibration.rollout import observe
from edgeco.export.check import rollout
from edgeco.export.exported import Exported
from edgeco.export.onnx import export_onnx
from edgeco.export.opset17 import opset17
from edgeco.export.package import manifest_of
from edgeco.export.tensorrt_forms import half_form
from edgeco.factory import make_network

Array = np.ndarray[Any, Any]
NETWORKS: dict[str, dict[str, Any]] = {
    "camera-motion": {},
    "fingertip-gesture": {},
    "watch-activity": {},
    "hand-digit-motion": {},
    "st-gcn-star": {},
    "oad-b2": {},
    "x3d-s": {"clip": [3, 13, 160, 160]},
    "x3d-s-112": {"model": "x3d-s", "clip": [3, 13, 112, 112], "arguments": {"pixels": 112}},
}
POINTS = 80
"""Of a curve in the file."""


def network(name: str) -> tuple[Exported, Manifest]:
    """The FP32 graphs of a network by name."""
    spec, factory = resolve({"model": name, **NETWORKS[name]})
    torch.manual_seed(0)
    net = make_network(factory, spec.arguments).eval().float()
    if name not in TRAINED:
        randomised(net)
    work = _Work(spec, net, name)
    work.derive()
    exported = export_onnx(work.graph, work.frame)
    return exported, manifest_of(name, spec, work.graph, work.preprocessing, None, 0, 0, {})


def study(name: str, threads: int, keep: Path | None) -> dict[str, Any]:
    """Everything that is told of one network."""
    exported, manifest = network(name)
    used = material(name, manifest)
    ranges = observe(exported, manifest, recorded(manifest, used.calibrated), threads=threads)
    streams = [drift_stream(frames, manifest) for frames in used.compared]
    expected = [rollout(exported.phases(), manifest, stream) for stream in streams]
    told: dict[str, Any] = {"name": name, "receptive_field": manifest.timeline.receptive_field}
    told |= {"streams": len(streams), "steps": len(streams[0]), "frames": ranges.frames}
    told["spread"] = _spread(expected[0][manifest.outputs[0].name][manifest.timeline.valid_from :])
    _, rounded = half_form(exported, [opset17(g) for g in exported.graphs], manifest, half_range(ranges).beyond)
    forms, run = {"fp32": (exported, manifest)}, {"fp32": (exported, manifest), "fp16": (rounded, manifest)}
    halves = [
        drifts(manifest, right, rollout(rounded.phases(), manifest, stream))
        for stream, right in zip(streams, expected, strict=True)
    ]
    drift = {"fp16": _together([found[0] for found in halves])}
    prepared = prepare(exported, manifest, ranges, np.concatenate(used.compared) if len(streams) > 1 else streams[0])
    for target in ("cpu", "trt-weak", "trt-strong"):
        form, runs = quantised_form(prepared, target)
        own = described(manifest, form)
        run[form.name] = (runs, own)
        found = [measured(runs, manifest, form, s, right)[0] for s, right in zip(streams, expected, strict=True)]
        drift[form.name] = _together(found)
        if target == "cpu":
            forms["int8"] = (form.exported, own)
            told |= {key: form.told[key] for key in ("layers", "floats", "equalised")}
            told["states"] = _states(manifest, own)
            told["weights"] = {n: sum(a.nbytes for a in e.weights.values()) for n, (e, _) in forms.items()}
    told["drift"] = {key: _shown(found) for key, found in drift.items()}
    if used.tested is not None:
        told["accuracy"] = {key: used.tested.right(*form) for key, form in run.items()}
    if keep is not None:
        for key, (made, own) in forms.items():
            _keep(keep / name / key, made, own)
    return told


def _together(found: Sequence[Drift]) -> Drift:
    """What several streams of one length show, as if of one: the worst of all, the mean of all, by step the worst."""
    return replace(
        found[0],
        steps=sum(drift.steps for drift in found),
        cosine=min(drift.cosine for drift in found),
        mean_cosine=float(np.mean([drift.mean_cosine for drift in found])),
        moving=min(drift.moving for drift in found),
        error=max(drift.error for drift in found),
        mean_error=float(np.mean([drift.mean_error for drift in found])),
        agreement=float(np.mean([drift.agreement for drift in found])),
        second=float(np.mean([drift.second for drift in found])),
        last=float(np.mean([drift.last for drift in found])),
        cosines=tuple(np.min([drift.cosines for drift in found], axis=0)),
        errors=tuple(np.max([drift.errors for drift in found], axis=0)),
        agreements=tuple(np.mean([drift.agreements for drift in found], axis=0)),
    )


def _shown(found: Drift) -> dict[str, Any]:
    """A drift with fewer points of its curves: each the worst of those that it stands for, or their mean."""

    def fewer(curve: Sequence[float], of_run: Callable[[Array], Any]) -> list[float]:
        return [float(f"{of_run(part):.5g}") for part in np.array_split(curve, min(len(curve), POINTS))]

    curves = {"cosines": np.min, "errors": np.max, "agreements": np.mean}
    return {**found.to_json(), **{name: fewer(getattr(found, name), of) for name, of in curves.items()}}


def written(made: Sequence[dict[str, Any]]) -> str:
    """JSON with a line for each curve."""
    return (
        re.sub(r"\[\s+([-\d.e,\s]+?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", json.dumps(made, indent=1)) + "\n"
    )


def _keep(folder: Path, made: Exported, own: Manifest) -> None:
    """The complete graphs of a form and the manifest with its histories."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, graph in enumerate(made.phases()):
        if graph is not None:
            (folder / f"{number}.onnx").write_bytes(graph)
    (folder / "manifest.json").write_bytes(msgspec.json.encode(own))


def _spread(answers: Array) -> float:
    """How much answers differ from step to step, relative to their size: a constant answer would be easy to keep."""
    flat = answers.reshape(len(answers), -1)
    return float(np.linalg.norm(flat - flat.mean(0), axis=1).mean() / np.linalg.norm(flat, axis=1).mean())


def _states(manifest: Manifest, own: Manifest) -> dict[str, Any]:
    total = sum(map(state_bytes, manifest.histories))
    coded = {h.name for h in own.histories if h.dtype in ("int8", "uint8")}
    return {
        "fp32": total,
        "int8": sum(map(state_bytes, own.histories)),
        "share": sum(state_bytes(h) for h in manifest.histories if h.name in coded) / total,
    }


def main() -> None:
    """Study the networks that are named, and write what came of it; others in the file stay as they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK")
    parser.add_argument("-o", "--out", type=Path, default=Path("precision.json"))
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    made = {told["name"]: told for told in json.loads(options.out.read_text())} if options.out.exists() else {}
    for name in options.networks:
        told = made[name] = study(name, options.threads, options.keep)
        for key, one in told["drift"].items():
            told_of = {k: one[k] for k in ("cosine", "moving", "error", "mean_error", "agreement", "growth")}
            shown = ", ".join(f"{k} {v if v is None else format(v, '.5g')}" for k, v in told_of.items())
            print(f"{name:18} {key:16} {shown}")
        print(name, told["states"], f"spread {told['spread']:.2g}", "right", told.get("accuracy"), flush=True)
        options.out.write_text(written([made[known] for known in NETWORKS if known in made]))


if __name__ == "__main__":
    main()
