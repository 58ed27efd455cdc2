"""The gate: what it must find, and what it must let pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from quant_nets import Mobile, calibrated, recording_of

from edgeco.bundle.manifest import Manifest
from edgeco.calibration.drift import LEAST_COSINE, Limits, check_drift, drift_stream, drifts
from edgeco.calibration.half_drift import with_half_drift
from edgeco.errors import CheckFailed
from edgeco.export.tensorrt_forms import HALF, tensorrt_forms

Array = np.ndarray


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    torch.manual_seed(0)
    return calibrated(Mobile())[1]


def remembered(stream: Array, keeps: float, step: float, down: bool = False) -> Array:
    """Answers of a network whose history keeps a share of itself, held on a grid after every step; 0: on none."""
    given = stream.reshape(len(stream), -1)[:, :5].astype(np.float64)
    state, made = np.zeros(5), []
    for frame in given:
        state = keeps * state + (1 - keeps) * (1 + 0.3 * frame)
        if step:
            state = (np.floor if down else np.rint)(state / step) * step
        made.append(state.copy())
    return np.stack(made).astype(np.float32)


@pytest.mark.parametrize("down", [False, True], ids=["nearest", "down"])
def test_rounding_that_stays_in_a_history_is_found(manifest: Manifest, down: bool) -> None:
    """A history that is rounded in every step and forgets next to nothing: each single error is far too small to be
    seen in the cosine, and what is found is that they add up."""
    stream = drift_stream(recording_of(manifest, 200, 3), manifest)
    name, keeps = manifest.outputs[0].name, 1 - 1e-5
    expected = {name: 1 + remembered(stream, keeps, 0.0)}
    leaking = {name: 1 + remembered(stream, keeps, 2e-5 if down else 1e-5, down)}
    (found,) = drifts(manifest, expected, leaking)
    assert found.cosine > 0.999 and found.last > found.second * 1.5
    with pytest.raises(CheckFailed, match="its error grows"):
        check_drift("int8", [found], Limits(), "")


def test_rounding_that_is_forgotten_is_let_pass(manifest: Manifest) -> None:
    """The same rounding, greater a thousand times, where the history forgets within a few steps: it does not grow."""
    stream = drift_stream(recording_of(manifest, 200, 3), manifest)
    name = manifest.outputs[0].name
    given = {step: {name: remembered(stream, 0.5, step)} for step in (0.0, 1e-2)}
    (found,) = drifts(manifest, given[0.0], given[1e-2])
    assert 1e-3 < found.mean_error < 0.05 and 0.8 < found.growth < 1.2
    check_drift("int8", [found], Limits(), "")


def test_what_happens_in_a_recording_is_no_growth(manifest: Manifest) -> None:
    """Where the errors of a form follow the frames, as loud parts do, every tenth sees the same, and none grows."""
    frames = recording_of(manifest, 200, 3) * np.linspace(0.2, 3, 200).reshape(-1, *[1] * len(manifest.inputs[0].shape))
    stream = drift_stream(frames.astype(np.float32), manifest)
    answers = stream.reshape(len(stream), -1)[:, :5]
    name = manifest.outputs[0].name
    (found,) = drifts(manifest, {name: np.ones_like(answers)}, {name: 1 + 0.01 * np.abs(answers)})
    assert found.growth == pytest.approx(1, abs=0.1)


def test_an_answer_that_turns_away_once_counts(manifest: Manifest) -> None:
    stream = drift_stream(recording_of(manifest, 60, 3), manifest)
    name = manifest.outputs[0].name
    right = np.ones((len(stream), 5), np.float32)
    turned = right.copy()
    turned[manifest.timeline.valid_from + 30] += np.array([0.35, -0.35, 0, 0, 0])
    (found,) = drifts(manifest, {name: right}, {name: turned})
    assert LEAST_COSINE < found.cosine < 0.99
    check_drift("int8", [found], Limits(), "")
    with pytest.raises(CheckFailed, match=r"below 0\.99"):
        check_drift("int8", [found], Limits(cosine=0.99), "")


def test_half_precision_is_followed_as_far_as_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """FP16's drift is measured over ten receptive fields and told; one that grows is refused."""
    torch.manual_seed(0)
    exported, manifest, _ = calibrated(Mobile())
    frames = recording_of(manifest, 60, 3)
    forms = tensorrt_forms(exported, manifest, frames[:4], 1e-4)
    told = {form.name: form.told for form in with_half_drift(forms, exported, manifest, frames)}
    (drift,) = told[HALF]["drift"]
    assert drift["steps"] >= 10 * manifest.timeline.receptive_field and drift["growth"] < 1.2
    with pytest.raises(CheckFailed, match=f"form {HALF} drifts .* its error grows"):
        with_half_drift(forms, exported, manifest, frames, limits=Limits(growth=0.0))
