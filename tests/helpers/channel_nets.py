"""Small networks, one for every way in which channels depend on each other; each makes one that a pruner must know."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize


class Excite(nn.Module):
    """X3D's block: expand, depthwise, squeeze-excite, project, beside a shortcut, behind a stem in two convolutions."""

    def __init__(self, flat: bool = False) -> None:
        super().__init__()
        self.xy = nn.Conv3d(3, 8, (1, 3, 3), padding=(0, 1, 1), bias=False)
        self.t = nn.Conv3d(8, 8, (5, 1, 1), padding=(2, 0, 0), groups=8, bias=False)
        self.bn = nn.BatchNorm3d(8)
        self.a, self.a_bn = nn.Conv3d(8, 18, 1, bias=False), nn.BatchNorm3d(18)
        self.b, self.b_bn = nn.Conv3d(18, 18, 3, padding=1, groups=18, bias=False), nn.BatchNorm3d(18)
        self.fc1, self.fc2 = nn.Conv3d(18, 6, 1), nn.Conv3d(6, 18, 1)
        self.c, self.c_bn = nn.Conv3d(18, 8, 1, bias=False), nn.BatchNorm3d(8)
        self.flat = flat
        self.head = nn.Linear(8 * 6 * 16 if flat else 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.t(self.xy(x))))
        y = self.b_bn(self.b(F.relu(self.a_bn(self.a(x)))))
        gate = self.fc2(F.relu(self.fc1(y.mean((2, 3, 4), keepdim=True)))).sigmoid()
        x = F.relu(x + self.c_bn(self.c(F.silu(y * gate))))
        return self.head(x.flatten(1) if self.flat else x.mean((2, 3, 4)))


class Tower(nn.Module):
    """A stem, something in the middle, a head: (B, 3, T) to (B, 5)."""

    def __init__(self, width: int = 16, out: int | None = None) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv1d(3, width, 3, padding=1), nn.BatchNorm1d(width)
        self.head = nn.Linear(out or width, 5)

    def middle(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(F.relu(self.norm(self.stem(x)))).mean(2))


class SharedTwice(Tower):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(16, 16, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        return self.layer(F.relu(self.layer(x)))


class Tied(Tower):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv1d(16, 16, 1), nn.Conv1d(16, 16, 1)
        self.two.weight = self.one.weight

    def middle(self, x: Tensor) -> Tensor:
        return self.two(F.relu(self.one(x)))


class ConcatResidual(Tower):
    def __init__(self) -> None:
        super().__init__(16, 24)
        self.a, self.b = nn.Conv1d(16, 8, 3, padding=1), nn.Conv1d(24, 24, 1)

    def middle(self, x: Tensor) -> Tensor:
        both = torch.cat([x, F.relu(self.a(x))], 1)
        return both + self.b(both)


class Joints(nn.Module):
    """ST-GCN: channels by a convolution, joints by an adjacency with einsum, in one convolution or in three."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("A", torch.rand(3, 7, 7))
        mask = torch.rand(3, 7, 7)
        if kind == "buffer":
            self.register_buffer("M", mask)
        else:
            self.M = nn.Parameter(mask)
        separate = kind == "separate"
        self.convs = nn.ModuleList([nn.Conv2d(3, 8, 1) for _ in range(3)] if separate else [nn.Conv2d(3, 24, 1)])
        self.bn, self.tcn, self.head = nn.BatchNorm2d(8), nn.Conv2d(8, 12, (3, 1), padding=(1, 0)), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = self.A * self.M
        if self.kind == "separate":
            y = sum(conv(x) @ a[i] for i, conv in enumerate(self.convs))
        elif self.kind == "chunk":
            y = sum(part @ a[i] for i, part in enumerate(self.convs[0](x).chunk(3, 1)))
        else:
            z = self.convs[0](x)
            n, kc, t, v = z.shape
            y = torch.einsum("nkctv,kvw->nctw", z.view(n, 3, kc // 3, t, v), a)
        return self.head(F.relu(self.tcn(F.relu(self.bn(y)))).mean((2, 3)))


class Gate(nn.Module):
    """A gate by halves of the channels, on clips."""

    def __init__(self, glu: bool) -> None:
        super().__init__()
        self.glu = glu
        self.conv, self.out, self.head = nn.Conv3d(3, 16, 3, padding=1), nn.Conv3d(8, 6, 1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.glu:
            y = F.glu(y, 1)
        else:
            a, b = y.chunk(2, 1)
            y = a * b.sigmoid()
        return self.head(F.relu(self.out(y)).mean((2, 3, 4)))


class Shuffled(nn.Module):
    """Pixel shuffle over frames."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(4, 6, 3), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        n, c, t, h, w = x.shape
        y = F.pixel_shuffle(self.a(x.transpose(1, 2).reshape(n * t, c, h, w)), 2)
        return self.head(F.relu(self.b(y)).mean((2, 3)).view(n, t, -1).mean(1))


class Aligned(nn.Module):
    """The shortcut cut in time as a convolution without padding leaves the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = nn.Conv3d(3, 8, 1), nn.Conv3d(8, 8, (3, 1, 1)), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head((self.conv(x) + x[:, :, 1:-1]).mean((2, 3, 4)))


class Shift(Tower):
    """TSM: an eighth of the channels from the frame before, an eighth from the one behind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(16, 16, 1)

    def middle(self, x: Tensor) -> Tensor:
        fold = x.shape[1] // 4
        out = torch.zeros_like(x)
        out[:, :fold, 1:] = x[:, :fold, :-1]
        out[:, fold : 2 * fold, :-1] = x[:, fold : 2 * fold, 1:]
        out[:, 2 * fold :] = x[:, 2 * fold :]
        return F.relu(self.conv(out))


class FixedSlice(Tower):
    """Channels cut at a number that stands in the code."""

    def __init__(self) -> None:
        super().__init__(16, 24)

    def middle(self, x: Tensor) -> Tensor:
        return torch.cat([x, x[:, :8] * 2], 1)


class ShuffledGroups(Tower):
    """ShuffleNet: grouped convolutions, channels shuffled between."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(16, 16, 1, groups=4), nn.Conv1d(16, 16, 3, padding=1, groups=4)

    def middle(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        n, c, t = x.shape
        x = x.view(n, 4, c // 4, t).transpose(1, 2).reshape(n, c, t)
        return F.relu(self.b(x))


class JointsFlat(nn.Module):
    """(N, V, C) flattened into a linear layer, channels innermost."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Linear(7 * 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(x)).mean(2).permute(0, 2, 1).flatten(1))


class Functional(Tower):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(16, 16, 3) * 0.2), nn.Parameter(torch.randn(16))

    def middle(self, x: Tensor) -> Tensor:
        return F.conv1d(x, self.w, self.b, padding=1)


