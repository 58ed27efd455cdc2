"""What lies on a grid and what does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from quant_nets import calibrated
from torch import Tensor, nn

from edgeco.calibration.forms import CPU, quantised_forms
from edgeco.calibration.recordings import recorded
from edgeco.calibration.rollout import observe


class Changes(nn.Module):
    """Readings (B, width, T): what changes from step to step, turned about as a layout may ask for, then two layers."""

    def __init__(self, width: int, turned: bool) -> None:
        super().__init__()
        self.clip = (width, 12)
        self.turned = turned
        self.body = nn.Sequential(nn.Conv1d(width, 32, 3), nn.ReLU(), nn.Conv1d(32, 32, 3), nn.ReLU())
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        if self.turned:
            x = x.unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2)
        return self.head(self.body(100 * (x[:, :, 1:] - x[:, :, :-1])).mean(2))


@pytest.mark.parametrize(("width", "turned"), [(24, False), (24, True), (4, False)])
def test_what_is_differenced_stays_in_float(width: int, turned: bool) -> None:
    """Places that drift over a hundred times the length of a step: in codes of the whole way no step would be seen."""
    torch.manual_seed(0)
    exported, manifest, _ = calibrated(Changes(width, turned))
    walks = [
        np.cumsum(0.01 * np.random.default_rng(seed).standard_normal((150, width)), axis=0).astype(np.float32)
        for seed in (1, 2)
    ]
    ranges = observe(exported, manifest, recorded(manifest, walks), threads=1)
    form = next(form for form in quantised_forms(exported, manifest, ranges, walks[0]) if form.name == CPU)
    why = "from step to step" if width == 24 else "narrow: an element is of 4 numbers"
    assert why in form.told["floats"]["h000"] and form.histories
    assert form.told["drift"][0]["mean_error"] < 0.05
