"""The forms for TensorRT: opset 17 and FP16, over networks of every kind, against the FP32 graph."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from builders import PictureNet
from device_nets import Attending, Dilated, Recurrent, Strided
from engine_parity import exported
from hypothesis import HealthCheck, given, settings
from onnx import TensorProto, helper
from random_nets import EXAMPLES, RandomNet, clip_of, random_nets
from streaming import randomise_norms
from torch import Tensor, nn

from edgeco.errors import CheckFailed, ConversionError
from edgeco.export.half import full_weights, half_graph, half_weights
from edgeco.export.opset17 import opset17
from edgeco.export.package import manifest_of
from edgeco.export.rounded import rounded_graph
from edgeco.export.tensorrt_forms import Form, tensorrt_forms
from edgeco.spec import BuildSpec


def forms_of(net: nn.Module, clip: tuple[int, ...], time_dim: int = 2) -> list[Form]:
    step, made = exported(net, clip, time_dim)
    manifest = manifest_of("net", BuildSpec(model="m", clip=clip, time_dim=time_dim), step, None, None, 0, 0, {})
    frames = np.random.default_rng(0).standard_normal((7, *manifest.inputs[0].shape)).astype(np.float32)
    return tensorrt_forms(made, manifest, frames, 1e-4)


def check(form: Form, half: bool) -> None:
    """Valid at opset 17; FP16 inside and in the histories, FP32 at both ends."""
    for number in range(len(form.exported.graphs)):
        model = form.exported.model(number)
        onnx.checker.check_model(model, full_check=True)
        assert [entry.version for entry in model.opset_import] == [17]
        kinds = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
        assert kinds["frame"] == TensorProto.FLOAT
        for name, kind in kinds.items():
            if name.startswith("h0"):
                assert kind in ((TensorProto.FLOAT16, TensorProto.FLOAT) if half else (TensorProto.FLOAT,)), name


class Everything(nn.Module):
    """Operators whose form changed between opset 17 and 20, and those that FP16 does not bear."""

    clip = (4, 6, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(4, 8, 3, padding=(0, 1, 1))
        self.norm, self.group = nn.LayerNorm(8), nn.GroupNorm(2, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.group(nn.functional.gelu(self.conv(x)).transpose(1, 2).flatten(0, 1)).unflatten(0, (-1, 4))
        x = x.transpose(1, 2)
        x = torch.where(x > 0, x, x * 0.1) + nn.functional.pad(x, (0, 0, 1, 0))[:, :, :, :-1]
        x = x - x.amax((3, 4), keepdim=True) + x.amin((3, 4), keepdim=True) - x.logsumexp((3, 4), keepdim=True) * 0.1
        x = nn.functional.interpolate(x[:, :, :, ::2, ::2].transpose(1, 2).flatten(0, 1), scale_factor=2)
        x = nn.functional.avg_pool2d(x, 3, 2, 1).unflatten(0, (-1, 4)).transpose(1, 2)
        x = x * x.softmax(1) + x.pow(2).mean((3, 4), keepdim=True).sqrt() + nn.functional.hardswish(x)
        x = self.norm(x.mean((2, 3, 4)))
        return self.head(x).log_softmax(1)


@pytest.mark.parametrize("kind", [PictureNet, Strided, Recurrent, Dilated, Attending, Everything])
def test_both_forms_answer_as_the_exported_graph(kind: type[nn.Module]) -> None:
    plain, half = forms_of(kind(), kind.clip, getattr(kind, "time_dim", 2))
    assert (plain.name, half.name) == ("trt-fp32", "trt-fp16")
    assert plain.drift <= 1e-6 and 0 < half.drift < 0.02
    assert half.tolerance >= 4 * half.drift
    check(plain, False)
    check(half, True)
    weights = half.exported.weights
    assert any(array.dtype == np.float16 for array in weights.values())


@settings(
    max_examples=EXAMPLES // 8, deadline=None, derandomize=EXAMPLES < 100, suppress_health_check=list(HealthCheck)
)
@given(random_nets())
def test_random_networks_have_both_forms(net: RandomNet) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgeco.export.tensorrt_forms.HALF_LIMIT", np.inf)  # some have answers near 0, or explode
        try:
            plain, half = forms_of(randomise_norms(net).eval(), clip_of(net))
        except CheckFailed as error:
            assert "trt-fp16" in str(error) and "nan" in str(error)  # beyond FP16's range, which is said
            return
        except ConversionError as error:
            assert "does not have the batch" in str(error) or "FP16" in str(error)
            return
    check(plain, False)
    check(half, True)


def test_bytes_are_cast_before_they_are_turned() -> None:
    nodes = [
        helper.make_node("Transpose", ["frame"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["turned"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Relu", ["numbers"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("frame", TensorProto.UINT8, ["rows", 4, 4, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 3, 4, 4])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    made = onnx.ModelProto.FromString(opset17(model.SerializeToString()))
    onnx.checker.check_model(made, full_check=True)
    assert [node.op_type for node in made.graph.node] == ["Cast", "Transpose", "Relu"]


def test_what_has_no_such_form_is_refused() -> None:
    node = helper.make_node("Gelu", ["x"], ["y"])
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2]) for name in "xy"]
    graph = helper.make_graph([node], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    with pytest.raises(ConversionError, match=r"operator Gelu .* build without --tensorrt"):
        opset17(model.SerializeToString())
    with pytest.raises(ConversionError, match=r"'w' reaches 1e\+06, beyond FP16"):
        half_weights({"w": np.array([1e6, np.inf], np.float32)}, frozenset())


def test_a_network_that_fp16_does_not_bear_is_refused() -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head((x * 3e4 * 3e4).mean(2) * 1e-9)

    with pytest.raises(CheckFailed, match="trt-fp16 differs from FP32 by"):
        forms_of(Large(), (4, 5))


class Counting(nn.Module):
    """A running sum, the same in every channel: 0.1 a step, which FP16 alone would stop adding at 256."""

    clip = (4, 8)

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv1d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x * x * 0.01 + 0.1).cumsum(2))


def test_what_adds_up_is_computed_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeco.export.tensorrt_forms.STEPS", 4000)
    half = forms_of(Counting(), Counting.clip)[1]
    assert 0 < half.drift < 2e-3
    kinds = {value.name: value.type.tensor_type.elem_type for value in half.exported.model().graph.input}
    assert {kind for name, kind in kinds.items() if name.startswith("h0")} == {TensorProto.FLOAT}


def test_rounding_is_that_of_fp16() -> None:
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows"]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    session = onnxruntime.InferenceSession(rounded_graph(data), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal(4000).astype(np.float32) * np.logspace(-3, 5, 4000, dtype=np.float32)
    x = np.concatenate([x, np.array([0, -0.0, 32752, 32759.9, 32760, -32761, np.inf, -np.inf], np.float32)])
    x = x[(np.abs(x) > 4e-5) | (x == 0)]  # below, FP16 has fewer bits still
    with np.errstate(over="ignore"):
        expected = (x + x).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], expected)


def test_weights_read_in_fp32_only_stay_so() -> None:
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gain"], ["n"], axis=-1),
        helper.make_node("Mul", ["n", "scale"], ["y"]),
    ]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 2]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    weights = {"gain": np.ones(2, np.float32), "scale": np.ones(2, np.float32)}
    full = full_weights([data], weights)
    assert full == {"gain"}
    kept = half_weights(weights, full)
    assert kept["gain"].dtype == np.float32 and kept["scale"].dtype == np.float16
    made = onnx.ModelProto.FromString(half_graph(data, weights, full, frozenset({"x", "y"})))
    made.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in kept.items())
    onnx.checker.check_model(made, full_check=True)