class StateBuffer(Tower):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offset", torch.randn(16, 1))

    def middle(self, x: Tensor) -> Tensor:
        return x - self.offset


class Encoder(nn.Module):
    """PyTorch's own encoder."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.embed, self.encoder, self.head = nn.Linear(3, 16), nn.TransformerEncoder(layer, 1), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x.transpose(1, 2))).mean(1))


class FusedAttention(nn.Module):
    """Queries, keys and values of one layer, attention written out, a feed-forward part behind."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.width = 4, 4
        self.embed, self.qkv, self.out = nn.Linear(3, 16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down, self.norm = nn.Linear(16, 32), nn.Linear(32, 16), nn.LayerNorm(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.transpose(1, 2))
        b, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, self.width).permute(2, 0, 3, 1, 4).unbind(0)
        y = ((q @ k.transpose(-2, -1)) / math.sqrt(self.width)).softmax(-1) @ v
        x = self.norm(x + self.out(y.transpose(1, 2).reshape(b, t, -1)))
        return self.head((x + self.down(F.gelu(self.up(x)))).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: object) -> None:
        super().__init__()
        self.stem = nn.Conv1d(3, 8, 1)
        self.layer = kind(8, 12, num_layers=2, batch_first=True, **options)  # type: ignore[arg-type]
        self.head = nn.Linear(24 if options.get("bidirectional") else 12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(F.relu(self.stem(x)).transpose(1, 2))[0].mean(1))


class Grouped(Tower):
    """Group norm: whole groups fall."""

    def __init__(self) -> None:
        super().__init__()
        self.gn, self.conv = nn.GroupNorm(4, 16), nn.Conv1d(16, 16, 1)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(F.relu(self.gn(x))))


class LowRank(nn.Module):
    """W + B A in the shape of W, as an adapter adds it."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        out, rest = weight.shape[0], weight[0].numel()
        self.a, self.b = nn.Parameter(torch.randn(2, rest)), nn.Parameter(torch.randn(out, 2))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + 0.5 * (self.b @ self.a).reshape(weight.shape)


class Adapted(Tower):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(16, 16, 3, padding=1)
        parametrize.register_parametrization(self.conv, "weight", LowRank(self.conv.weight))
        parametrize.register_parametrization(self.stem, "weight", LowRank(self.stem.weight))

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class Transposed(Tower):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose1d(16, 16, 2, stride=2)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.up(F.max_pool1d(x, 2)))


class OverChannels(Tower):
    """A softmax over the channels: none may fall."""

    def middle(self, x: Tensor) -> Tensor:
        return x.softmax(1)


def frozen(net: nn.Module) -> nn.Module:
    """No parameter asks for a gradient."""
    return net.requires_grad_(False)


Made = tuple[Callable[[], nn.Module], tuple[int, ...]]

VIDEO, SERIES, JOINTS = (3, 6, 4, 4), (3, 12), (3, 6, 7)

TOYS: dict[str, Made] = {
    "x3d block": (Excite, VIDEO),
    "x3d block, flattened": (lambda: Excite(flat=True), VIDEO),
    "frozen": (lambda: frozen(Excite()), VIDEO),
    "shared twice": (SharedTwice, SERIES),
    "tied weights": (Tied, SERIES),
    "concat and residual": (ConcatResidual, SERIES),
    "einsum": (lambda: Joints("einsum"), JOINTS),
    "einsum, mask a buffer": (lambda: Joints("buffer"), JOINTS),
    "joints by chunks": (lambda: Joints("chunk"), JOINTS),
    "joints by three": (lambda: Joints("separate"), JOINTS),
    "gate of halves": (lambda: Gate(glu=False), VIDEO),
    "glu": (lambda: Gate(glu=True), VIDEO),
    "pixel shuffle": (Shuffled, VIDEO),
    "shortcut cut in time": (Aligned, VIDEO),
    "temporal shift": (Shift, SERIES),
    "fixed slice": (FixedSlice, SERIES),
    "shuffled groups": (ShuffledGroups, SERIES),
    "permuted and flattened": (JointsFlat, JOINTS),
    "functional": (Functional, SERIES),
    "state buffer": (StateBuffer, SERIES),
    "encoder": (Encoder, SERIES),
    "fused attention": (FusedAttention, SERIES),
    "lstm": (lambda: Recurrent(nn.LSTM), SERIES),
    "gru": (lambda: Recurrent(nn.GRU), SERIES),
    "rnn of both directions": (lambda: Recurrent(nn.RNN, bidirectional=True), SERIES),
    "group norm": (Grouped, SERIES),
    "adapted": (Adapted, SERIES),
    "transposed": (Transposed, SERIES),
}
"""Networks of which some channels can be removed, and the shape of a clip of each."""
