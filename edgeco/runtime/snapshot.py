"""A stream's past as safetensors bytes, in an order that knows nothing of phases, engines or storages.

One tensor per history, (depth, rows * rows_per_stream, *shape), oldest element first. The metadata, one JSON object
under the key ``edgeco-snapshot``, binds it to the network (sha256 of its manifest), the variant, the rows and the step,
and holds a digest over all of these and every tensor, for safetensors itself has none. Equal pasts give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edgeco.errors import BundleError, SpecError

KEY = "edgeco-snapshot"
"""All metadata stand under one key, because safetensors writes several in random order."""
VERSION = 1


@dataclass(frozen=True)
class Identity:
    """What a snapshot belongs to."""

    bundle: str
    variant: str
    rows: int


def write_snapshot(identity: Identity, steps: int, past: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """Serialize what ``Session.past`` gave after ``steps`` steps."""
    record: dict[str, Any] = {"version": VERSION, **asdict(identity), "steps": steps}
    record["digest"] = _digest(record, past)
    arrays = {name: np.ascontiguousarray(array) for name, array in past.items()}
    return save(arrays, metadata={KEY: json.dumps(record, sort_keys=True)})


def read_snapshot(data: bytes, identity: Identity) -> tuple[int, dict[str, np.ndarray[Any, Any]]]:
    """The steps and the past of a snapshot.

    Raises:
        SpecError: not bytes.
        BundleError: damaged, of a newer version, or of another network, variant or number of rows.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise SpecError(f"a snapshot is bytes, not {type(data).__name__}")
    data = bytes(data)
    record = _record(data)
    if record.get("version") != VERSION:
        raise BundleError(f"the snapshot is of version {record.get('version')}, and this release reads {VERSION}")
    try:
        past = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BundleError(f"the snapshot is damaged: {error}") from error
    digest = record.pop("digest", None)
    if digest != _digest(record, past):
        raise BundleError("the snapshot is damaged: its digest does not match its contents")
    for what, own, given in (
        ("network", identity.bundle, record.get("bundle")),
        ("variant", identity.variant, record.get("variant")),
        ("number of rows", identity.rows, record.get("rows")),
    ):
        if own != given:
            raise BundleError(f"the snapshot is of another {what}: {given}, where this stream has {own}")
    steps = record.get("steps")
    if type(steps) is not int or steps < 0:
        raise BundleError(f"the snapshot is damaged: it says it was taken after {steps} steps")
    return steps, past


def _record(data: bytes) -> dict[str, Any]:
    """The metadata, which safetensors' reader of bytes does not give."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > len(data) - 8:
        raise BundleError("these bytes are no snapshot of a stream, or only the beginning of one")
    try:
        record = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][KEY])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError("these bytes are no snapshot of a stream") from error
    if not isinstance(record, dict):
        raise BundleError("these bytes are no snapshot of a stream")
    return record


def _digest(record: Mapping[str, Any], past: Mapping[str, np.ndarray[Any, Any]]) -> str:
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name in sorted(past):
        array = past[name]
        digest.update(json.dumps([name, str(array.dtype), array.shape]).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
