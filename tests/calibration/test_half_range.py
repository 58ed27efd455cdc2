"""The tensors that FP16 holds badly, told from the ranges of a rollout."""

from __future__ import annotations

import numpy as np
import torch
from calibrated import network, streams
from torch import Tensor, nn

from edgeco.calibration.half_range import GREATEST, half_range
from edgeco.calibration.recordings import recorded
from edgeco.calibration.rollout import observe


class Extreme(nn.Module):
    """A layer whose numbers are large, one whose are near the end of FP16, and one whose are tiny."""

    clip = (2, 8)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv1d(2, 2, 3, bias=False) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        large = self.layers[0](x) * 1e5
        return self.layers[2](torch.tanh(large / 1e5) * 1e-6) + self.layers[1](x).tanh()[..., 2:] * 3e4


def test_tensors_beyond_fp16_are_the_block_list() -> None:
    torch.manual_seed(0)
    exported, manifest = network(Extreme(), Extreme.clip)
    ranges = observe(exported, manifest, recorded(manifest, streams(manifest, 40)))
    found = half_range(ranges)
    for key, entry in ranges.tensors.items():
        assert (key in found.beyond) == (entry.peak > GREATEST)
        with np.errstate(over="ignore"):
            assert (key in found.beyond) == bool(np.isinf(np.float16(entry.peak)))
    assert found.beyond and found.near and found.vanishing
    assert not set(found.beyond) & set(found.near)
