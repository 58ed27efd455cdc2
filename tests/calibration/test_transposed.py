"""Transposed convolutions in INT8: dense ones compute in it on TensorRT, with a scale for each output channel."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from quant_nets import calibrated, recording_of
from torch import Tensor, nn

from edgeco.calibration.forms import STRONG, WEAK, quantised_forms
from edgeco.export.lint import lint
from edgeco.export.tensorrt_forms import Form


class Decoder(nn.Module):
    """Clips (B, 16, T, 6, 6) through a 2-D decoder over each frame, then a convolution over time."""

    clip = (16, 6, 6, 6)

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(16, 48, (1, 3, 3), stride=(1, 2, 2), groups=groups)
        with torch.no_grad():  # channels of very unequal range, which one scale for all would lose
            self.up.weight *= torch.logspace(-2, 0, 48 // groups).reshape(1, -1, 1, 1, 1)
        self.time = nn.Conv3d(48, 32, (3, 3, 3), padding=1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.time(torch.relu(self.up(x)))).mean((2, 3, 4)))


def forms_of(groups: int) -> dict[str, Form]:
    torch.manual_seed(0)
    exported, manifest, ranges = calibrated(Decoder(groups))
    frames = recording_of(manifest, 60, 3)
    return {f.name: f for f in quantised_forms(exported, manifest, ranges, frames, targets=("trt-weak", "trt-strong"))}


def test_a_dense_one_has_a_scale_for_each_output_channel() -> None:
    forms = forms_of(1)
    for name, version in ((WEAK, "8.6.1"), (STRONG, "11.4.0")):
        form = forms[name]
        model = form.exported.model()
        assert lint(model, version) == []
        layer = next(node for node in model.graph.node if node.op_type == "ConvTranspose")
        real = next(node for node in model.graph.node if layer.input[1] in node.output)
        arrays = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer} | form.exported.weights
        codes, scales = arrays[real.input[0]], arrays[real.input[1]]
        assert codes.dtype == np.int8 and codes.shape[:2] == (16, 48) and scales.shape == (48,)
        assert [a.i for a in real.attribute if a.name == "axis"] == [1]
        assert (np.abs(codes).max(axis=(0, 2, 3)) >= 125).all()  # every channel fills its own grid
        before = next(node for node in model.graph.node if layer.input[0] in node.output)
        assert before.op_type == "DequantizeLinear"
        assert all(drift["cosine"] > 0.999 for drift in form.told["drift"]), form.told["drift"]


@pytest.mark.parametrize("groups", [2, 16])
def test_one_in_groups_stays_in_float_and_says_why(groups: int) -> None:
    for form in forms_of(groups).values():
        assert any("transposed in groups" in reason for reason in form.told["floats"].values()), form.told["floats"]


def test_the_lint_knows_where_the_scales_belong() -> None:
    model = forms_of(1)[WEAK].exported.model()
    layer = next(node for node in model.graph.node if node.op_type == "ConvTranspose")
    real = next(node for node in model.graph.node if layer.input[1] in node.output)
    next(a for a in real.attribute if a.name == "axis").i = 0
    assert [found.rule for found in lint(model, "10.3.0")] == ["weight axes"]
    next(a for a in real.attribute if a.name == "axis").i = 1
    next(a for a in layer.attribute if a.name == "group").i = 2
    assert [found.rule for found in lint(model, "10.3.0")] == ["weight axes"]
