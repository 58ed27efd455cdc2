"""The networks of ``gpu_proof.py`` that are not in the zoo with weights: fixed random weights, norms randomised."""

from __future__ import annotations

import torch
from randomised import randomised
from torch import Tensor, nn

from edgeco.models import stgcn, x3d


def x3d_s() -> nn.Module:
    """X3D-S at 160 by 160."""
    torch.manual_seed(0)
    return randomised(x3d.x3d_s())


x3d_s.clip = (3, 13, 160, 160)  # type: ignore[attr-defined]


def st_gcn_star() -> nn.Module:
    """ST-GCN* over NTU's skeletons, whose step network is CoST-GCN*."""
    torch.manual_seed(0)
    return randomised(stgcn.st_gcn_star())


st_gcn_star.clip = stgcn.st_gcn_star.clip  # type: ignore[attr-defined]


class Encoder(nn.Module):
    """One transformer layer over 64 elements of 256 numbers (B, T, 256); the newest asks the window."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(256, 8, batch_first=True)
        self.first, self.second = nn.LayerNorm(256), nn.LayerNorm(256)
        self.wide, self.narrow = nn.Linear(256, 1024), nn.Linear(1024, 256)
        self.head = nn.Linear(256, 20)

    def forward(self, x: Tensor) -> Tensor:
        given = self.first(x)
        newest = x[:, -1:] + self.attention(given[:, -1:], given, given, need_weights=False)[0]
        newest = newest + self.narrow(nn.functional.gelu(self.wide(self.second(newest))))
        return self.head(newest[:, 0])


def encoder() -> nn.Module:
    """The encoder, its weights always the same."""
    torch.manual_seed(0)
    return Encoder().eval()


encoder.clip = (64, 256)  # type: ignore[attr-defined]
encoder.time_dim = 1  # type: ignore[attr-defined]
