"""What each channel of a tensor holds over some streams: extremes and means, which one range for all does not tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeco.bundle.manifest import Manifest
from edgeco.calibration.grid import Grid
from edgeco.calibration.probe import Probe
from edgeco.calibration.tensors import observed_tensors
from edgeco.export.exported import Exported

Array = np.ndarray[Any, Any]


@dataclass
class Channels:
    """Of one tensor, per channel, over ``count`` elements: extremes, the sum, and that of what a grid makes of them."""

    low: Array
    high: Array
    total: Array
    rounded: Array
    count: int

    @property
    def mean(self) -> Array:
        return self.total / max(self.count, 1)

    @property
    def rounded_mean(self) -> Array:
        """The mean of the numbers rounded to the grid that was given; without one, the mean itself."""
        return self.rounded / max(self.count, 1)

    @property
    def peak(self) -> Array:
        return np.maximum(-self.low, self.high)


def observe_channels(
    exported: Exported,
    manifest: Manifest,
    streams: Sequence[Array],
    wanted: Mapping[str, int],
    grids: Mapping[str, Grid] | None = None,
    threads: int | None = None,
) -> dict[str, Channels]:
    """Run the FP32 network over some streams and look at some tensors channel by channel.

    Args:
        exported: the FP32 graphs.
        manifest: what describes them.
        streams: (steps, *shape) each, from reset.
        wanted: by key (``tensor_key``) the axis of its channels.
        grids: by key, of the tensors of which the mean after rounding is wanted as well.
        threads: processor threads.
    """
    observed = observed_tensors(exported, manifest, wanted)
    keys = [[key for key in item.filed() if key in wanted] for item in observed]
    probe = Probe(exported, manifest, observed, threads)
    found: dict[str, Channels] = {}
    entry = manifest.inputs[0].name
    for stream in streams:
        probe.reset()
        for index, frame in enumerate(stream):
            probe.take({entry: frame})
            for _ in range(1 + (manifest.timeline.lead if index == 0 else 0)):
                for place, array in probe.step():
                    for key in keys[place]:
                        _add(found, key, array, wanted[key], (grids or {}).get(key))
    return found


def _add(found: dict[str, Channels], key: str, array: Array, axis: int, grid: Grid | None) -> None:
    flat = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
    total = flat.sum(0, dtype=np.float64)
    rounded = total if grid is None else grid.rounded(flat).sum(0, dtype=np.float64)
    made = Channels(flat.min(0), flat.max(0), total, rounded, len(flat))
    own = found.get(key)
    if own is None:
        found[key] = made
        return
    own.low, own.high = np.minimum(own.low, made.low), np.maximum(own.high, made.high)
    own.total, own.rounded = own.total + total, own.rounded + rounded
    own.count += made.count
