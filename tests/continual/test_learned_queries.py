"""Constants that meet the frames row by row: learned queries of a decoder, and summaries of the clip laid out again."""

from __future__ import annotations

import pytest
import torch
from engine_parity import differences
from streaming import assert_answers, clip_answers, recording, relative
from torch import Tensor, nn

import edgeco
from edgeco.errors import UnsupportedOperator


class Decoder(nn.Module):
    """Learned queries (DETR; Carion et al., 2020) over features of the last frames."""

    def __init__(self, layers: int = 1, norm_first: bool = False, repeated: bool = False) -> None:
        super().__init__()
        torch.manual_seed(layers)
        self.queries, self.repeated = nn.Parameter(torch.randn(1, 3, 4)), repeated
        self.features, self.classify = nn.Conv1d(4, 4, 3), nn.Linear(4, 5)
        layer = nn.TransformerDecoderLayer(4, 2, 8, batch_first=True, norm_first=norm_first)
        self.decoder = nn.TransformerDecoder(layer, layers)

    def forward(self, x: Tensor) -> Tensor:
        memory = self.features(x).transpose(1, 2)
        rows = x.shape[0]
        queries = self.queries.repeat(rows, 1, 1) if self.repeated else self.queries.expand(rows, -1, -1)
        return self.classify(self.decoder(queries, memory)).flatten(1)


@pytest.mark.parametrize("net", [Decoder(), Decoder(2, norm_first=True, repeated=True)], ids=["one", "two"])
def test_learned_queries_over_the_last_frames_are_exact(net: nn.Module) -> None:
    net = net.double().eval()
    program = edgeco.convert(net, torch.zeros(1, 4, 8, dtype=torch.float64))
    assert (program.exactness, program.receptive_field, program.valid_from) == ("exact", 8, 7)
    assert_answers(program, net, recording(4, 4, 48), 8)


@pytest.mark.parametrize("rows", [1, 4])
def test_learned_queries_in_onnx_runtime(rows: int) -> None:
    assert max(differences(Decoder(2).float().eval(), (4, 8), steps=110, rows=rows).values()) < 1e-5


class Inside(nn.Module):
    """Rows within an axis that a constant differs along."""

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.arange(6.0).view(3, 1, 2).expand(-1, x.shape[0], -1).reshape(-1, 2)
        return x * bias.view(3, x.shape[0], 2).sum(0)[:, :, None]


def test_rows_within_an_axis_of_a_constant_are_refused() -> None:
    with pytest.raises(UnsupportedOperator, match=r"view at .*not its outer part") as caught:
        edgeco.convert(Inside(), torch.zeros(1, 2, 8))
    assert __file__ in caught.value.where


class Repeated(nn.Module):
    """The clip's mean beside each of its elements, by `repeat`."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x.mean(2, keepdim=True).repeat(1, 1, x.shape[2])], 1).cos()


def test_a_repeated_summary_of_the_clip_is_that_of_the_window_that_ends_at_each_element() -> None:
    long, net = recording(4, 2, 48), Repeated().double()
    program = edgeco.convert(net, torch.zeros(1, 2, 8, dtype=torch.float64))
    assert program.exactness == "causal"
    newest = torch.stack([net(long[:, :, i : i + 8])[:, :, -1] for i in range(41)], 2)
    assert relative(program.forward_steps(long), newest) < 1e-12


def test_a_repeated_summary_of_the_clip_over_a_live_window() -> None:
    long, net = recording(4, 2, 48), nn.Sequential(Repeated(), nn.Flatten()).double()
    program = edgeco.convert(net, torch.zeros(1, 2, 8, dtype=torch.float64), exact=True)
    assert program.exactness == "exact"
    assert relative(program.forward_steps(long), clip_answers(net, long, 8)) < 1e-12
