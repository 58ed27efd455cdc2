"""The part of ``gpu_proof.py`` that needs torch and onnx and no GPU: bundles in every precision, and stacked graphs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgeco.bundle import Bundle, open_bundle
from edgeco.errors import EdgecoError
from edgeco.files import replace_file

OWN = Path(__file__).with_name("gpu_networks.py")
NETWORKS: dict[str, dict[str, Any]] = {
    "camera-motion": {"model": "camera-motion"},
    "x3d_s": {"model": f"{OWN}:x3d_s"},
    "st_gcn_star": {"model": f"{OWN}:st_gcn_star"},
    "encoder": {"model": f"{OWN}:encoder"},
}
STEPS = 300
VARIANTS = ("trt-fp32", "trt-fp16")
"""Those whose graphs are rewritten to stacks. Codes of INT8 are for a DequantizeLinear alone, and not to be shifted."""

CALIBRATED_ON = 60
"""Frames of each of two streams after the first valid answer."""


def prepare(folder: Path, networks: list[str]) -> dict[str, str]:
    """Make what is not there: bundles whose golden answers are the torch runner's over 300 steps, and stacked graphs.

    Returns:
        What could not be made, with the reason: a network that fails keeps none of the others from being made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    for name in networks:
        for what, make in (("", _build), (", INT8", _calibrate), (", stacks", _stack)):
            try:
                make(folder, name)
            except EdgecoError as error:
                failed[name + what] = str(error)
                say(f"{name}{what}: {error}")
                if not what:
                    break
    return failed


def say(text: str) -> None:
    """What takes long, and what fails."""
    print(text, file=sys.stderr, flush=True)


def bundle_path(folder: Path, name: str) -> Path:
    """Where a network's bundle lies."""
    return folder / f"{name}.edgeco"


def stacked_path(folder: Path, name: str, variant: str) -> Path:
    """Where a network's graph with stacked states lies."""
    return folder / f"{name}.{variant}.stacked.onnx"


def _build(folder: Path, name: str) -> None:
    from edgeco.building import build

    target = bundle_path(folder, name)
    if not target.exists():
        say(f"building {name}")
        build({**NETWORKS[name], "name": name, "tensorrt": True, "golden": STEPS}, target)


def _calibrate(folder: Path, name: str) -> None:
    """INT8 beside the other forms, where it is not there: a step of its own, so that its gate stops nothing else."""
    from edgeco.calibration.calibrating import Plan, Watch, calibrate_bundle
    from edgeco.calibration.making import Wanted

    path = bundle_path(folder, name)
    bundle = open_bundle(path)
    if any("int8" in variant for variant in bundle.manifest.variants):
        return
    say(f"calibrating {name}")
    frames = bundle.manifest.timeline.valid_from + CALIBRATED_ON
    plan = Plan(_sources(folder, bundle, frames), frames=frames, fps=0)
    calibrate_bundle(path, plan, watch=Watch(say=say), wanted=Wanted(("int8",)))


def _sources(folder: Path, bundle: Bundle, frames: int) -> tuple[str, ...]:
    """Scenes where a network takes pictures, and else numbers spread as those of the golden frames."""
    manifest = bundle.manifest
    if manifest.preprocessing is not None:
        return tuple(f"pattern://motion?size=320x240&seed={seed}&script={_script(frames)}" for seed in (1, 2))
    golden = next(iter(bundle.golden()[0].values()))
    shape = (2, frames, *manifest.inputs[0].shape)
    made = np.random.default_rng(1).normal(golden.mean(), golden.std(), shape).astype(np.float32)
    path = folder / f"{manifest.name}.cases.npz"
    with replace_file(path) as handle:
        np.savez(handle, x=made, y=np.zeros(2, np.int64))
    return (str(path),)


def _script(frames: int) -> str:
    from edgeco.runtime.sources.pattern import MOTIONS

    names = [motion.replace(" ", "-") for motion in MOTIONS]
    return ",".join(f"{names[turn % len(names)]}:20" for turn in range(-(-frames // 20)))


def _stack(folder: Path, name: str) -> None:
    from gpu_stacked import can_be_stacked, checked

    bundle = open_bundle(bundle_path(folder, name))
    for variant in VARIANTS if can_be_stacked(bundle.manifest) else ():
        target = stacked_path(folder, name, variant)
        if not target.exists():
            say(f"stacking the states of {name}, {variant}")
            data = checked(bundle, variant)
            with replace_file(target) as handle:
                handle.write(data)
