"""Networks that loop over time in Python: cells written by hand, and the many spellings of such loops."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

FRAME = (4, 5)


class GRUCell(nn.Module):
    """A convolutional gated recurrent unit, with a norm inside."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(channels + hidden, 2 * hidden, 3, padding=1)
        self.new = nn.Conv2d(channels + hidden, hidden, 3, padding=1)
        self.norm = nn.BatchNorm2d(hidden)

    def start(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], self.hidden, *x.shape[-2:])

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        reset, update = self.gates(torch.cat([x, h], 1)).sigmoid().chunk(2, 1)
        new = self.norm(self.new(torch.cat([x, reset * h], 1))).tanh()
        return (1 - update) * h + update * new


class LSTMCell(nn.Module):
    """A convolutional long short-term memory."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(channels + hidden, 4 * hidden, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o, g = torch.split(self.gates(torch.cat([x, h], dim=1)), self.hidden, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class ConvGRU(nn.Module):
    """One layer, every state."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = GRUCell(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, outs = self.cell.start(x), []
        for t in range(x.shape[2]):
            h = self.cell(x[:, :, t], h)
            outs.append(h)
        return torch.stack(outs, 2)


class ConvLSTM(nn.Module):
    """A padded convolution, then a layer that carries two tensors; frames by unbind, zeros from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.cell = nn.Conv3d(2, 3, 3, padding=1), LSTMCell(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        h, c = torch.zeros_like(y[:, :, 0]), torch.zeros_like(y[:, :, 0])
        outs = []
        for frame in y.unbind(2):
            h, c = self.cell(frame, h, c)
            outs += [h]
        return torch.stack(outs, dim=2)


class Learned(nn.Module):
    """Starts from a learned tensor, expanded over the batch, or from a constant other than zero."""

    def __init__(self, number: float | None = None) -> None:
        super().__init__()
        self.cell = GRUCell(2, 3)
        start = torch.randn(1, 3, *FRAME) if number is None else torch.full((1, 3, *FRAME), number)
        self.start = nn.Parameter(start)

    def forward(self, x: Tensor) -> Tensor:
        h, outs = self.start.expand(x.shape[0], -1, -1, -1), []
        for t in range(x.shape[2]):
            h = self.cell(x[:, :, t], h)
            outs.append(h)
        return torch.stack(outs, 2)


class TwoLoops(nn.Module):
    """The second layer's loop runs over the first one's list."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = GRUCell(2, 3), LSTMCell(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h, first = self.a.start(x), []
        for t in range(x.shape[2]):
            h = self.a(x[:, :, t], h)
            first.append(h)
        s, c, outs = x.new_zeros(x.shape[0], 2, *FRAME), x.new_zeros(x.shape[0], 2, *FRAME), []
        for y in first:
            s, c = self.b(y, s, c)
            outs.append(s)
        return torch.stack(outs, 2)


class OneBody(nn.Module):
    """Both layers in one loop's body."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = GRUCell(2, 3), GRUCell(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        h, s, outs = self.a.start(x), self.b.start(x), []
        for t in range(x.shape[2]):
            h = self.a(x[:, :, t], h)
            s = self.b(h, s)
            outs.append(s)
        return torch.stack(outs, 2)


class Between(nn.Module):
    """A convolution over time between two loops; time first, frames as slices that keep their axis."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = GRUCell(2, 3), GRUCell(3, 2)
        self.conv = nn.Conv3d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y, h, outs = x.permute(2, 0, 1, 3, 4), self.a.start(x), []
        for t in range(x.shape[2]):
            h = self.a(y[t], h)
            outs.append(h)
        z, s, outs = self.conv(torch.stack(outs).permute(1, 2, 0, 3, 4)), self.b.start(x), []
        for t in range(x.shape[2]):
            s = self.b(z[:, :, t : t + 1].squeeze(2), s)
            outs.append(s.unsqueeze(2))
        return torch.cat(outs, 2)


class Written(nn.Module):
    """Writes each state into a prepared tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = GRUCell(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.cell.start(x)
        out = x.new_zeros(x.shape[0], 3, *x.shape[2:])
        for t in range(x.shape[2]):
            h = self.cell(x[:, :, t], h)
            out[:, :, t] = h
        return out


class Grown(nn.Module):
    """Lets a tensor grow by each state."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = GRUCell(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = out = self.cell(x[:, :, 0], self.cell.start(x))
        out = out.unsqueeze(2)
        for t in range(1, x.shape[2]):
            h = self.cell(x[:, :, t], h)
            out = torch.cat([out, h.unsqueeze(2)], 2)
        return out


class FirstApart(nn.Module):
    """The first frame goes through another layer."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.first = GRUCell(2, 3), nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x[:, :, 0]) + 1
        outs = [h]
        for t in range(1, x.shape[2]):
            h = self.cell(x[:, :, t], h)
            outs.append(h)
        return torch.stack(outs, 2)


class Average(nn.Module):
    """An exponential moving average that starts from the first frame."""

    def forward(self, x: Tensor) -> Tensor:
        h = x[:, :, 0]
        outs = [h]
        for t in range(1, x.shape[2]):
            h = 0.75 * h + 0.25 * x[:, :, t]
            outs.append(h)
        return torch.stack(outs, 2)


class Filter(nn.Module):
    """A recursive filter of second order."""

    def forward(self, x: Tensor) -> Tensor:
        before = last = torch.zeros_like(x[:, :, 0])
        outs = []
        for t in range(x.shape[2]):
            before, last = last, 0.2 * x[:, :, t] + 1.1 * last - 0.4 * before
            outs.append(last)
        return torch.stack(outs, 2)


class Difference(nn.Module):
    """Carries the previous frame itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        last, outs = torch.zeros_like(x[:, :, 0]), []
        for t in range(x.shape[2]):
            outs.append(self.conv(x[:, :, t] - last).relu())
            last = x[:, :, t]
        return torch.stack(outs, 2)


class Framewise(nn.Module):
    """Carries nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.conv(x[:, :, t]).relu() for t in range(x.shape[2])], 2)


class Strided(nn.Module):
    """A loop over every second frame's features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.cell = nn.Conv3d(2, 3, 3, (2, 1, 1), padding=1), GRUCell(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        h, outs = self.cell.start(x), []
        for t in range(y.shape[2]):
            h = self.cell(y[:, :, t], h)
            outs.append(h)
        return torch.stack(outs, 2)


class Numbers(nn.Module):
    """nn.GRUCell and nn.LSTMCell over features."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.GRUCell(2, 4), nn.LSTMCell(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, h = x.mean((3, 4)), torch.zeros(x.shape[0], 4, dtype=x.dtype)
        s = torch.zeros(x.shape[0], 3, dtype=x.dtype)
        c, outs = torch.zeros_like(s), []
        for t in range(y.shape[2]):
            h = self.a(y[:, :, t], h)
            s, c = self.b(h, (s, c))
            outs.append(s)
        return torch.stack(outs, -1)


NETS: dict[str, Callable[[], nn.Module]] = {
    "ConvGRU": ConvGRU,
    "ConvLSTM": ConvLSTM,
    "learned start": Learned,
    "start of ones": lambda: Learned(1.0),
    "two loops": TwoLoops,
    "one body": OneBody,
    "between": Between,
    "written": Written,
    "grown": Grown,
    "first apart": FirstApart,
    "average": Average,
    "filter": Filter,
    "difference": Difference,
    "framewise": Framewise,
    "strided": Strided,
    "numbers": Numbers,
}
CLIP = (2, 6, *FRAME)
