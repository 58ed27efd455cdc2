"""Small networks of every storage, of rates above one and of several elements a row, with clip shape and stride."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
