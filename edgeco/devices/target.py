"""What a network is built for: the precision and the typings that suit a device, and what it cannot do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from edgeco.bundle.manifest import Manifest
from edgeco.devices.profile import Precision, Profile, Range, Record, version
from edgeco.errors import SpecError

Typing = Literal["weak", "strong", "cpu"]
STRONG = (10, 12)
"""The first TensorRT whose precision is all in the graph; before, its flags set it."""
OPSETS = {(8, 6): 17}
"""Newest operator set that a TensorRT reads, where it is older than the exporter's."""
OPSET = 20
"""The operator set that the exporter writes, which TensorRT reads from 10.0 on."""

_TAKEN_FROM = {"int8": "7.2", "fp8": "8.9", "fp4": "10.0"}
"""Compute capability from which tensor cores take a precision."""


class Target(Record, frozen=True):
    """What a build for a device aims at; kept in the manifest's provenance.

    ``precision`` is the one to run unless told, ``typings`` the forms of the graph that its versions of TensorRT take,
    ``opset`` the newest operator set that all of them read.
    """

    device: str
    precision: Precision
    precisions: tuple[Precision, ...]
    typings: tuple[Typing, ...]
    tensorrt: Range | None
    compute_capability: str | None
    opset: int


def target_of(profile: Profile, precisions: Iterable[str] = ()) -> Target:
    """What to build for a device.

    Args:
        profile: the device.
        precisions: what was asked for; each must be within its means.

    Raises:
        SpecError: the device is not supported, or cannot compute in a precision.
    """
    if profile.unsupported is not None:
        raise SpecError(f"Nothing can be built for {profile.title}: {profile.unsupported}.")
    for asked in precisions:
        if asked not in profile.precisions:
            raise SpecError(_refusal(profile, asked))
    limits = profile.tensorrt
    # FP16 is the default on GPUs: INT8 must be asked for, since it has to pass its gate and is not always faster.
    precision: Precision = "fp16" if limits is not None and "fp16" in profile.precisions else "fp32"
    return Target(
        device=profile.name,
        precision=precision,
        precisions=profile.precisions,
        typings=_typings(limits),
        tensorrt=limits,
        compute_capability=profile.compute_capability,
        opset=_opset(limits),
    )


def _refusal(profile: Profile, asked: str) -> str:
    named = ", ".join(profile.precisions)
    if profile.family == "cpu" or asked not in _TAKEN_FROM:
        return f"{profile.title} does not compute in {asked}; choose among {named}."
    return (
        f"{profile.title} does not compute in {asked}, which takes compute capability {_TAKEN_FROM[asked]} and "
        f"it has {profile.compute_capability}; choose among {named}."
    )


def _typings(limits: Range | None) -> tuple[Typing, ...]:
    if limits is None:
        return ("cpu",)
    found: list[Typing] = []
    if limits.first is not None and version(limits.first) < STRONG:
        found.append("weak")
    if limits.last is None or version(limits.last) >= STRONG:
        found.append("strong")
    return tuple(found)


def _opset(limits: Range | None) -> int:
    if limits is None or limits.first is None:
        return OPSET
    return min([OPSET, *(opset for number, opset in OPSETS.items() if version(limits.first)[:2] <= number)])


def check_fits(profile: Profile, manifest: Manifest) -> None:
    """Raises SpecError where the weights and the states of one stream are larger than a device's memory."""
    needed = 4 * manifest.costs.parameters + manifest.costs.state_bytes
    if profile.memory is not None and needed > profile.memory.value * 1e9:
        raise SpecError(
            f"{manifest.name} needs {needed / 1e9:.1f} GB for its weights and the states of one stream, and "
            f"{profile.title} has {profile.memory.value:g} GB; make the network or its frames smaller."
        )
