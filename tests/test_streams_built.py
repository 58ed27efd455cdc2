"""Rows that come and go, of networks as the build makes them: all storages, rates above one, several elements a row."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import edgeco
from edgeco.errors import FrameError
from edgeco.runtime.model import Model

sys.path.insert(0, str(Path(__file__).parent / "helpers"))
from bundles import write_network
from rows_parity import Driver
from streaming import randomise_norms


def conv(channels: int, out: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv1d(channels, out, 3, stride=stride, padding=1), nn.BatchNorm1d(out), nn.ReLU())


class Persons(nn.Module):
    """Two persons a frame, folded into the batch: several elements of a row in every history."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv(3, 4), conv(4, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows, channels, frames, persons = x.shape
        x = x.permute(0, 3, 1, 2).reshape(rows * persons, channels, frames)
        x = F.max_pool1d(self.second(self.first(x)), 3, 1, 1)
        return x.reshape(rows, persons, 4, -1).mean((1, 3))


class Memory(nn.Module):
    """A recurrent layer behind a stride: carried states that stand still in every other step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.cell = conv(2, 4, 2), nn.GRU(4, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(self.conv(x).transpose(1, 2))[0][:, -1]


class UnequalAnswers(nn.Module):
    """One answer every step, one every second, one every fourth."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(2, 3), conv(3, 3, 2), conv(3, 3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a = self.a(x)
        b = self.b(a)
        return a, b, self.c(b)


class Pooled(nn.Module):
    """A mean over so many elements that they are kept in a ring, and a live window of them besides."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.conv = conv(2, 4, stride)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        shares = torch.softmax(x[:, :1], 2)
        return torch.cat([x.mean(2), (x * shares).sum(2), x.amax(2)], 1)


class Copies(nn.Module):
    """Padding by copies of the first element, kept in buffers that rotate, in a ring and in an ordered window."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(2, 4, 3, padding=2, padding_mode="replicate")
        self.second, self.far = conv(4, 4, stride), nn.Conv1d(4, 3, 3, dilation=10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(torch.relu(self.first(x)))
        mean = F.avg_pool1d(F.pad(x[:, :3], (8, 0), mode="replicate"), 9, 1)
        return self.far(F.pad(x, (20, 0), mode="replicate")) + mean


class UpAgain(nn.Module):
    """Down by a stride and up by a transposed convolution, beside what stayed."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = conv(2, 4, 2), nn.ConvTranspose1d(4, 2, 4, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x)) + x


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "every step": (lambda: nn.Sequential(conv(2, 4), nn.MaxPool1d(3, 1, 1), conv(4, 3)), (2, 12), 1),
    "rate 2": (lambda: nn.Sequential(conv(2, 4, 2), conv(4, 4), nn.AvgPool1d(3, 1, 1)), (2, 16), 2),
    "rate 4": (lambda: nn.Sequential(conv(2, 4), conv(4, 4, 2), nn.MaxPool1d(3, 2, 1), conv(4, 3)), (2, 24), 4),
    "persons": (Persons, (3, 12, 2), 2),
    "recurrent": (Memory, (2, 16), 2),
    "unequal answers": (UnequalAnswers, (2, 16), 4),
    "pooled": (lambda: Pooled(1), (2, 24), 1),
    "copies": (lambda: Copies(1), (2, 24), 1),
    "copies at rate 2": (lambda: Copies(2), (2, 24), 2),
    "up again": (UpAgain, (2, 16), 2),
    "pooled at rate 4": (lambda: Pooled(4), (2, 32), 4),
}


def make(folder: Path, name: str) -> tuple[Model, tuple[int, ...]]:
    network, clip, stride = NETS[name]
    torch.manual_seed(0)
    net = randomise_norms(network()).eval()
    model = edgeco.load(write_network(folder / "net.edgeco", net, clip), threads=1)
    assert model.manifest.timeline.stride == stride
    return model, (clip[0], *clip[2:])


def numbers(shape: tuple[int, ...]) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: rng.standard_normal(shape).astype(np.float32)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", NETS)
def test_every_row_answers_as_a_stream_of_its_own(name: str, tmp_path: Path) -> None:
    model, shape = make(tmp_path, name)
    counts = Driver(model, 4, numbers(shape), seed=3).run(300)
    assert min(counts[what] for what in ("joined", "left", "reset", "moved out", "moved in")) > 3, counts
    assert min(counts[what] for what in ("answered", "held")) > 20, counts


def test_together_these_networks_have_every_storage(tmp_path: Path) -> None:
    histories = [h for name in NETS for h in make(tmp_path, name)[0].manifest.histories]
    assert {h.storage for h in histories} == {"slots", "ring", "mirror"}
    assert {(h.rate, h.storage) for h in histories} >= {(2, "slots"), (4, "ring"), (4, "mirror")}
    assert any(h.phase for h in histories)
    assert any(h.rows_per_stream > 1 for h in histories)


def test_a_row_takes_frames_in_the_ticks_that_stand_where_it_stands(tmp_path: Path) -> None:
    model, shape = make(tmp_path, "rate 4")
    frame = np.zeros(shape, np.float32)
    with model.streams(3) as streams:
        first = streams.join()
        for _ in range(5):
            streams.tick({first: frame})
        late = streams.join()
        assert (streams.waits(late), streams.ready) == (3, (first,))
        with pytest.raises(FrameError, match=r"row 1 takes its next frame after 3 more ticks.*streams\.ready"):
            streams.tick({first: frame, late: frame})
        for wait in (3, 2, 1):
            assert streams.waits(late) == wait
            streams.tick({first: frame})
        assert streams.ready == (first, late)
        streams.tick({late: frame})
        assert (streams.waits(first), streams.ready) == (3, (late,)), "a held row waits for its turn to come round"
        for _ in range(3):
            streams.tick({})
        assert (streams.waits(first), streams.waits(late)) == (0, 1)
        streams.leave(first)
        streams.leave(late)
        assert streams.ready == ()
        again = streams.join()
        assert streams.waits(again) == 0, "nobody is there to wait for"


def test_a_row_that_is_moved_in_alone_need_not_wait(tmp_path: Path) -> None:
    model, shape = make(tmp_path, "rate 4")
    frame = np.ones(shape, np.float32)
    with model.stream() as stream, model.streams(2) as streams:
        for _ in range(7):
            stream.step(frame)
        row = streams.join()
        streams.restore(row, stream.snapshot())
        assert (streams.waits(row), streams.steps(row)) == (0, 7)
        assert streams.snapshot(row) == stream.snapshot()
