"""INT8 of networks that strain its placement, an integer oracle, and random networks held to a bound by their noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
from engine_parity import exported
from hypothesis import HealthCheck, given, settings
from quant_nets import calibrated, recording_of
from random_nets import EXAMPLES, RandomNet, clip_of, random_nets
from strained_nets import Below, Dense, SharedWeight, Widened
from streaming import randomise_norms
from torch import nn

from edgeco.bundle.manifest import Manifest
from edgeco.calibration import placement
from edgeco.calibration.drift import drift_stream
from edgeco.calibration.forms import Prepared, described, measured, prepare, quantised_form
from edgeco.calibration.recordings import recorded
from edgeco.calibration.rollout import observe
from edgeco.export.check import rollout
from edgeco.export.package import manifest_of
from edgeco.spec import BuildSpec

Array = np.ndarray


def prepared(kind: Callable[[], nn.Module]) -> Prepared:
    torch.manual_seed(3)
    exported_, manifest, ranges = calibrated(kind())
    return prepare(exported_, manifest, ranges, recording_of(manifest, manifest.timeline.valid_from + 80, 1))


@pytest.mark.parametrize("kind", [SharedWeight, Widened, Below], ids=lambda kind: kind.__name__)
def test_a_network_that_strains_the_placement_errs_by_rounding_alone(kind: Callable[[], nn.Module]) -> None:
    made = prepared(kind)
    stream = drift_stream(made.frames, made.manifest)
    expected = rollout(made.source.phases(), made.manifest, stream)
    for target in ("cpu", "trt-weak", "trt-strong"):
        form, runs = quantised_form(made, target)
        assert form.told["layers"] >= 2 and form.histories
        for drift in measured(runs, made.manifest, form, stream, expected):
            assert drift.cosine > 0.999 and drift.mean_error < 0.02 and drift.growth < 1.2, (target, drift)


def test_a_layer_in_int8_is_what_integers_give() -> None:
    """q = clip(round(sum w (x - z) + b) s + z): within one code of what ONNX Runtime's kernels write into a history."""
    made = prepared(Dense)
    form, _ = quantised_form(made, "cpu")
    stored, weights = form.histories, form.exported.weights
    model = form.exported.model(0)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng, entry, made_by = np.random.default_rng(0), made.manifest.inputs[0].name, stored["h001"]
    given_, seen = stored["h000"], set[int]()
    for step in range(5):
        feeds = {}
        for value in session.get_inputs():
            shape = [size if isinstance(size, int) else 1 for size in value.shape]
            codes = rng.integers(0, 256, shape).astype(np.uint8)
            feeds[value.name] = codes if value.type == "tensor(uint8)" else np.zeros(shape, np.float32)
        feeds[entry] = made.frames[step][None] * np.float32(1.5)  # beyond the range at places
        codes = np.clip(np.rint(feeds[entry] / np.float32(given_.scale)) + given_.zero_point, 0, 255)
        window = np.concatenate([feeds["h000_a1"], codes], axis=1).astype(np.int64)[0] - given_.zero_point
        sums = np.einsum("oc,chw->ohw", weights["w001_taps_codes"][:, :, 0, 0].astype(np.int64), window)
        sums += weights["conv_2_bias_codes"].astype(np.int64)[:, None, None]
        scales = weights["w001_taps_scales"].astype(np.float64)[:, None, None] * given_.scale / made_by.scale
        wanted = np.clip(np.rint(sums * scales) + made_by.zero_point, 0, 255)
        written, kept = session.run(["h001_new", "h000_new"], feeds)
        assert written.dtype == np.uint8 and np.abs(written[0].astype(int) - wanted).max() <= 1
        assert np.array_equal(kept, codes), "the element that later steps read is what this step has read"
        seen.update(np.unique(written).tolist())
    assert len(seen) > 100


def _noise(manifest: Manifest, right: dict[str, Array], other: dict[str, Array]) -> float:
    """Root mean square of a difference, relative to that of the answers; the greatest of all outputs."""
    found = []
    for output in manifest.outputs:
        first = manifest.timeline.first_answer(output)
        answers = right[output.name][first :: output.rate].astype(np.float64)
        difference = other[output.name][first :: output.rate] - answers
        found.append(float(np.sqrt((difference**2).mean() / max((answers**2).mean(), 1e-18))))
    return max(found)


@settings(
    max_examples=max(EXAMPLES // 5, 1), deadline=None, derandomize=EXAMPLES < 100,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(random_nets())
def test_a_random_network_errs_as_if_noise_of_a_code_was_added_to_its_frames(net: RandomNet) -> None:
    """Every layer and history may add what a code of noise in the frames does to FP32's answers, and no more.

    Some networks blow such noise up, as norms of nearly equal numbers do: a fixed bound would be too wide for others.
    """
    step, made = exported(randomise_norms(net).float().eval(), clip_of(net), 2)
    spec = BuildSpec(model="m", clip=clip_of(net), time_dim=2)
    manifest = manifest_of("net", spec, step, None, None, 0, 0, {})
    steps = manifest.timeline.valid_from + max(5 * manifest.timeline.receptive_field, 40) + manifest.timeline.stride
    frames = [recording_of(manifest, steps, seed) for seed in (1, 2)]
    ranges = observe(made, manifest, recorded(manifest, frames), threads=1)
    expected = rollout(made.phases(), manifest, frames[0])
    code = np.abs(frames[0]).max() / 127
    noisy = frames[0] + np.random.default_rng(0).uniform(-code, code, frames[0].shape).astype(np.float32)
    noise = _noise(manifest, expected, rollout(made.phases(), manifest, noisy))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "NARROW", 1)  # these networks are narrow
        patch.setattr(placement, "VECTOR_WEIGHTS", 0)
        ready = prepare(made, manifest, ranges, frames[0])
        for target in ("cpu", "trt-weak"):
            form, runs = quantised_form(ready, target, correct=False)
            given_ = rollout(runs.phases(), described(manifest, form), frames[0])
            count = 1 + form.told["layers"] + len(form.histories)
            assert _noise(manifest, expected, given_) <= 2 * (count * noise + 0.005), (target, form.told)
