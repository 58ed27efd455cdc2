"""FP16 and INT8 against FP32 over ten receptive fields, and what a step takes in each on this machine's processor.

``python benchmarks/precision.py NETWORK … -o precision.json``. Networks without weights of their own get random ones,
norms included; frames are those of ``EDGECO_TEST_DATA``'s recordings where pictures are wanted, else correlated noise.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from randomised import randomised

from edgeco.building import _Work, resolve
from edgeco.bundle.manifest import Manifest
from edgeco.bundle.validate import state_bytes
from edgeco.calibration.drift import drift_stream, drifts
from edgeco.calibration.forms import described, measured, prepare, quantised_form
from edgeco.calibration.half_range import half_range
from edgeco.calibration.recordings import recorded
from edgeco.calibration.rollout import observe
from edgeco.calibration.speed import step_milliseconds
from edgeco.export.check import rollout
from edgeco.export.exported import Exported
from edgeco.export.onnx import export_onnx
from edgeco.export.opset17 import opset17
from edgeco.export.package import manifest_of
from edgeco.export.tensorrt_forms import half_form
from edgeco.factory import make_network
from edgeco.runtime.preprocess import Preprocessor
from edgeco.runtime.sources import open_source

Array = np.ndarray[Any, Any]
NETWORKS: dict[str, dict[str, Any]] = {
    "camera-motion": {},
    "st-gcn-star": {},
    "oad-b2": {},
    "x3d-s": {"clip": [3, 13, 160, 160]},
    "x3d-s-112": {"model": "x3d-s", "clip": [3, 13, 112, 112], "arguments": {"pixels": 112}},
}
CALIBRATED_ON, COMPARED_ON = ("nasa_13013.mp4", "asl_book.mkv"), "car-detection.mp4"
STREAM = 60
"""Frames of each calibration stream after the first valid answer."""
TRAINED = ("camera-motion",)


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


def frames_of(manifest: Manifest, source: str, seed: int, count: int) -> Array:
    """Frames as a network takes them."""
    folder = os.environ.get("EDGECO_TEST_DATA")
    if manifest.preprocessing is not None and folder:
        prepare = Preprocessor(manifest.preprocessing)
        made = []
        with open_source(str(Path(folder) / "video" / source)) as opened:
            for frame in opened:
                made.append(np.array(prepare(frame.image)))
                if len(made) == count:
                    break
        return np.stack(made)
    rng = np.random.default_rng(seed)
    shape = tuple(manifest.inputs[0].shape)
    made_up = rng.standard_normal((count, *shape)).astype(np.float32)
    for index in range(1, count):
        made_up[index] = 0.8 * made_up[index - 1] + 0.6 * made_up[index]
    if manifest.preprocessing is None:
        return made_up
    return np.clip(128 + 48 * made_up, 0, 255).astype(np.uint8)


def study(name: str, threads: int) -> dict[str, Any]:
    """Everything that is told of one network."""
    exported, manifest = network(name)
    count = manifest.timeline.valid_from + STREAM
    streams = [frames_of(manifest, source, seed, count) for seed, source in enumerate(CALIBRATED_ON)]
    ranges = observe(exported, manifest, recorded(manifest, streams), threads=threads)
    frames = frames_of(manifest, COMPARED_ON, 9, max(manifest.timeline.receptive_field, 20))
    stream = drift_stream(frames, manifest)
    expected = rollout(exported.phases(), manifest, stream)
    forms = {"fp32": (exported, manifest)}
    told: dict[str, Any] = {"name": name, "receptive_field": manifest.timeline.receptive_field, "steps": len(stream)}
    told["spread"] = _spread(expected[manifest.outputs[0].name][manifest.timeline.valid_from :])
    _, rounded = half_form(exported, [opset17(g) for g in exported.graphs], manifest, half_range(ranges).beyond)
    drift: dict[str, Any] = {"fp16": drifts(manifest, expected, rollout(rounded.phases(), manifest, stream))}
    prepared = prepare(exported, manifest, ranges, frames)
    for target in ("cpu", "trt-weak", "trt-strong"):
        form, runs = quantised_form(prepared, target)
        drift[form.name] = measured(runs, manifest, form, stream, expected)
        if target == "cpu":
            forms["int8"] = (form.exported, described(manifest, form))
            told |= {key: form.told[key] for key in ("layers", "floats", "equalised")}
            told["states"] = _states(manifest, described(manifest, form))
            told["weights"] = {n: sum(a.nbytes for a in e.weights.values()) for n, (e, _) in forms.items()}
    told["drift"] = {key: [one.to_json() for one in found] for key, found in drift.items()}
    if name == "camera-motion":
        told["accuracy"] = accuracy({**forms, "fp16": (rounded, manifest)})
        print("right answers", told["accuracy"])
    told["milliseconds"] = step_milliseconds(forms, 25, threads)
    return told


def accuracy(forms: dict[str, tuple[Exported, Manifest]], cases: int = 400) -> dict[str, list[int]]:
    """Right answers of the camera-motion network to the last frame of generated streams that it was not trained on.

    Every form sees the same streams; each gives [right, of so many].
    """
    from edgeco.train import camera_motion as motion

    generator = np.random.default_rng((77, 2**31))
    right = dict.fromkeys(forms, 0)
    for number in range(cases):
        if number % 32 == 0:
            pool = [motion.texture(generator) for _ in range(10)]
        label = number % len(motion.LABELS)
        stream = motion.clip(generator, pool, label, motion.FRAMES + 8)[..., None]
        for name, (made, manifest) in forms.items():
            answers = rollout(made.phases(), manifest, stream)[manifest.outputs[0].name]
            right[name] += int(answers[-1].argmax() == label)
    return {name: [count, cases] for name, count in right.items()}


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
    """Study the networks that are named, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK")
    parser.add_argument("-o", "--out", type=Path, default=Path("precision.json"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    made = []
    for name in options.networks:
        told = study(name, options.threads)
        made.append(told)
        drift = {key: found[0] for key, found in told["drift"].items()}
        for key, one in drift.items():
            told_of = {k: one[k] for k in ("cosine", "moving", "error", "mean_error", "agreement", "growth")}
            shown = ", ".join(f"{k} {v if v is None else format(v, '.5g')}" for k, v in told_of.items())
            print(f"{name:14} {key:16} {shown}")
        print(name, told["milliseconds"], told["states"], f"spread {told['spread']:.2g}", flush=True)
        options.out.write_text(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
