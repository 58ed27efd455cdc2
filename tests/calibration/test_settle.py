"""The last layers in INT8 have the means that they have in FP32."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from quant_nets import calibrated, recording_of
from torch import Tensor, nn

from edgeco.calibration.drift import drifts
from edgeco.calibration.forms import Target, described, prepare, quantised_form
from edgeco.calibration.network import Graph
from edgeco.calibration.placement import place
from edgeco.calibration.settle import last_layers
from edgeco.export.check import rollout


class Deep(nn.Module):
    """Clips (B, 16, T, 6, 6): residual blocks one after another, each handing on the shifts of those before it."""

    clip = (16, 6, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv3d(16, 32, 1), nn.ReLU(), nn.Conv3d(32, 16, 1), nn.BatchNorm3d(16)) for _ in range(6)
        )
        self.time = nn.Conv3d(16, 32, (3, 1, 1))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = torch.relu(x + block(x))
        return self.head(torch.relu(self.time(x)).mean((2, 3, 4)))


@pytest.mark.parametrize("target", ["cpu", "trt-weak"])
def test_answers_have_the_mean_of_fp32(target: Target) -> None:
    torch.manual_seed(0)
    exported, manifest, ranges = calibrated(Deep())
    prepared = prepare(exported, manifest, ranges, recording_of(manifest, 80, 5))
    stream = recording_of(manifest, 120, 6)  # another one than means are taken of
    expected, start = rollout(exported.phases(), manifest, stream), manifest.timeline.valid_from
    shifts, errors = [], []
    for correct in (False, True):
        form, runs = quantised_form(prepared, target, correct=correct)
        given = rollout(runs.phases(), described(manifest, form), stream)
        errors.append(drifts(manifest, expected, given))
        shifts.append(np.linalg.norm((given["output"] - expected["output"])[start:].mean(0)))
    assert shifts[1] < shifts[0] / 3
    assert errors[1][0].mean_error < errors[0][0].mean_error


def test_the_last_layers_are_those_with_none_behind_them() -> None:
    torch.manual_seed(0)
    exported, manifest, _ = calibrated(Deep())
    graphs = [Graph(number, exported, manifest) for number in range(len(exported.graphs))]
    placement = place(graphs, manifest, "cpu")
    last = last_layers(graphs, placement)
    assert len(last) == 1 < len(placement.layers)
    weight = graphs[0].maker[last[0].name].input[1]
    assert exported.weights[weight].shape[0] == 32 and exported.weights[weight].shape[1] == 3 * 16
