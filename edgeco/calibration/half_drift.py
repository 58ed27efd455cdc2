"""How far FP16 drifts from FP32 over the same long stream that INT8 is held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgeco.bundle.manifest import Manifest
from edgeco.calibration.drift import Limits, check_drift, drift_stream, drifts
from edgeco.export.check import rollout
from edgeco.export.exported import Exported
from edgeco.export.tensorrt_forms import Form

REMEDY = "Build without TensorRT's forms, or train the network for FP16."


def with_half_drift(
    forms: Sequence[Form],
    exported: Exported,
    manifest: Manifest,
    frames: np.ndarray[Any, Any],
    limits: Limits | None = None,
) -> list[Form]:
    """The forms, with the drift of those that a processor shows by graphs that round like them.

    Args:
        forms: for TensorRT.
        exported: the FP32 graphs.
        manifest: what describes them.
        frames: a recording, (steps, *shape) as the network takes them.
        limits: beyond which a form is refused.

    Raises:
        CheckFailed: a form drifts further from FP32 than it may, or its error grows with the stream.
    """
    if all(form.rounded is None for form in forms):
        return list(forms)
    stream = drift_stream(frames, manifest)
    expected = rollout(exported.phases(), manifest, stream)
    made = []
    for form in forms:
        if form.rounded is not None:
            found = drifts(manifest, expected, rollout(form.rounded.phases(), manifest, stream))
            check_drift(form.name, found, limits or Limits(), REMEDY)
            form = replace(form, told={**form.told, "drift": [drift.to_json() for drift in found]})
        made.append(form)
    return made
