"""How far FP16 drifts from FP32 over the same long stream that INT8 is held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgeco.bundle.manifest import Manifest
from edgeco.calibration.drift import drift_stream, drifts
from edgeco.export.check import rollout
from edgeco.export.exported import Exported
from edgeco.export.tensorrt_forms import Form


def with_half_drift(
    forms: Sequence[Form], exported: Exported, manifest: Manifest, frames: np.ndarray[Any, Any]
) -> list[Form]:
    """The forms, with the drift of those that a processor shows by graphs that round like them.

    It is told and not judged: that FP16 computes the same was judged when the form was written, and its error is so
    small that the growth of it says little.

    Args:
        forms: for TensorRT.
        exported: the FP32 graphs.
        manifest: what describes them.
        frames: a recording, (steps, *shape) as the network takes them.
    """
    if all(form.rounded is None for form in forms):
        return list(forms)
    stream = drift_stream(frames, manifest)
    expected = rollout(exported.phases(), manifest, stream)
    made = []
    for form in forms:
        if form.rounded is not None:
            found = drifts(manifest, expected, rollout(form.rounded.phases(), manifest, stream))
            form = replace(form, told={**form.told, "drift": [drift.to_json() for drift in found]})
        made.append(form)
    return made
