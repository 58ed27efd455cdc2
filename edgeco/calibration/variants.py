"""INT8 in a bundle: which forms for which device, what they are compared on, and a bundle written anew with them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import save

from edgeco.bundle import Bundle, write_bundle
from edgeco.bundle.contents import REPORT
from edgeco.bundle.manifest import Manifest, Variant
from edgeco.bundle.ranges import RANGES, Ranges
from edgeco.calibration.forms import NAMES, Target
from edgeco.calibration.recordings import Array, Recording
from edgeco.calibration.speed import preferred
from edgeco.export.tensorrt_forms import Form, form_members

SHORTEST = 256
"""Frames that are wanted to compare forms on, where a recording has so many."""
LOOKED_AT = 12
"""Recordings of which the longest is taken where none has so many."""

_EXACT = "fp32"


def targets_for(typings: Collection[str] | None, tensorrt: bool) -> tuple[Target, ...]:
    """What INT8 is written for.

    Args:
        typings: those of the device that was named (``cpu``, ``weak``, ``strong``), None if none was.
        tensorrt: whether forms for TensorRT are wanted where no device was named.
    """
    wanted: dict[str, Target] = {"cpu": "cpu", "weak": "trt-weak", "strong": "trt-strong"}
    if typings is None:
        return ("cpu", "trt-weak", "trt-strong") if tensorrt else ("cpu",)
    return tuple(target for typing, target in wanted.items() if typing in typings)


def targets_in(bundle: Bundle) -> tuple[Target, ...]:
    """What a bundle has INT8 forms for."""
    return tuple(target for target, name in NAMES.items() if name in bundle.manifest.variants)


def frames_to_compare(manifest: Manifest, recordings: Sequence[Recording], otherwise: Array) -> Array:
    """Frames of a recording, (frames, *shape), for statistics and comparisons: the first with so many as are wanted.

    Where none of the first few has, it is the longest of them: one after another they would jump from end to
    beginning, which no stream does and no calibration has seen.

    Args:
        manifest: of a network of one input.
        recordings: read from their beginning; live ones are left out unless what they gave is held.
        otherwise: taken where there is no other.
    """
    name = manifest.inputs[0].name
    wanted = max(SHORTEST, manifest.timeline.valid_from + 2 * manifest.timeline.receptive_field)
    best: list[Array] = []
    for recording in islice((one for one in recordings if one.held or not one.live), LOOKED_AT):
        taken = [np.array(frame[name]) for frame in islice(recording.frames(), wanted)]
        best = max(best, taken, key=len)
        if len(best) == wanted:
            break
    return np.stack(best) if best else otherwise


def kept_float(bundle: Bundle) -> tuple[str, ...]:
    """What the INT8 forms of a bundle leave in float because it was asked for, or chosen to keep a budget."""
    told = (bundle.report() or {}).get("forms") or {}
    names = [name for form in NAMES.values() for name in (told.get(form) or {}).get("kept_float") or ()]
    return tuple(dict.fromkeys(names))


def rewritten(bundle: Bundle, ranges: Ranges, summary: dict[str, Any], forms: Sequence[Form], target: Path) -> None:
    """Write a bundle with all that another holds, and with ranges and the forms made from them in place of older ones.

    Raises:
        WriteError: the file cannot be written.
    """
    manifest = bundle.manifest
    shared = manifest.variants[_EXACT].weights
    described, content = form_members(manifest, forms, shared)
    variants = {name: kept for name, kept in manifest.variants.items() if name not in described} | described
    used = _members_of(variants.values())
    left = _members_of(manifest.variants.values()) - used
    members = {name: bundle.read(name) for name in manifest.members if name not in left}
    members |= {name: data if isinstance(data, bytes) else save(data) for name, data in content.items()}
    members[RANGES] = ranges.to_json()
    report = bundle.report()
    if report is not None:
        told = {"calibration": summary} | described_forms(forms, report)
        members[REPORT] = json.dumps({**report, **told}, indent=1).encode()
    chosen = manifest.preferred | preferred(forms)
    write_bundle(target, msgspec.structs.replace(manifest, variants=variants, preferred=chosen), members)


def described_forms(forms: Sequence[Form], report: dict[str, Any] | None = None) -> dict[str, Any]:
    """What a build report says of forms, beside what it said of others."""
    before = report or {}
    if not forms:
        return {}
    return {
        "drifts": {**(before.get("drifts") or {}), **{form.name: form.drift for form in forms}},
        "forms": {**(before.get("forms") or {}), **{form.name: form.told for form in forms if form.told}},
    }


def _members_of(variants: Collection[Variant]) -> set[str]:
    return {name for variant in variants for name in (*variant.graphs, variant.weights) if name}
