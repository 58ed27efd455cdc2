"""Writing in place along time and along channels: temporal shifts as they are published, and other orders."""

from __future__ import annotations

import pytest
import torch
from engine_parity import differences
from streaming import assert_streams, assert_windows, clip_answers, recording, relative
from torch import Tensor, nn

import edgeco


class Shift(nn.Module):
    """A temporal shift module (Lin et al., 2019) between two convolutions, in one of its spellings."""

    def __init__(self, spelling: str, pooled: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.spelling, self.pooled = spelling, pooled

    def shift(self, x: Tensor, frames: int) -> Tensor:
        total, channels, height, width = x.size()
        x = x.view(total // frames, frames, channels, height, width)
        fold = channels // 4
        if self.spelling == "joined":
            left, right, rest = x.split([fold, fold, channels - 2 * fold], 2)
            none = torch.zeros_like(x[:, :1, :fold])
            out = torch.cat([torch.cat([left[:, 1:], none], 1), torch.cat([none, right[:, :-1]], 1), rest], 2)
        else:
            out = torch.zeros_like(x)
            if self.spelling == "rest first":
                out[:, :, 2 * fold :] = x[:, :, 2 * fold :]
            out[:, :-1, :fold] = x[:, 1:, :fold]
            out[:, 1:, fold : 2 * fold] = x[:, :-1, fold : 2 * fold]
            if self.spelling == "published":
                out[:, :, 2 * fold :] = x[:, :, 2 * fold :]
        return out.view(total, channels, height, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, frames = x.shape[:2]
        y = self.b(self.shift(torch.relu(self.a(x.flatten(0, 1))), frames))
        y = y.mean((2, 3)).view(rows, frames, -1)
        return y.amax(1) if self.pooled else y


@pytest.mark.sampled(3)
@pytest.mark.parametrize("spelling", ["published", "rest first", "joined"])
def test_temporal_shift(spelling: str) -> None:
    program = assert_streams(Shift(spelling, pooled=False), (8, 2, 5, 5), time_dim=1)
    assert (program.receptive_field, program.delay) == (3, 1)
    assert all("window" not in note.form for note in program.report)
    assert max(differences(Shift(spelling, pooled=True).float(), (8, 2, 5, 5), 1, steps=100, rows=2).values()) < 1e-4


class Overwritten(nn.Module):
    """What was written is written over: the last frame's place, a channel in the middle of a clip."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        y[:, 1, 2:5] = x[:, 0, 1:4]
        y[:, :, -1] = 0.0
        y[:, 2:] += x[:, :1]
        return y.sum(2)


def test_writing_into_the_middle_of_a_clip_takes_a_window() -> None:
    assert_windows(Overwritten(), (4, 8))


class Kept(nn.Module):
    """Every state of a loop, written into its place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.mix = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        out, state = torch.zeros_like(x), torch.zeros_like(x[:, :, 0])
        for t in range(x.shape[2]):
            state = torch.tanh(self.mix(state) + x[:, :, t])
            out[:, :, t] = state
        return out


class OneMoreKey(nn.Module):
    """Attention to a key of zeros behind the clip's own, which is no frame that is still to come."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, add_zero_attn=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0][:, -1]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("net", "clip", "time_dim", "exact"),
    [
        (Shift("published", pooled=True), (8, 2, 5, 5), 1, "clip"),
        (Shift("joined", pooled=True), (8, 2, 5, 5), 1, "clip"),
        (Kept(), (3, 6), 2, "clip"),
        (OneMoreKey(), (7, 4), 1, False),
        (OneMoreKey(), (7, 4), 1, True),
    ],
)
def test_what_is_put_around_a_clip_stays_with_it(
    net: nn.Module, clip: tuple[int, ...], time_dim: int, exact: bool | str
) -> None:
    net = net.double().eval()
    program = edgeco.convert(net, torch.zeros(1, *clip).double(), time_dim=time_dim, exact=exact)
    length = clip[time_dim - 1]
    shape = [2, *clip]
    shape[time_dim] = 6 * length
    long = recording(*shape)
    given = program.forward_steps(long)
    expected = clip_answers(net, long, length, time_dim)
    assert program.exactness == "exact" and relative(given, expected) < 1e-12
