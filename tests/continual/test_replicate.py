"""Copies of the first element before it and of the last behind: every element, in torch and in the engine."""

from __future__ import annotations

import pytest
import torch
from engine_parity import differences
from streaming import assert_streams, randomise_norms, recording, relative
from torch import Tensor, nn
from torch.nn import functional as F

import edgeco
from edgeco.errors import UnsupportedOperator


class Padded(nn.Module):
    """F.pad along time, then a layer."""

    def __init__(self, front: int, back: int, layer: nn.Module, mode: str = "replicate") -> None:
        super().__init__()
        self.pads, self.layer, self.mode = (front, back), layer, mode

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(F.pad(x, self.pads, mode=self.mode))


class Ahead(nn.Module):
    """The difference to the next frame, the last standing for what would follow it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 1), mode="replicate")[:, :, 1:] - x


class TwoBorders(nn.Module):
    """One value read with zeros, with copies of its first element and with neither before it."""

    def __init__(self) -> None:
        super().__init__()
        self.zeros, self.copies = nn.Conv1d(2, 3, 3, padding=1), nn.Conv1d(2, 3, 5, padding=2, padding_mode="replicate")
        self.neither = nn.Conv1d(2, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.zeros(x) * self.copies(x)
        return y[:, :, 1:-1] + self.neither(x) + F.pad(F.relu(self.neither(x[:, :, 2:])), (2, 0), mode="replicate")


def conv(kernel: int = 3, padding: int = 1, **options: object) -> nn.Conv1d:
    return nn.Conv1d(2, 2, kernel, padding=padding, padding_mode="replicate", **options)  # type: ignore[arg-type]


NETS: dict[str, nn.Module] = {
    "convolution": conv(),
    "one tap short": conv(5, 1),
    "dilated": conv(3, 4, dilation=4),
    "strided": conv(5, 2, stride=3),
    "beyond the reach": conv(3, 5),
    "stack": nn.Sequential(conv(), nn.ReLU(), conv(5, 2, stride=2), nn.BatchNorm1d(2), conv(), conv(3, 2, dilation=2)),
    "zeros before and after": nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), conv(), nn.Conv1d(2, 2, 3, padding=1)),
    "causal": Padded(2, 0, nn.Conv1d(2, 2, 3)),
    "anticausal": Padded(0, 2, nn.Conv1d(2, 2, 3)),
    "one tap": Padded(1, 1, nn.Conv1d(2, 2, 1)),
    "alone": Padded(2, 1, nn.Identity()),
    "pointwise after": Padded(1, 1, nn.Sequential(nn.Sigmoid(), nn.Conv1d(2, 2, 3))),
    "pool": nn.Sequential(nn.ReplicationPad1d(2), nn.AvgPool1d(5)),
    "maximum over many": nn.Sequential(nn.ReplicationPad1d(4), nn.MaxPool1d(9, 2)),
    "maximum with padding of its own": nn.Sequential(nn.ReplicationPad1d(2), nn.MaxPool1d(3, 1, 1)),
    "twice": Padded(1, 2, Padded(2, 1, nn.Conv1d(2, 2, 5))),
    "copies of zeros": nn.Sequential(nn.ConstantPad1d(1, 0.0), nn.ReplicationPad1d(1), nn.Conv1d(2, 2, 5)),
    "zeros beside copies": nn.Sequential(nn.ReplicationPad1d(1), nn.ConstantPad1d(1, 0.0), nn.Conv1d(2, 2, 5)),
    "between copies of every other": nn.Sequential(
        nn.MaxPool1d(1, 2), nn.ReplicationPad1d((0, 1)), nn.Upsample(scale_factor=2, mode="linear"), nn.Conv1d(2, 2, 3)
    ),
    "down and up": nn.Sequential(conv(3, 1, stride=2), nn.Upsample(scale_factor=2), conv(), nn.Conv1d(2, 2, 3)),
    "ahead": Ahead(),
    "two borders": TwoBorders(),
}
FRAMES = nn.Sequential(
    nn.Conv3d(2, 3, 3, padding=1, padding_mode="replicate"),
    nn.BatchNorm3d(3),
    nn.ReLU(),
    nn.ReplicationPad3d((0, 1, 1, 0, 2, 1)),
    nn.Conv3d(3, 2, 3, stride=(2, 1, 1)),
)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", NETS)
def test_every_element_both_ends_included(name: str) -> None:
    torch.manual_seed(0)
    for more in range(2):
        assert_streams(randomise_norms(Padded(0, 0, NETS[name])), (2, 16), more=more)


def test_frames_padded_on_all_sides() -> None:
    torch.manual_seed(0)
    assert_streams(randomise_norms(FRAMES), (2, 11, 4, 5))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("name", NETS)
def test_the_engine_begins_as_the_torch_runner_does(name: str, rows: int) -> None:
    torch.manual_seed(0)
    net = randomise_norms(Padded(0, 0, NETS[name])).float().eval()
    assert max(differences(net, (2, 16), steps=110, rows=rows).values()) < 1e-5


def test_the_engine_begins_with_frames() -> None:
    assert max(differences(FRAMES.float().eval(), (2, 11, 4, 5), steps=110).values()) < 1e-5


def test_float32_and_a_batch_of_four() -> None:
    net = Padded(0, 0, NETS["stack"]).float().eval()
    program = edgeco.convert(net, torch.zeros(1, 2, 16))
    long = recording(4, 2, 150, dtype=torch.float32)
    with torch.no_grad():
        assert relative(program.forward_steps(long, pad_end=True), net(long)) < 1e-5


def test_a_centred_convolution_waits_no_longer_for_copies_than_for_zeros() -> None:
    zeros, copies = (nn.Conv1d(2, 2, 5, padding=2, padding_mode=mode) for mode in ("zeros", "replicate"))
    figures = [edgeco.convert(net, torch.zeros(1, 2, 16)) for net in (zeros, copies)]
    assert [(p.delay, p.valid_from, p.receptive_field) for p in figures] == [(2, 2, 5)] * 2


@pytest.mark.parametrize(("mode", "words"), [("reflect", "what follows it"), ("circular", "the end of the clip")])
def test_other_modes_are_refused_with_their_line(mode: str, words: str) -> None:
    with pytest.raises(UnsupportedOperator, match=words) as error:
        edgeco.convert(Padded(1, 1, nn.Conv1d(2, 2, 3), mode), torch.zeros(1, 2, 16))
    assert "test_replicate.py" in str(error.value) and 'mode="replicate"' in str(error.value)
    with pytest.raises(UnsupportedOperator, match=words):
        edgeco.convert(nn.Conv1d(2, 2, 3, padding=1, padding_mode=mode), torch.zeros(1, 2, 16))
