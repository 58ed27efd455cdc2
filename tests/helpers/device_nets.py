"""Small networks that between them use slots, rings and mirrors, several phases, pictures and several answers."""

from __future__ import annotations

from builders import PictureNet, SensorNet, TwoAnswers, randomised
from torch import Tensor, nn


class Strided(nn.Module):
    """Readings (B, 4, T): strides of 2 and 2, so that answers come every fourth step."""

    clip = (4, 16)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(4, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv1d(8, 8, 2, stride=2))
        self.head = nn.Linear(8, 3)
        randomised(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(2))


class Recurrent(nn.Module):
    """Readings (B, T, 5) through a GRU, whose state goes round."""

    clip = (9, 5)
    time_dim = 1

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(5, 7, batch_first=True)
        self.head = nn.Linear(7, 3)
        randomised(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


class Dilated(nn.Module):
    """Readings (B, 3, T), deep histories of small elements: mirrors that cannot be bound at every element."""

    clip = (3, 60)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(3, 5, 3, dilation=4), nn.ReLU(), nn.Conv1d(5, 5, 3, dilation=16), nn.ReLU(), nn.AvgPool1d(8, 1)
        )
        self.head = nn.Conv1d(5, 2, 1)
        randomised(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)).amax(2)


class Attending(nn.Module):
    """Readings (B, T, 8): the newest element asks the window."""

    clip = (6, 8)
    time_dim = 1

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)
        randomised(self)

    def forward(self, x: Tensor) -> Tensor:
        given = self.norm(x)
        return self.head(self.attention(given[:, -1:], given, given, need_weights=False)[0][:, 0])


def _factory(net: type[nn.Module]):
    def make() -> nn.Module:
        return net()

    make.__name__ = net.__name__.lower()
    make.clip = net.clip
    make.time_dim = getattr(net, "time_dim", 2)
    return make


class Camera(PictureNet):
    """Pictures of 32 by 32, as a camera gives them."""

    clip = (3, 6, 32, 32)


camera, two, sensors = _factory(Camera), _factory(TwoAnswers), _factory(SensorNet)
strided, recurrent, dilated, attending = map(_factory, (Strided, Recurrent, Dilated, Attending))
NAMES = ("camera", "two", "sensors", "strided", "recurrent", "dilated", "attending")
