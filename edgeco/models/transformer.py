"""Transformers over feature vectors: online action detection, audio (Hedegaard et al., 2022, arXiv:2201.06268).

Tokens are numbered by positions that recycle, so that a token keeps its number in a stream. The answer is made of the
newest token. One layer streams exactly; of several, each token of a deeper layer must see its window again, or the
layers be trained to look back only (the deep form).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeco.continual.positions import RecyclingPositionalEncoding

OAD_TOKENS, AUDIO_TOKENS = 64, 120
OAD_FEATURES, AUDIO_FEATURES = 3072, 128
"""Of two-stream features learned on ActivityNet (4096: on Kinetics); of VGGish."""


class Layer(nn.Module):
    """An encoder layer with norms behind its two parts; the projections to queries, keys and values have no bias.

    Args:
        width: of a token.
        heads: of attention.
        inner: width of the feed-forward part.
        span: tokens that each looks back over, itself among them; None for all of the clip, also later ones.
        dropout: share dropped in training.
    """

    def __init__(self, width: int, heads: int, inner: int, span: int | None, dropout: float = 0.1) -> None:
        super().__init__()
        self.heads, self.span = heads, span
        self.query, self.key_value = nn.Linear(width, width, bias=False), nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.linear1, self.linear2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, newest: bool = False) -> Tensor:
        """(B, T, width) to the same, or to the newest token (B, 1, width) alone."""
        asking = x[:, -1:] if newest else x
        x = self.norm1(asking + self.dropout(self._attend(asking, x)))
        y = self.linear2(self.dropout(F.gelu(self.linear1(x))))
        return self.norm2(x + self.dropout(y))  # type: ignore[no-any-return]

    def _attend(self, asking: Tensor, x: Tensor) -> Tensor:
        projected = (self.query(asking), *self.key_value(x).chunk(2, 2))
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in projected)
        mask = None
        if self.span is not None:
            places = torch.arange(x.shape[1], device=x.device)
            age = places[-asking.shape[1] :, None] - places
            mask = (age >= 0) & (age < self.span)
        y = F.scaled_dot_product_attention(query, key, value, mask)
        return self.out(y.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class TokenNet(nn.Module):
    """An encoder over tokens (B, T, features), returning logits (B, classes) of the newest.

    Args:
        features, width, heads, inner: widths of a token as given and inside, heads, width of the feed-forward part.
        classes: classes told apart.
        layers: of the encoder.
        span: see `Layer`.
        positions: rows of the recycled table.
        learned: whether the table is.
    """

    def __init__(
        self,
        features: int,
        width: int,
        heads: int,
        inner: int,
        classes: int,
        layers: int,
        span: int | None,
        positions: int,
        learned: bool,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(features, width)
        self.positions = RecyclingPositionalEncoding(width, positions, learned=learned)
        self.dropout = nn.Dropout(0.1)
        self.layers = nn.ModuleList(Layer(width, heads, inner, span) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def tokens(self, x: Tensor) -> Tensor:
        """Encoded tokens (B, T, width), of which `forward` computes the newest alone."""
        return self._encoded(x, newest=False)

    def _encoded(self, x: Tensor, newest: bool) -> Tensor:
        x = self.dropout(self.positions(self.embed(x)))
        for i, layer in enumerate(self.layers):
            x = layer(x, newest and i + 1 == len(self.layers))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, features) to logits (B, classes)."""
        return self.head(self.norm(self._encoded(x, newest=True)[:, 0]))  # type: ignore[no-any-return]


def _oad(classes: int, features: int, layers: int, span: int | None, width: int) -> TokenNet:
    return TokenNet(features, width, 8, width, classes, layers, span, 2 * OAD_TOKENS - 1, learned=False)


def oad_b1(classes: int = 22, features: int = OAD_FEATURES, width: int = 1024) -> TokenNet:
    """Online action detection with one layer: streams exactly."""
    return _oad(classes, features, 1, None, width)


def oad_b2(classes: int = 22, features: int = OAD_FEATURES, width: int = 1024) -> TokenNet:
    """Online action detection with two layers, the second over a window computed anew at every step."""
    return _oad(classes, features, 2, None, width)


def oad_deep(classes: int = 22, features: int = OAD_FEATURES, width: int = 1024, layers: int = 4) -> TokenNet:
    """Online action detection in which every layer computes the newest token alone, from the 64 newest before it."""
    return _oad(classes, features, layers, OAD_TOKENS, width)


def audio_transformer(classes: int = 10, features: int = AUDIO_FEATURES, width: int = 192) -> TokenNet:
    """Music genres from 120 tokens, four to a second."""
    return TokenNet(features, width, 16, width, classes, 1, None, width, learned=True)


for _factory in (oad_b1, oad_b2, oad_deep):
    _factory.clip, _factory.fps = (OAD_TOKENS, OAD_FEATURES), 4.0  # type: ignore[attr-defined]
audio_transformer.clip, audio_transformer.fps = (AUDIO_TOKENS, AUDIO_FEATURES), 4.0  # type: ignore[attr-defined]
for _factory in (oad_b1, oad_b2, oad_deep, audio_transformer):
    _factory.time_dim, _factory.input = 1, "array"  # type: ignore[attr-defined]
oad_b2.exact = "interior"  # type: ignore[attr-defined]
