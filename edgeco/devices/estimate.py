"""The floor of a step's latency on a device one does not have, kernel by kernel: a roofline from costs and figures.

No kernel ends before its arithmetic is done at the device's greatest rate, before its traffic has passed at the
greatest bandwidth, or sooner than an empty kernel. What is left out (``ASSUMPTIONS``) only ever makes a real step
slower, but for caches, which can keep traffic from memory.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgeco.bundle import open_bundle
from edgeco.bundle.manifest import History, Layer, Manifest
from edgeco.devices.catalogue import find_profile
from edgeco.devices.detect import profile_of_this_device
from edgeco.devices.profile import BASES, Figure, Precision, Profile
from edgeco.errors import SpecError

LAUNCH = 2e-6
"""Seconds that an empty kernel takes in a captured graph where none was measured."""

SIZES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}
"""Bytes of a number, in the precisions that are estimated."""

MOST_STREAMS = 4096

ASSUMPTIONS = (
    "the step's operators are fused into kernels as far as can be; they run one after another",
    "each kernel reads what it needs from memory once and writes what others need; caches are not counted on",
    "in a precision all numbers have its size: weights, activations and states",
    "not counted: the frame's way to the device, preprocessing, changes of layout or type, the answer's way back",
)


@dataclass(frozen=True)
class Kernel:
    """One kernel at one number of streams: floors in seconds; ``bound`` says which of them holds."""

    op: str
    macs: int
    bytes: int
    compute: float
    memory: float
    floor: float
    bound: str
    steps: int
    """In how many of the stride's steps it runs."""


@dataclass(frozen=True)
class Floor:
    """The floor of a step for some streams in lock-step, in seconds.

    ``mean`` is over the steps of a stride, ``worst`` its dearest one; ``fits`` whether weights and states fit the
    memory, None where its size is not known; ``shares`` splits the mean by what bounds its kernels.
    """

    precision: Precision
    streams: int
    mean: float
    worst: float
    fps: float
    """Frames a second, of all streams together."""
    memory: int
    """Bytes of weights and states."""
    fits: bool | None
    shares: dict[str, float]


@dataclass(frozen=True)
class Estimate:
    """Floors of one bundle on one device; ``kernels`` are those of one stream, by precision."""

    bundle: str
    device: str
    launch: float
    stride: int
    floors: tuple[Floor, ...]
    kernels: dict[str, tuple[Kernel, ...]]
    assumptions: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def estimate(
    manifest: Manifest, profile: Profile, streams: Sequence[int] = (1,), launch: float | None = None
) -> Estimate:
    """The floor of a step's latency.

    Args:
        manifest: of the bundle.
        profile: the device.
        streams: numbers of streams that step together.
        launch: seconds of an empty kernel; ``LAUNCH`` if None.

    Raises:
        SpecError: the device is not supported or too little is known of it, the bundle has no costs per layer, or an
            argument is out of range.
    """
    _check(manifest, profile, streams, launch)
    least = LAUNCH if launch is None else launch
    assert profile.bandwidth is not None
    layers = (*manifest.costs.layers, *_copies(manifest))
    stride, bandwidth = manifest.timeline.stride, profile.bandwidth.value * 1e9
    floors: list[Floor] = []
    kernels: dict[str, tuple[Kernel, ...]] = {}
    notes: list[str] = []
    for precision in (p for p in SIZES if p in profile.precisions):
        known = _rate(profile, precision)
        if known is None:
            continue
        rate, note = known
        notes.append(note)
        of_one = [_kernel(layer, precision, 1, rate, bandwidth, least) for layer in layers]
        kernels[precision] = tuple(of_one)
        for count in streams:
            made = of_one if count == 1 else [_kernel(v, precision, count, rate, bandwidth, least) for v in layers]
            floors.append(_floor(manifest, profile, precision, count, layers, made))
    if "int8" in kernels:
        notes.append(_int8_note(manifest))
    measured = "as given" if launch is not None else "not measured on this device"
    said = (
        *ASSUMPTIONS,
        f"no kernel takes less than {least * 1e6:g} µs ({measured})",
        _said("bandwidth", profile.bandwidth, "GB/s"),
        *dict.fromkeys(notes),
    )
    return Estimate(manifest.name, profile.name, least, stride, tuple(floors), kernels, said)


def estimate_bundle(
    bundle: str | os.PathLike[str], device: str | None, streams: int = 1, launch: float | None = None
) -> Estimate:
    """``estimate`` for a file and a device's name (None: this one), for 1, 2, 4, … up to ``streams`` streams.

    Raises:
        SpecError: as for ``estimate``; or there is no such device, or this one has no profile.
        BundleError: the bundle is damaged or foreign.
    """
    profile = find_profile(device) if device is not None else profile_of_this_device()
    return estimate(open_bundle(bundle).manifest, profile, doublings(streams), launch)


