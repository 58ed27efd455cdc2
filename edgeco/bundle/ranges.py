"""The ranges of a network's tensors and histories, as a calibration saw them: the member ``ranges.json``.

Records and their strict reading are here, where the run side can show them; how they are found is in
``edgeco.calibration``. ``docs/calibration.md`` describes the document.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

import msgspec
import numpy as np

from edgeco.bundle.limits import MAX_NAME, MAX_RANGES
from edgeco.bundle.manifest import Count, Record, Size
from edgeco.bundle.text import parse_json, shown
from edgeco.errors import BundleError, CalibrationError

RANGES = "ranges.json"
"""Name of the member, and of the document in messages."""

Method = Literal["max", "entropy", "percentile", "mse"]
Magnitude = Annotated[float, msgspec.Meta(ge=0)]
_GREATEST = float(np.finfo(np.float32).max)
_HASH = re.compile(r"[0-9a-f]{64}")
LEVELS = 127
"""Steps of INT8 on either side of zero."""


class Graphs(Protocol):
    """What an export and a bundle's variant have in common: graphs, which is due when, and their weights."""

    @property
    def graphs(self) -> Sequence[bytes]: ...

    @property
    def schedule(self) -> Sequence[int | None]: ...

    @property
    def weights(self) -> Mapping[str, np.ndarray[Any, Any]]: ...


class TensorRange(Record, frozen=True):
    """What one tensor, or one history, was seen to hold."""

    low: float
    high: float
    """Least and greatest number seen; of a history its border too, if that is a number like others."""
    amax: Magnitude
    """Magnitude up to which numbers are told apart in INT8, chosen by ``method``; 0 of a dead tensor, always 0."""
    method: Method
    count: Count
    """Numbers seen."""
    limit: Magnitude = 0.0
    """Upper end of the histogram: a power of two above every magnitude; 0 where there is none."""
    histogram: tuple[Count, ...] = ()
    """How many magnitudes fell into each of equal intervals from 0 to ``limit``."""
    absent: Count = 0
    """Numbers left out because they stand for nothing: of minus infinity behind a mask, or before a maximum."""
    border: float | None = None
    """Of a history: what lies before its first element, as the manifest has it."""
    channels: tuple[tuple[float, float], ...] = ()
    """Of a history whose elements have axes: the least and greatest number of each place of the first of them."""

    @property
    def peak(self) -> float:
        """The greatest magnitude seen."""
        return max(-self.low, self.high, 0.0)

    @property
    def dead(self) -> bool:
        """Whether the tensor was never anything but 0."""
        return self.amax == 0.0

    @property
    def scale(self) -> float:
        """One step of symmetric INT8: ``amax`` / 127, and 1 / 127 for a dead tensor, so that it can be divided by."""
        return (self.amax or 1.0) / LEVELS


