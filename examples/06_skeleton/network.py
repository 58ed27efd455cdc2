"""A small skeleton network: joints mix along learnt edges, time by two convolutions, one person in view."""

import torch
from torch import nn


class SkeletonNet(nn.Module):
    """(B, 3, T, 5, 1) x, y and score of 5 joints to scores of two gestures."""

    def __init__(self) -> None:
        super().__init__()
        self.edges = nn.Parameter(torch.eye(5) + 0.1 * torch.randn(5, 5))
        self.first = nn.Conv3d(3, 16, (5, 1, 1))
        self.norm = nn.BatchNorm3d(16)
        self.second = nn.Conv3d(16, 16, (5, 1, 1))
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.einsum("bctvm,vw->bctwm", x, self.edges)
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.second(x))
        return self.head(x.mean(dim=(2, 3, 4)))


def make() -> nn.Module:
    torch.manual_seed(0)
    return SkeletonNet().eval()


make.clip = (3, 16, 5, 1)
make.fps = 15.0
make.input = "array"
make.labels = ("wave", "rest")
