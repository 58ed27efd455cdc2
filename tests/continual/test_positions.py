"""Recycled positions: a token keeps the row it was given, in clips, in streams and in what is trained."""

from __future__ import annotations

import pytest
import torch
from engine_parity import differences
from streaming import clip_answers, recording, relative
from torch import Tensor, nn

import edgeco
from edgeco.continual.positions import cyclic_table, recycle

TOKENS, WIDTH = 6, 8


class Tokens(nn.Module):
    """Features of a convolution, a position each, and an encoder of which the newest token is used."""

    def __init__(self, learned: bool = True, size: int = 2 * TOKENS - 1, stride: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv1d(3, WIDTH, 3, stride)
        self.positions = edgeco.RecyclingPositionalEncoding(WIDTH, size, learned=learned)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(WIDTH, 4)
        if learned:
            nn.init.normal_(self.positions.table)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.positions(self.features(x).transpose(1, 2)))[:, -1])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("learned", [True, False])
def test_a_window_begins_where_the_stream_has_come_to(learned: bool, stride: int) -> None:
    net = Tokens(learned, stride=stride).double().eval()
    clip = stride * (TOKENS - 1) + 3
    program = edgeco.convert(net, torch.zeros(1, 3, clip).double())
    assert (program.exactness, program.receptive_field, program.stride) == ("unpadded", clip, stride)
    for rows in (1, 4):
        long = recording(rows, 3, 8 * clip)
        program.clean_state()
        given = program.forward_steps(long)
        assert given.shape[1] == 7 * clip // stride + 1
        for window in range(given.shape[1]):
            with torch.no_grad():
                tokens = net.features(long[:, :, window * stride : window * stride + clip]).transpose(1, 2)
                tokens = recycle(tokens, net.positions.table, 1, window)
                expected = net.head(net.encoder(tokens)[:, -1])
            assert relative(given[:, window], expected) < 1e-12


def test_the_engine_agrees_and_the_row_is_state() -> None:
    assert max(differences(Tokens(), (3, TOKENS + 2), steps=120, rows=2).values()) < 1e-4
    program = edgeco.convert(Tokens().eval(), torch.zeros(1, 3, TOKENS + 2))
    long = recording(1, 3, 60, dtype=torch.float32)
    program.forward_steps(long[:, :, :31])
    kept = program.state
    first = program.forward_steps(long[:, :, 31:])
    program.state = kept
    assert torch.equal(first, program.forward_steps(long[:, :, 31:]))


def test_in_a_live_window_positions_are_the_clips() -> None:
    """The table behind another that is bound to the clip: both are numbered from the window's first token on."""

    class Bound(Tokens):
        def __init__(self) -> None:
            super().__init__()
            self.bound = nn.Parameter(torch.randn(1, TOKENS, WIDTH))

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.features(x).transpose(1, 2) + self.bound
            return self.head(self.encoder(self.positions(tokens))[:, -1])

    net = Bound().double().eval()
    program = edgeco.convert(net, torch.zeros(1, 3, TOKENS + 2).double())
    assert any("RecyclingPositionalEncoding" in note.form for note in program.report)
    long = recording(2, 3, 40)
    given = program.forward_steps(long)
    expected = clip_answers(net, long, TOKENS + 2)
    assert relative(given, expected) < 1e-12


def test_training_meets_every_row() -> None:
    encoding = edgeco.RecyclingPositionalEncoding(2, size=3)
    x = torch.zeros(2, 1, 2, requires_grad=True)
    seen = [encoding(x)[0, 0] for _ in range(4)]
    assert [torch.equal(row, encoding.table[i % 3]) for i, row in enumerate(seen)] == [True] * 4
    table = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    tokens = torch.randn(2, 7, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: recycle(a, b, 1, 4), (tokens, table))


@pytest.mark.parametrize(("size", "width"), [(127, 64), (8, 5), (1, 3), (2, 1)])
def test_the_fixed_table_closes(size: int, width: int) -> None:
    table = cyclic_table(size, width)
    assert table.shape == (size, width) and table.isfinite().all()
    turned = table.roll(1, 0)
    gaps = (table - turned).norm(dim=1)
    assert torch.allclose(gaps, gaps[0].expand(size), atol=1e-4), "every row is as far from the next, the last included"
    if size == 127:
        distances = (table[:1] - table).norm(dim=1)
        assert distances[1:].min() > 0.5, "and all are told apart"


def test_another_axis_than_time_is_refused() -> None:
    class Wrong(Tokens):
        def forward(self, x: Tensor) -> Tensor:
            return self.positions(self.features(x))

    net = Wrong()
    net.positions = edgeco.RecyclingPositionalEncoding(6, 11)
    with pytest.raises(edgeco.EdgecoError, match="not that of time"):
        edgeco.convert(net.eval(), torch.zeros(1, 3, TOKENS + 2))
