"""What each channel of a tensor holds over a stream: extremes and mean, which one range for all does not tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeco.bundle.manifest import Manifest
from edgeco.calibration.probe import Probe
from edgeco.calibration.tensors import observed_tensors
from edgeco.export.exported import Exported

Array = np.ndarray[Any, Any]


@dataclass
class Channels:
    """Of one tensor, per channel: least and greatest number and the mean, over ``count`` elements."""

    low: Array
    high: Array
    total: Array
    count: int

    @property
    def mean(self) -> Array:
        return self.total / max(self.count, 1)

    @property
    def peak(self) -> Array:
        return np.maximum(-self.low, self.high)


def observe_channels(
    exported: Exported, manifest: Manifest, frames: Array, wanted: Mapping[str, int], threads: int | None = None
) -> dict[str, Channels]:
    """Run the FP32 network over one stream and look at some tensors channel by channel.

    Args:
        exported: the FP32 graphs.
        manifest: what describes them.
        frames: (steps, *shape), from reset.
        wanted: by key (``tensor_key``) the axis of its channels.
        threads: processor threads.
    """
    observed = observed_tensors(exported, manifest, wanted)
    keys = [[key for key in item.filed() if key in wanted] for item in observed]  # what graphs compute alike is one
    probe = Probe(exported, manifest, observed, threads)
    found: dict[str, Channels] = {}
    entry = manifest.inputs[0].name
    for index, frame in enumerate(frames):
        probe.take({entry: frame})
        for _ in range(1 + (manifest.timeline.lead if index == 0 else 0)):
            for place, array in probe.step():
                for key in keys[place]:
                    _add(found, key, array, wanted[key])
    return found


def _add(found: dict[str, Channels], key: str, array: Array, axis: int) -> None:
    flat = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
    low, high, total = flat.min(0), flat.max(0), flat.sum(0, dtype=np.float64)
    own = found.get(key)
    if own is None:
        found[key] = Channels(low, high, total, len(flat))
        return
    own.low, own.high = np.minimum(own.low, low), np.maximum(own.high, high)
    own.total, own.count = own.total + total, own.count + len(flat)
