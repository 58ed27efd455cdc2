"""The INT8 forms: what they answer, how they store the past, and that engines compute them in INT8."""

from __future__ import annotations

import collections
import itertools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from quant_nets import NETS, Greatest, Mobile, Tokens, calibrated, recording_of

from edgeco.bundle.manifest import Manifest
from edgeco.bundle.ranges import Ranges
from edgeco.bundle.validate import state_bytes
from edgeco.calibration.drift import Limits, drift_stream
from edgeco.calibration.forms import (
    CPU,
    FLOAT_STATES,
    STRONG,
    WEAK,
    described,
    prepare,
    quantised_form,
    quantised_forms,
)
from edgeco.calibration.sensitivity import candidates, sensitivities, within_budget
from edgeco.engines import open_engine
from edgeco.engines.session import Session
from edgeco.errors import CalibrationError, CheckFailed
from edgeco.export.check import rollout
from edgeco.export.exported import Exported
from edgeco.export.lint import lint
from edgeco.export.tensorrt_forms import Form

Calibrated = tuple[Exported, Manifest, Ranges]


@pytest.fixture(scope="module", params=NETS, ids=lambda kind: kind.__name__)
def network(request: pytest.FixtureRequest) -> Calibrated:
    torch.manual_seed(0)
    return calibrated(request.param())


@pytest.fixture(scope="module")
def mobile() -> Calibrated:
    torch.manual_seed(0)
    return calibrated(Mobile())


_made: dict[str, dict[str, Form]] = {}


def forms_of(network: Calibrated) -> dict[str, Form]:
    """All forms of a network, made once."""
    exported, manifest, ranges = network
    if ranges.model not in _made:
        forms = quantised_forms(exported, manifest, ranges, recording_of(manifest, 60, 3))
        _made[ranges.model] = {form.name: form for form in forms}
    return _made[ranges.model]


def test_every_form_answers_nearly_as_fp32_and_drifts_no_further(network: Calibrated) -> None:
    exported, manifest, _ = network
    forms = forms_of(network)
    assert list(forms) == [CPU, WEAK, WEAK + FLOAT_STATES, STRONG, STRONG + FLOAT_STATES]
    for form in forms.values():
        for drift in form.told["drift"]:
            assert drift["cosine"] > 0.99 and drift["growth"] < 1.05, (form.name, drift)
            assert drift["steps"] * max(o.rate for o in manifest.outputs) >= 10 * manifest.timeline.receptive_field
        for number in range(len(exported.graphs)):
            onnx.checker.check_model(form.exported.model(number), full_check=True)


def test_histories_take_a_quarter_and_start_from_their_border(network: Calibrated) -> None:
    _, manifest, ranges = network
    form = forms_of(network)[CPU]
    own = described(manifest, form)
    for before, after in zip(manifest.histories, own.histories, strict=True):
        stored = form.histories.get(before.name)
        if stored is None:
            assert after == before and before.name in form.told["floats"]
            continue
        assert state_bytes(before) == 4 * state_bytes(after) and stored.scale is not None
        real = (stored.border - stored.zero_point) * stored.scale
        if abs(before.border) < 1e30:
            assert abs(real - before.border) <= stored.scale / 2
        else:  # what lies before a maximum is below everything
            assert real <= ranges.histories[before.name].low + stored.scale
    session = Session(open_engine(form.exported.phases(), engine="onnxruntime", threads=1), own)
    for name, past in session.past().items():
        stored = form.histories.get(name)
        if stored is not None:
            assert past.dtype == np.uint8 and (past == stored.border).all()


def test_what_is_left_in_float_says_why() -> None:
    torch.manual_seed(0)
    reasons = forms_of(calibrated(NETS[3]()))[CPU].told["floats"]
    assert any("computed from itself" in reason for reason in reasons.values())
    torch.manual_seed(0)
    reasons = forms_of(calibrated(Mobile()))[CPU].told["floats"]
    assert {"depthwise", "head", "its window is summed up"} <= {reason.split(":")[0] for reason in reasons.values()}


def test_onnx_runtime_computes_the_layers_in_int8(mobile: Calibrated, tmp_path: Path) -> None:
    form = forms_of(mobile)[CPU]
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    model = form.exported.model().SerializeToString()
    onnxruntime.InferenceSession(
        model, options, providers=["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"]
    )
    found = collections.Counter(n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node)
    assert form.told["layers"] == 3 and found["QLinearConv"] == 3
    assert found["QLinearAdd"] == 1  # the residual, its ReLU done by the lowest code
    assert found["Relu"] == 0


@pytest.mark.parametrize(
    ("name", "version"), [(WEAK, "8.6.1"), (WEAK, "10.3.0"), (STRONG, "10.12.0"), (STRONG, "11.4.0")]
)
def test_forms_keep_the_rules_of_their_tensorrt(mobile: Calibrated, name: str, version: str) -> None:
    forms = forms_of(mobile)
    for form in (forms[name], forms[name + FLOAT_STATES]):
        assert lint(form.exported.model(), version) == []
    types = {v.name: v.type.tensor_type.elem_type for v in forms[name].exported.model().graph.input}
    assert {types[n] for n in types if n.startswith("h000")} == {onnx.TensorProto.INT8}


