"""AGCN: graph convolution over joints whose graph is partly learned, partly told from the skeleton at hand.

Shi et al. (2019, arXiv:1805.07694). As published one matrix of similarities serves the whole clip, so that nothing of
it can be kept from frame to frame; per frame (Hedegaard et al., 2022, arXiv:2203.11009) it streams exactly.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgeco.models.skeleton import LAYOUTS, Layout, SkeletonNet, skeleton_clip
from edgeco.models.stgcn import GraphConv


class AdaptiveGraphConv(GraphConv):
    """A graph convolution to whose matrix the similarities of embedded joints are added.

    Args:
        scope: "frame" (each frame by its own similarities: streams exactly) or "clip" (as published).
    """

    def __init__(self, channels_in: int, channels_out: int, layout: Layout, scope: str) -> None:
        super().__init__(channels_in, channels_out, layout)
        self.embedding = channels_out // 4
        self.a_conv = nn.ModuleList(nn.Conv2d(channels_in, self.embedding, 1) for _ in self.A)
        self.b_conv = nn.ModuleList(nn.Conv2d(channels_in, self.embedding, 1) for _ in self.A)
        for conv in (*self.a_conv, *self.b_conv):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out")
            nn.init.zeros_(conv.bias)
        self.scope = scope

    def mixed(self, x: Tensor) -> Tensor:
        """(N, C, T, V) to (N, C', T, V), before norm and shortcut."""
        similar = self._per_frame if self.scope == "frame" else self._per_clip
        fixed = self.A + self.graph_attn
        parts = [
            conv(similar(x, theta(x), phi(x), matrix))
            for conv, theta, phi, matrix in zip(self.g_conv, self.a_conv, self.b_conv, fixed, strict=True)
        ]
        return parts[0] + parts[1] + parts[2]  # type: ignore[no-any-return]

    def _per_frame(self, x: Tensor, theta: Tensor, phi: Tensor, fixed: Tensor) -> Tensor:
        scores = theta.permute(0, 2, 3, 1) @ phi.permute(0, 2, 1, 3) / self.embedding  # (N, T, V, V)
        return (x.transpose(1, 2) @ (fixed + scores.softmax(-2))).transpose(1, 2)

    def _per_clip(self, x: Tensor, theta: Tensor, phi: Tensor, fixed: Tensor) -> Tensor:
        n, c, t, v = theta.shape
        scores = theta.permute(0, 3, 1, 2).reshape(n, v, c * t) @ phi.reshape(n, c * t, v) / (c * t)  # (N, V, V)
        return x @ (fixed + scores.softmax(-2))[:, None]


def _make(star: bool, classes: int, layout: str, persons: int, width: int, scope: str) -> SkeletonNet:
    if scope not in ("frame", "clip"):
        raise ValueError(f'attention is {scope!r}; give "frame" or "clip"')
    skeleton = LAYOUTS[layout]

    def layer(_: int, a: int, b: int) -> nn.Module:
        return AdaptiveGraphConv(a, b, skeleton, scope)

    return SkeletonNet(layer, skeleton, classes, star, persons, width)


def agcn(
    classes: int = 60, layout: str = "ntu", persons: int = 2, width: int = 64, attention: str = "frame"
) -> SkeletonNet:
    """AGCN: padded in time, strided twice; similarities per frame, or with attention="clip" as published."""
    return _make(False, classes, layout, persons, width, attention)


def agcn_star(
    classes: int = 60, layout: str = "ntu", persons: int = 2, width: int = 64, attention: str = "frame"
) -> SkeletonNet:
    """AGCN*: neither stride nor padding in time, similarities per frame."""
    return _make(True, classes, layout, persons, width, attention)


for _factory in (agcn, agcn_star):
    _factory.clip, _factory.fps, _factory.input = skeleton_clip(), 30.0, "array"  # type: ignore[attr-defined]