def _check(manifest: Manifest, profile: Profile, streams: Sequence[int], launch: float | None) -> None:
    if profile.unsupported is not None:
        raise SpecError(f"{profile.title} is not supported: {profile.unsupported}.")
    if profile.family == "cpu":
        raise SpecError("Processors have no figures to estimate from; measure on one: edgeco bench BUNDLE")
    known = [name for name in SIZES if name in profile.rates]
    if profile.bandwidth is None or not known:
        missing = "bandwidth" if profile.bandwidth is None else "rate of arithmetic"
        raise SpecError(
            f"The {missing} of {profile.title} is not known, so that there is nothing to estimate from; "
            "name a device that 'edgeco devices' has figures of."
        )
    if not manifest.costs.layers:
        raise SpecError(f"{manifest.name} was built without costs per layer; build it again: edgeco build")
    if not streams or not all(1 <= count <= MOST_STREAMS for count in streams):
        asked = ", ".join(map(str, streams)) or "none"
        raise SpecError(f"Streams are from 1 to {MOST_STREAMS}; {asked} were asked for.")
    if launch is not None and not (math.isfinite(launch) and launch >= 0):
        raise SpecError(f"An empty kernel takes some time, not {launch} s; give microseconds, as in --launch 2.5")


def _rate(profile: Profile, precision: Precision) -> tuple[float, str] | None:
    """Operations a second that a precision cannot pass, and what that rests on; None where nothing bounds it.

    No precision is computed in faster than a narrower one.
    """
    unit = "x 10^12 dense operations a second"
    if precision in profile.rates:
        return profile.rates[precision].value * 1e12, _said(precision, profile.rates[precision], unit)
    narrower = [name for name in SIZES if SIZES[name] < SIZES[precision] and name in profile.rates]
    if not narrower:
        return None
    name, figure = narrower[0], profile.rates[narrower[0]]
    text = f"the rate in {precision} is not known; that of {name} bounds it: {figure.value:g} {unit}"
    return figure.value * 1e12, text


def _said(name: str, figure: Figure, unit: str) -> str:
    note = f": {figure.note}" if figure.note else ""
    return f"{name} is {figure.value:g} {unit} ({BASES[figure.basis]}{note})"


def _quantised(manifest: Manifest) -> frozenset[str] | None:
    """The histories that the bundle's form in INT8 for TensorRT stores so; None where it has no such form."""
    for name in ("trt-int8-typed", "trt-int8"):
        if name in manifest.variants:
            return frozenset(manifest.variants[name].histories)
    return None


def _int8_note(manifest: Manifest) -> str:
    stored = _quantised(manifest)
    if stored is None:
        return "in int8 everything is taken to be so; the bundle has no such form yet: edgeco build --precision int8"
    left = len(manifest.histories) - len(stored)
    return f"in int8 every layer is taken to be so; {left} of {len(manifest.histories)} histories of the form are FP16"


def _size(manifest: Manifest, precision: Precision, history: History) -> int:
    """Bytes of a number of a history."""
    stored = _quantised(manifest) if precision == "int8" else None
    return SIZES["fp16"] if stored is not None and history.name not in stored else SIZES[precision]


def _copies(manifest: Manifest) -> list[Layer]:
    """The copies that a runner does after a step, one kernel per history: slots and carries need none."""
    stride = manifest.timeline.stride
    found = []
    for history in manifest.histories:
        places = {"ring": 1, "mirror": 2}.get(history.storage, 0)
        if places:
            count, name = _elements(history), f"copy to {history.storage}"
            steps = tuple(range(history.phase, stride, history.rate))
            found.append(Layer(op=name, macs=0, reads=count, writes=places * count, weights=0, steps=steps))
    return found


def _elements(history: History) -> int:
    return history.rows_per_stream * math.prod(history.shape)


def _kernel(layer: Layer, precision: Precision, streams: int, rate: float, bandwidth: float, launch: float) -> Kernel:
    macs = layer.macs * streams
    size = SIZES[precision] * ((layer.reads + layer.writes) * streams + layer.weights)
    compute, memory = 2 * macs / rate, size / bandwidth
    floors = {"launch": launch, "memory": memory, "compute": compute}
    bound = max(floors, key=lambda name: floors[name])
    return Kernel(layer.op, macs, size, compute, memory, floors[bound], bound, len(layer.steps))


def _floor(
    manifest: Manifest,
    profile: Profile,
    precision: Precision,
    streams: int,
    layers: Sequence[Layer],
    kernels: Sequence[Kernel],
) -> Floor:
    stride = manifest.timeline.stride
    of_step, shares = [0.0] * stride, {"compute": 0.0, "memory": 0.0, "launch": 0.0}
    for layer, kernel in zip(layers, kernels, strict=True):
        shares[kernel.bound] += kernel.floor * len(layer.steps) / stride
        for step in layer.steps:
            of_step[step] += kernel.floor
    mean = sum(of_step) / stride
    kept = sum(_size(manifest, precision, h) * h.buffers * _elements(h) for h in manifest.histories)
    memory = kept * streams + SIZES[precision] * sum(layer.weights for layer in layers)
    fits = None if profile.memory is None else memory <= profile.memory.value * 1e9
    whole = sum(shares.values()) or 1.0
    split = {name: share / whole for name, share in shares.items()}
    return Floor(precision, streams, mean, max(of_step), streams / mean if mean else math.inf, memory, fits, split)


def doublings(most: int) -> tuple[int, ...]:
    """1, 2, 4, … up to a number of streams, which is the last.

    Example:
        >>> doublings(6), doublings(1)
        ((1, 2, 4, 6), (1,))
    """
    return (*(2**power for power in range(most.bit_length()) if 2**power < most), most)
