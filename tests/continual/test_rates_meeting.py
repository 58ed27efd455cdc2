"""Values of unequal rate that meet or answer side by side: slow summaries beside fast elements, SlowFast, heads."""

from __future__ import annotations

import pytest
import torch
from engine_parity import differences
from streaming import recording, relative
from torch import Tensor, nn
from torch.nn import functional as F

import edgeco
from edgeco.errors import UnsupportedOperator

STRIDE = 4


class Excited(nn.Module):
    """Elements of the full rate, gated by the mean of a branch at half of it."""

    def __init__(self) -> None:
        super().__init__()
        self.fast, self.slow = nn.Conv1d(2, 3, 3), nn.Conv1d(3, 4, 2, stride=2)
        self.gate = nn.Linear(4, 3)

    def gated(self, fast: Tensor, mean: Tensor) -> Tensor:
        return fast * torch.sigmoid(self.gate(mean))[:, :, None]

    def forward(self, x: Tensor) -> Tensor:
        fast = self.fast(x)
        return self.gated(fast, self.slow(fast).mean(2))


def test_a_slow_summary_is_held_beside_fast_elements() -> None:
    """Element i, of a clip of 16, is gated by the newest window of 8 slow elements that ends at i or before."""
    torch.manual_seed(0)
    net = Excited().double().eval()
    program = edgeco.convert(net, torch.zeros(1, 2, 18, dtype=torch.float64))
    assert (program.exactness, program.stride, len(program.schedule)) == ("causal", 1, 2)
    long = recording(4, 2, 100)
    with torch.no_grad():
        fast = net.fast(long)
        slow = net.slow(fast)
        given = program.forward_steps(long)
        assert given.shape[2] == fast.shape[2] - 15
        for n in range(given.shape[2]):
            first = n // 2
            expected = net.gated(fast[:, :, n + 15 : n + 16], slow[:, :, first : first + 8].mean(2))
            assert relative(given[:, :, n : n + 1], expected) < 1e-12
    assert max(differences(Excited().eval(), (2, 18), steps=110, rows=4).values()) < 1e-5


def test_over_a_live_window_each_clip_meets_its_own_summary() -> None:
    torch.manual_seed(0)
    net = Excited().double().eval()
    program = edgeco.convert(net, torch.zeros(1, 2, 18, dtype=torch.float64), exact=True)
    long = recording(2, 2, 100)
    assert program.exactness == "exact"
    with torch.no_grad():
        for step, frame in enumerate(long.unbind(2)):
            answer = program.forward_step(frame)
            if answer is not None:
                assert relative(answer, net(long[:, :, step - 17 : step + 1])) < 1e-12


class SlowFast(nn.Module):
    """Two pathways over one clip, the slow one at every fourth frame, joined twice by strided convolutions."""

    def __init__(self, thin: str = "slice") -> None:
        super().__init__()
        self.thin = thin
        self.slow = nn.ModuleList([nn.Conv3d(2, 3, (1, 3, 3), padding=(0, 1, 1)), nn.Conv3d(5, 3, 3, padding=1)])
        self.fast = nn.ModuleList([nn.Conv3d(2, 2, (5, 3, 3), padding=(2, 1, 1)), nn.Conv3d(2, 2, 3, padding=1)])
        lateral = [nn.Conv3d(2, 2, (5, 1, 1), stride=(STRIDE, 1, 1), padding=(2, 0, 0)) for _ in range(2)]
        self.lateral = nn.ModuleList(lateral)

    def thinned(self, x: Tensor) -> Tensor:
        if self.thin == "slice":
            return x[:, :, ::STRIDE]
        places = torch.arange(0, x.shape[2], STRIDE)
        return x[:, :, places] if self.thin == "index" else torch.index_select(x, 2, places)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        slow, fast = self.thinned(x), x
        for slower, faster, lateral in zip(self.slow, self.fast, self.lateral, strict=True):
            fast = F.relu(faster(fast))
            slow = torch.cat([F.relu(slower(slow)), lateral(fast)], 1)
        return slow, fast


@pytest.mark.parametrize("thin", ["slice", "index", "select"])
def test_both_pathways_of_a_slowfast_network(thin: str) -> None:
    torch.manual_seed(0)
    net = SlowFast(thin).double().eval()
    program = edgeco.convert(net, torch.zeros(1, 2, 16, 4, 4, dtype=torch.float64))
    assert [a.timeline.rate for a in program.answers] == [4, 1]
    long = recording(2, 2, 16 + 4 * 24, 4, 4)
    with torch.no_grad():
        for given, expected in zip(program.forward_steps(long, pad_end=True), net(long), strict=True):
            assert relative(given, expected) < 1e-12
    assert max(differences(SlowFast(thin).eval(), (2, 16, 4, 4), steps=110).values()) < 1e-5


class Heads(nn.Module):
    """An answer per frame, per second and fourth frame, and per clip."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 3, 3, padding=1)
        self.second, self.fourth = (nn.Conv1d(3, 3, 3, stride=2, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        every = self.first(x)
        half = self.second(every)
        quarter = self.fourth(half)
        return {"every": every, "half": half, "quarter": quarter, "clip": quarter.mean(2)}


def test_answers_of_four_kinds_side_by_side() -> None:
    torch.manual_seed(0)
    net = Heads().double().eval()
    program = edgeco.convert(net, torch.zeros(1, 2, 16, dtype=torch.float64))
    long = recording(2, 2, 16 + 4 * 30)
    given = program.forward_steps(long, pad_end=True)
    with torch.no_grad():
        expected = net(long)
    for name in ("every", "half", "quarter"):
        assert relative(given[name], expected[name]) < 1e-12
    means = torch.stack([expected["quarter"][:, :, i : i + 4].mean(2) for i in range(31)], 1)
    assert relative(given["clip"], means) < 1e-12
    assert max(differences(Heads().eval(), (2, 16), steps=110, rows=4).values()) < 1e-5


class Uneven(nn.Module):
    """Frames picked unevenly, as by a rounded linspace."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, torch.linspace(0, x.shape[2] - 1, 5).long()]


def test_frames_picked_unevenly_are_refused() -> None:
    with pytest.raises(UnsupportedOperator, match="do not lie evenly apart"):
        edgeco.convert(Uneven(), torch.zeros(1, 2, 16))