def test_both_typings_have_the_same_codes(mobile: Calibrated) -> None:
    forms = forms_of(mobile)
    weak, strong = (forms[name].exported.weights for name in (WEAK, STRONG))
    codes = [name for name, array in weak.items() if array.dtype == np.int8]
    assert codes and all(np.array_equal(weak[name], strong[name]) for name in codes)
    for name, array in weak.items():
        if name.endswith("_scales"):
            assert strong[name].dtype == np.float16 and np.array_equal(strong[name].astype(np.float32), array)
    assert forms[WEAK].histories == forms[STRONG].histories


def test_equal_channels_change_nothing_in_fp32_and_help_int8(mobile: Calibrated) -> None:
    exported, manifest, _ = mobile
    frames = recording_of(manifest, 60, 3)
    weights = dict(exported.weights)
    name = next(n for n, a in weights.items() if a.shape == (32, 16, 1, 1))  # channels of very unequal range
    factors = np.geomspace(0.05, 1, 32, dtype=np.float32)
    weights[name] = weights[name] * factors.reshape(-1, 1, 1, 1)
    bias = next(n for n, a in weights.items() if a.shape == (32,))
    weights[bias] = weights[bias] * factors
    from edgeco.calibration.recordings import recorded
    from edgeco.calibration.rollout import observe

    unequal = Exported(exported.graphs, exported.schedule, weights)
    own = observe(unequal, manifest, recorded(manifest, [frames]), threads=1)
    prepared = prepare(unequal, manifest, own, frames)
    assert prepared.equalised == ("h001",) or prepared.equalised == ("h000",)
    before = rollout(unequal.phases(), manifest, frames)["output"]
    after = rollout(prepared.exported.phases(), manifest, frames)["output"]
    np.testing.assert_allclose(after, before, rtol=2e-4, atol=2e-5 * float(np.abs(before).max()))


def test_layers_named_stay_in_float(mobile: Calibrated) -> None:
    exported, manifest, ranges = mobile
    prepared = prepare(exported, manifest, ranges, recording_of(manifest, 60, 3))
    names = candidates(prepared, "cpu")
    layer, history = names[0], "h000"
    assert history in names
    form, _ = quantised_form(prepared, "cpu", {layer, history})
    assert form.told["floats"][layer] == form.told["floats"][history] == "as asked"
    assert history not in form.histories and layer in form.exported.weights


def test_sensitivity_finds_the_layer_that_costs(mobile: Calibrated) -> None:
    exported, manifest, ranges = mobile
    frames = recording_of(manifest, 60, 3)
    prepared = prepare(exported, manifest, ranges, frames)
    stream = frames[: manifest.timeline.valid_from + 10]
    told: list[str] = []
    found = sensitivities(prepared, "cpu", stream, progress=lambda done, count, name: told.append(name))
    assert [one.name for one in found][::-1] != told and sorted(told) == sorted(one.name for one in found)
    assert all(a.error <= b.error for a, b in itertools.pairwise(found))
    choice = within_budget(prepared, "cpu", stream, found[0].error * 1.0001)
    assert choice.within and choice.keep_float[0] == found[0].name
    assert not within_budget(prepared, "cpu", stream, 0.0).within


def test_ranges_of_another_network_are_refused(mobile: Calibrated) -> None:
    exported, manifest, ranges = mobile
    other = Exported(exported.graphs, exported.schedule, {n: a * 1.5 for n, a in exported.weights.items()})
    with pytest.raises(CalibrationError, match="are of another network"):
        quantised_forms(other, manifest, ranges, recording_of(manifest, 60, 3))


def test_a_form_that_drifts_too_far_is_refused(mobile: Calibrated) -> None:
    exported, manifest, ranges = mobile
    with pytest.raises(CheckFailed, match=r"form int8 drifts from FP32 .* below 1\.1.*--keep-float"):
        quantised_forms(exported, manifest, ranges, recording_of(manifest, 60, 3), limits=Limits(cosine=1.1))


def test_golden_frames_beyond_the_calibration_are_told(mobile: Calibrated) -> None:
    exported, manifest, ranges = mobile
    frames, told = recording_of(manifest, 60, 3), list[str]()
    for golden in (frames[:20], 30 * frames[:20]):
        quantised_forms(exported, manifest, ranges, frames, targets=["cpu"], golden=golden, say=told.append)
    assert sum("golden frames" in text for text in told) == 1


def test_the_stream_of_a_comparison_comes_ten_times_over() -> None:
    _, manifest, _ = calibrated(Greatest())
    frames = recording_of(manifest, 200, 4)
    stream = drift_stream(frames, manifest)
    tenth = (len(stream) - manifest.timeline.valid_from) // 10
    assert tenth >= manifest.timeline.receptive_field and tenth % manifest.timeline.stride == 0
    np.testing.assert_array_equal(stream[:tenth], stream[tenth : 2 * tenth])


@pytest.mark.parametrize("count", [1, 2, 7, 200])
def test_the_stream_of_a_comparison_never_jumps(count: int) -> None:
    """Also where there are few frames: one follows another only if it does in the recording, or the other way round."""
    _, manifest, _ = calibrated(Greatest())
    shape = (count, *manifest.inputs[0].shape)
    stream = drift_stream(np.broadcast_to(np.arange(count).reshape(-1, *[1] * (len(shape) - 1)), shape), manifest)
    places = stream.reshape(len(stream), -1)[:, 0]
    assert np.abs(np.diff(places)).max() <= 1 and places.max() <= count - 1
    assert len(set(places.tolist())) == min(count, places.max() + 1)


def test_attention_keeps_keys_and_values_in_codes() -> None:
    torch.manual_seed(0)
    forms = forms_of(calibrated(Tokens()))
    assert len(forms[CPU].histories) >= 2