class Ranges(Record, frozen=True):
    """The ranges of one network over one set of data.

    ``tensors`` are those of the FP32 step graphs by ``tensor_key``; where several graphs compute the same thing, each
    key has the range of all of them. The tensor that a history writes, and those by which it is read, have the
    history's own range.
    """

    model: str
    """sha256 of the FP32 graphs and weights (``model_hash``)."""
    data: str
    """sha256 of the frames as the network took them, stream by stream."""
    frames: Count
    streams: Size
    reset: Size | None
    """Frames after which a stream was reset, as on the device; None: never."""
    method: Method
    tensors: dict[str, TensorRange]
    histories: dict[str, TensorRange]
    percentile: float | None = None
    """Share of magnitudes kept, in percent, by the method of that name."""
    sources: tuple[str, ...] = ()
    """What was read, for people; without folders and secrets."""
    version: Size = 1

    def of(self, name: str, graph: int = 0) -> TensorRange:
        """The range of a tensor of one of the graphs.

        Raises:
            CalibrationError: it was not observed.
        """
        found = self.tensors.get(tensor_key(name, graph))
        if found is None:
            raise CalibrationError(
                f"The ranges say nothing of the tensor {shown(name)} of graph {graph}; calibrate again with it."
            )
        return found

    def check_model(self, exported: Graphs) -> None:
        """Refuse ranges that are not of these graphs and weights.

        Raises:
            CalibrationError: they are of another network, or of the same one with other weights.
        """
        own = model_hash(exported)
        if own != self.model:
            raise CalibrationError(
                f"These ranges are of another network ({self.model[:12]}, this one is {own[:12]}); ranges hold for one "
                "network with its weights only: calibrate this one."
            )

    def to_json(self) -> bytes:
        """JSON, tensors in the order of the graph; ``from_json`` is its inverse."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes | memoryview, where: str = RANGES) -> Ranges:
        """The inverse of ``to_json``, strictly.

        Args:
            data: UTF-8 JSON.
            where: what it is, for messages.

        Raises:
            BundleError: too large, not strict JSON, a field missing, unknown, mistyped or out of its range.
        """
        return read_ranges(data, where)


def tensor_key(name: str, graph: int = 0) -> str:
    """The key of a tensor in ``Ranges.tensors``: its name; in the second graph and those after it with their number.

    Graphs of a network that strides in time are numbered in the order in which they are first due. Each numbers its
    tensors by itself, so that one name may stand for different tensors.

    Example:
        >>> tensor_key("conv_3"), tensor_key("conv_3", 1)
        ('conv_3', 'conv_3@1')
    """
    return name if graph == 0 else f"{name}@{graph}"


def model_hash(exported: Graphs) -> str:
    """The sha256 (hex) of what the graphs compute: those due in each step in turn, and all weights by name."""
    digest = hashlib.sha256(b"edgeco model\0")
    for number in exported.schedule:
        digest.update(hashlib.sha256(b"" if number is None else exported.graphs[number]).digest())
    for name, array in sorted(exported.weights.items()):
        little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"\0{name}\0{array.dtype.name}\0{array.shape}\0".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


def read_ranges(data: bytes | memoryview, where: str = RANGES) -> Ranges:
    """Ranges from JSON, strictly.

    Raises:
        BundleError: too large, not strict JSON, a field missing, unknown, mistyped or out of its range.
    """
    if len(data) > MAX_RANGES:
        raise BundleError(f"{where} has {len(data)} bytes; the limit is {MAX_RANGES}.")
    try:
        ranges = msgspec.convert(parse_json(data, where), Ranges)
    except msgspec.ValidationError as error:
        raise BundleError(f"{where} is no list of ranges: {ascii(str(error)[:300])[1:-1]}.") from None
    _check(ranges, where)
    return ranges


def _check(ranges: Ranges, where: str) -> None:
    if ranges.version != 1:
        raise BundleError(f"{where} is of version {ranges.version} and this edgeco reads version 1; upgrade edgeco.")
    for digest in (ranges.model, ranges.data):
        if not _HASH.fullmatch(digest):
            raise BundleError(f"{where} has a hash that is no sha256: {shown(digest)}.")
    for name, found in (*ranges.tensors.items(), *ranges.histories.items()):
        if not (0 < len(name) <= MAX_NAME + 8 and name.isprintable()):
            raise BundleError(f"{where} names a tensor {shown(name)}, which is empty, too long or not printable.")
        wrong = _wrong(found)
        if wrong is not None:
            raise BundleError(f"{where} does not hold together at {shown(name)}: {wrong}.")


def _wrong(found: TensorRange) -> str | None:
    if max(abs(found.low), abs(found.high)) > _GREATEST:
        return "it holds numbers beyond those of FP32"
    if found.low > found.high:
        return f"its least number {found.low} is above its greatest {found.high}"
    if found.amax > found.peak:
        return f"its amax {found.amax} is above every number seen"
    if found.peak > 0 and found.amax == 0:
        return f"its amax is 0, and {found.peak} was seen"
    if found.histogram and not found.limit > found.peak:
        return f"its histogram ends at {found.limit}, and {found.peak} was seen"
    if sum(found.histogram) > found.count:
        return "its histogram counts more numbers than were seen"
    for low, high in found.channels:
        if not found.low <= low <= high <= found.high:
            return f"one of its channels goes from {low} to {high}, where {found.low} to {found.high} was seen"
    return None
