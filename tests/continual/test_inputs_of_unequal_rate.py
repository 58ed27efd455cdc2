"""Two clips of the same time at unequal rates, as SlowFast is fed: the slow one has a frame in every fourth step."""

from __future__ import annotations

import pytest
import torch
from streaming import randomise_norms, recording, relative
from torch import Tensor, nn
from torch.nn import functional as F

import edgeco


class SlowFast(nn.Module):
    """A slow and a fast pathway with a lateral connection (Feichtenhofer et al., 2019), features of both."""

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.slow = nn.Sequential(nn.Conv3d(3, 4, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(4))
        self.fast = nn.Sequential(nn.Conv3d(3, 2, 3, padding=1), nn.BatchNorm3d(2), nn.ReLU())
        self.lateral = nn.Conv3d(2, 3, (5, 1, 1), (4, 1, 1), (2, 0, 0))
        self.joint = nn.Conv3d(7, 5, 3, padding=1)
        self.pooled = pooled

    def forward(self, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        quick = self.fast(fast)
        joint = F.relu(self.joint(torch.cat([self.slow(slow), self.lateral(quick)], 1)))
        if self.pooled:
            return torch.cat([joint.mean((2, 3, 4)), quick.mean((2, 3, 4))], 1)
        return joint, quick


def program_of(pooled: bool) -> tuple[SlowFast, edgeco.StepProgram]:
    net = randomise_norms(SlowFast(pooled)).double().eval()
    clips = (torch.zeros(1, 3, 4, 5, 5).double(), torch.zeros(1, 3, 16, 5, 5).double())
    return net, edgeco.convert(net, clips)  # type: ignore[return-value]


@pytest.mark.parametrize("rows", [1, 4])
def test_every_element_of_both_pathways(rows: int) -> None:
    net, program = program_of(pooled=False)
    fast = recording(rows, 3, 96, 5, 5)
    slow = fast[:, :, ::4] * 2 - 1  # of its own, and no slice that a network could have made
    with torch.no_grad():
        expected = net(slow, fast)
    for given, wanted in zip(program.forward_steps(slow, fast, pad_end=True), expected, strict=True):
        assert relative(given, wanted) < 1e-12
    whole = program.forward_steps(slow, fast)
    program.clean_state()
    parts = [
        program.forward_steps(slow[:, :, a // 4 : b // 4], fast[:, :, a:b]) for a, b in ((0, 8), (8, 20), (20, 96))
    ]
    for i in (0, 1):
        assert torch.equal(torch.cat([p[i] for p in parts if p[i] is not None], 2), whole[i])


def test_between_two_slow_frames_any_will_do() -> None:
    _, program = program_of(pooled=True)
    fast = recording(1, 3, 64, 5, 5)
    slow = recording(1, 3, 16, 5, 5, seed=2)
    expected = program.forward_steps(slow, fast)
    program.clean_state()
    junk = torch.full((1, 3, 5, 5), torch.nan).double()
    given = [program.forward_step(slow[:, :, t // 4] if t % 4 == 0 else junk, fast[:, :, t]) for t in range(64)]
    assert torch.equal(torch.stack([g for g in given if g is not None], 1), expected)


def test_lengths_that_are_no_multiples_are_refused() -> None:
    with pytest.raises(edgeco.EdgecoError, match=r"fewer by a whole factor; given: \[5, 16\]"):
        edgeco.convert(SlowFast(True).eval(), (torch.zeros(1, 3, 5, 5, 5), torch.zeros(1, 3, 16, 5, 5)))
