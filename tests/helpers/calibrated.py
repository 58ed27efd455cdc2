"""What the tests of calibration share: exported networks with their manifests, and streams of numbers."""

from __future__ import annotations

import numpy as np
from engine_parity import exported
from torch import nn

from edgeco.bundle.manifest import Manifest
from edgeco.export.exported import Exported
from edgeco.export.package import manifest_of
from edgeco.spec import BuildSpec


def network(
    net: nn.Module, clip: tuple[int, ...], time_dim: int = 2, *, start: str = "zeros"
) -> tuple[Exported, Manifest]:
    """A network of one input of arrays, exported, and what a bundle would say of it."""
    step, made = exported(net, clip, time_dim)
    spec = BuildSpec(model="m", clip=clip, time_dim=time_dim, start=start)
    return made, manifest_of("net", spec, step, None, None, 0, 0, {})


def streams(manifest: Manifest, *lengths: int, seed: int = 0) -> list[np.ndarray]:
    """Random streams as the only input takes them, of frames that differ in spread."""
    rng = np.random.default_rng(seed)
    shape = manifest.inputs[0].shape
    spread = [rng.uniform(0.2, 2.0, (length, *[1] * len(shape))) for length in lengths]
    return [(rng.standard_normal((len(s), *shape)) * s).astype(np.float32) for s in spread]
