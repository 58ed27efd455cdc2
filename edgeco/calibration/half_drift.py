"""How FP16 drifts from FP32 over a long stream: the form for TensorRT, simulated where processors have no FP16."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgeco.bundle.manifest import Manifest
from edgeco.calibration.drift import Limits, check_drift, drift_stream, drifts
from edgeco.export.check import rollout
from edgeco.export.exported import Exported
from edgeco.export.opset17 import opset17
from edgeco.export.tensorrt_forms import HALF, Form, half_form

Array = np.ndarray[Any, Any]


def with_half_drift(
    forms: Sequence[Form],
    exported: Exported,
    manifest: Manifest,
    frames: Array,
    beyond: Collection[str] = (),
    limits: Limits | None = None,
) -> list[Form]:
    """Forms of which that in FP16 is compared with FP32 over at least ten receptive fields, and says its drift.

    Args:
        forms: as ``tensorrt_forms`` makes them.
        exported: the FP32 graphs.
        manifest: what describes them.
        frames: a recording, (steps, *shape) as the network takes them.
        beyond: tensors that leave FP16's range, as were given to ``tensorrt_forms``.
        limits: beyond which the form is refused.

    Raises:
        CheckFailed: it drifts further from FP32 than it may, or its error grows with the stream.
    """
    _, rounded = half_form(exported, [opset17(graph) for graph in exported.graphs], manifest, beyond)
    stream = drift_stream(frames, manifest)
    found = drifts(manifest, rollout(exported.phases(), manifest, stream), rollout(rounded.phases(), manifest, stream))
    check_drift(HALF, found, limits or Limits(), "Build without --tensorrt, or train the network for FP16.")
    told = {"drift": [drift.to_json() for drift in found]}
    return [replace(form, told={**form.told, **told}) if form.name == HALF else form for form in forms]
