"""What is known of a device, as typed, frozen records; read from the TOML files of this package by ``catalogue``.

A figure says on what it rests. One that is not known is absent: nothing is guessed, and what needs it says so.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Precision = Literal["fp32", "fp16", "int8", "fp8", "fp4"]
Basis = Literal["vendor", "derived", "bound", "unchecked"]
VersionText = Annotated[str, msgspec.Meta(pattern=r"^\d+(\.\d+){0,3}$")]

BASES: dict[str, str] = {
    "vendor": "stated by the vendor",
    "derived": "follows from a stated figure",
    "bound": "an upper bound",
    "unchecked": "general knowledge, not checked again",
}
"""What each basis of a figure means."""

FAMILIES = {"jetson": "Jetson", "desktop": "GPU of a desktop or server", "cpu": "processor"}


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the records of a profile: immutable, strict."""


class Figure(Record, frozen=True):
    """A number and what it rests on; ``note`` says how it was derived, or what it includes."""

    value: Annotated[float, msgspec.Meta(gt=0)]
    basis: Basis
    note: str = ""


class Range(Record, frozen=True):
    """Versions from ``first`` to ``last``, both included; None where an end is not known."""

    first: VersionText | None = None
    last: VersionText | None = None


class Profile(Record, frozen=True):
    """One device, or a series of alike ones.

    ``memory`` is in GB, ``bandwidth`` in GB/s, ``rates`` in 10^12 dense operations a second (a multiply-accumulate is
    two) by precision.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    title: str
    family: Literal["jetson", "desktop", "cpu"]
    precisions: tuple[Precision, ...]
    """What it computes in, as far as a network gains by it."""
    aliases: tuple[str, ...] = ()
    compatible: tuple[str, ...] = ()
    """Entries of the device tree's ``compatible`` that name it."""
    gpu_names: tuple[str, ...] = ()
    """Names its driver gives it, with ``*`` for any end; the longest that fits decides."""
    compute_capability: Annotated[str, msgspec.Meta(pattern=r"^\d+\.\d$")] | None = None
    memory: Figure | None = None
    shared_memory: bool = False
    """The GPU's memory is the processor's."""
    bandwidth: Figure | None = None
    rates: dict[Precision, Figure] = {}
    jetpack: Range | None = None
    """Versions that the vendor has for it."""
    tensorrt: Range | None = None
    """Versions that edgeco can use on it."""
    dla: Annotated[int, msgspec.Meta(ge=0)] = 0
    workspace: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """MiB that a compilation should take at most; None for what TensorRT takes by itself."""
    optimisation_level: Annotated[int, msgspec.Meta(ge=0, le=5)] | None = None
    """How long a compilation should search, from TensorRT 8.6 on; None for TensorRT's own level."""
    unsupported: str | None = None
    """Why edgeco does not run on it."""
    notes: tuple[str, ...] = ()

    @property
    def unknown(self) -> tuple[str, ...]:
        """The figures that are not known of it."""
        figures = {"memory": self.memory, "bandwidth": self.bandwidth}
        missing = [name for name, figure in figures.items() if figure is None]
        missing += [f"{precision} rate" for precision in self.precisions if precision not in self.rates]
        return tuple(missing)


def version(text: str) -> tuple[int, ...]:
    """A dotted version as numbers, to be compared: "10.3.0" is (10, 3, 0). What is no number ends it.

    Example:
        >>> version("10.16.1.11") > version("10.3"), version("8.6.2b1")
        (True, (8, 6))
    """
    numbers = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def within(text: str, limits: Range) -> bool:
    """Whether a version lies in a range, compared to as many places as the range gives: 10.16.2 is within …10.16."""
    given = version(text)
    first, last = (version(end) if end is not None else None for end in (limits.first, limits.last))
    return (first is None or given[: len(first)] >= first) and (last is None or given[: len(last)] <= last)
