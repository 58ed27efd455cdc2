"""A form's tolerance holds at the golden frames too, which may lie beyond what was calibrated on."""

from __future__ import annotations

import numpy as np
import torch
from quant_nets import Mobile, calibrated, recording_of

from edgeco.calibration.forms import measured, prepare, quantised_form, quantised_forms
from edgeco.export.check import rollout


def test_what_a_form_differs_by_at_the_golden_frames_is_within_its_tolerance() -> None:
    torch.manual_seed(0)
    exported, manifest, ranges = calibrated(Mobile())
    frames = recording_of(manifest, 60, 3)
    golden = 6 * np.random.default_rng(7).standard_normal((40, *frames.shape[1:])).astype(np.float32)
    prepared = prepare(exported, manifest, ranges, frames)
    _, runs = quantised_form(prepared, "trt-weak")
    for held, covered in ((None, False), (golden, True)):
        forms = quantised_forms(exported, manifest, ranges, frames, targets=("trt-weak",), golden=held)
        right = rollout(exported.phases(), manifest, golden)
        off = max(drift.error for drift in measured(runs, prepared.manifest, forms[0], golden, right))
        assert (off <= forms[0].tolerance) == covered
        assert forms[0].drift < off  # the drift told is that of what it was calibrated for
