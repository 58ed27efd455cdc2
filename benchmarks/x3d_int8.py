"""INT8 on an X3D-S whose norms have the statistics of recordings, on recordings calibrated on and on one left out.

``python benchmarks/x3d_int8.py -o x3d_int8.json`` with the recordings' folder in ``EDGECO_TEST_DATA``. Weights are
random, gammas and betas too; ``--branch`` scales the last gamma of each block, which training begins at zero: at 1 a
block adds as much as comes in, and the network takes differences in the grey of a pixel for something else entirely.
How much so is told beside the forms: by the answers to the same frames with every number moved by -1, 0 or 1 of 255.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from randomised import randomised
from torch import nn

from edgeco.building import _Work, resolve
from edgeco.bundle.manifest import Manifest, Preprocessing
from edgeco.bundle.validate import state_bytes
from edgeco.calibration.drift import Drift, drifts
from edgeco.calibration.forms import Target, described, measured, prepare, quantised_form
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
from edgeco.models.x3d import MEAN, STD
from edgeco.runtime.preprocess import Preprocessor
from edgeco.runtime.sources import open_source

Array = np.ndarray[Any, Any]
FRAMES, CLIP = 120, 13
"""Most frames of a recording; frames of a clip of which statistics are taken, every second clip."""
TARGETS: tuple[Target, ...] = ("cpu", "trt-weak", "trt-strong")


def recordings(pixels: int) -> dict[str, Array]:
    """Every video of the folder as the network takes it, at its own rate."""
    prepare = Preprocessor(Preprocessing(size=(pixels, pixels), colour="rgb", mean=(0.0,), std=(1.0,)))
    made = {}
    for path in sorted((Path(os.environ["EDGECO_TEST_DATA"]) / "video").glob("*.m*")):
        with open_source(str(path)) as opened:
            made[path.name] = np.stack([np.array(prepare(frame.image)) for frame in islice(opened, FRAMES)])
    return made


def network(pixels: int, branch: float, videos: dict[str, Array]) -> tuple[Exported, Manifest]:
    """The step network of an X3D-S whose norms have seen clips of all recordings."""
    fields = {"model": "x3d-s", "clip": [3, CLIP, pixels, pixels], "arguments": {"pixels": pixels}}
    spec, factory = resolve({**fields, "mean": MEAN, "std": STD})
    torch.manual_seed(0)
    net = randomised(make_network(factory, spec.arguments).float())
    for name, module in net.named_modules():
        if isinstance(module, nn.BatchNorm3d):
            module.reset_running_stats()
            module.momentum = None  # plain means over all clips
            module.train()
            if name.endswith("c_bn"):
                module.weight.data.mul_(branch)
    clips = [video[s : s + CLIP] for video in videos.values() for s in range(0, len(video) - CLIP + 1, 2 * CLIP)]
    np.random.default_rng(0).shuffle(clips)
    with torch.no_grad():
        for start in range(0, len(clips), 8):
            batch = torch.from_numpy(np.stack(clips[start : start + 8])).float().permute(0, 4, 1, 2, 3)
            net((batch / 255 - MEAN[0]) / STD[0])
    work = _Work(spec, net.eval(), "x3d-s")
    work.derive()
    exported = export_onnx(work.graph, work.frame)
    return exported, manifest_of("x3d-s", spec, work.graph, work.preprocessing, None, 0, 0, {})


def study(exported: Exported, manifest: Manifest, videos: dict[str, Array], out: Sequence[str]) -> dict[str, Any]:
    """Every form calibrated on all recordings but some, against FP32 on these, or on three if none is left out."""
    given = [video for name, video in videos.items() if name not in out]
    ranges = observe(exported, manifest, recorded(manifest, given))
    prepared = prepare(exported, manifest, ranges, given[0])
    made: dict[str, Any] = {"left out": list(out), "calibrated on": len(given)}
    halves = [opset17(graph) for graph in exported.graphs]
    _, rounded = half_form(exported, halves, manifest, half_range(ranges).beyond)
    forms = {target: quantised_form(prepared, target) for target in TARGETS}
    total = sum(map(state_bytes, manifest.histories))
    own = described(manifest, forms["cpu"][0])
    coded = {history.name for history in own.histories if history.dtype == "uint8"}
    made["states"] = {"fp32": total, "int8": sum(map(state_bytes, own.histories))}
    made["states"]["share"] = sum(state_bytes(h) for h in manifest.histories if h.name in coded) / total
    for name in out or ("asl_book.mkv", "car-detection.mp4", "nasa_13013.mp4"):
        stream = videos[name]
        expected = rollout(exported.phases(), manifest, stream)
        noise = np.random.default_rng(0).integers(-1, 2, stream.shape)
        grey = np.clip(stream.astype(int) + noise, 0, 255).astype(np.uint8)
        told = {"grey": drifts(manifest, expected, rollout(exported.phases(), manifest, grey))}
        told["fp16"] = drifts(manifest, expected, rollout(rounded.phases(), manifest, stream))
        for form, runs in forms.values():
            told[form.name] = measured(runs, manifest, form, stream, expected)
        made[name] = {key: _short(found[0]) for key, found in told.items()}
        for key, one in made[name].items():
            print(f"{'left out' if out else 'seen':8} {name:18} {key:15}", one, flush=True)
    return made


def _short(found: Drift) -> dict[str, float | None]:
    kept = ("cosine", "mean_cosine", "moving", "mean_error", "agreement")
    return {key: None if (value := getattr(found, key)) is None else round(value, 5) for key in kept}


def main() -> None:
    """Study one network with every set of recordings that is asked for, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pixels", type=int, default=112)
    parser.add_argument("--branch", type=float, default=1.0, help="what the last gamma of each block is scaled by")
    parser.add_argument("--left-out", nargs="*", default=["car-detection.mp4", "asl_book.mkv"], metavar="RECORDING")
    parser.add_argument("-o", "--out", type=Path, default=Path("x3d_int8.json"))
    options = parser.parse_args()
    videos = recordings(options.pixels)
    exported, manifest = network(options.pixels, options.branch, videos)
    made = [study(exported, manifest, videos, out) for out in ((), *((name,) for name in options.left_out))]
    told = {"pixels": options.pixels, "branch": options.branch, "studies": made}
    options.out.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
