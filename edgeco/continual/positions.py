"""Positions that a live stream has too: a table whose rows are taken in turn, for ever.

A table of positions *within the clip* gives every token another number with each new frame, so that nothing computed
from it can be kept. Recycled, a token keeps the row it was given as it came (Hedegaard et al., Continual Transformers,
arXiv:2201.06268). With 2 N - 1 rows for windows of N tokens, every pair of tokens in a window has an offset of its own.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from edgeco.graph.channels import channel_rule
from edgeco.graph.channels.axes import Axis, Value
from edgeco.graph.channels.call import Call


@torch.library.custom_op("edgeco::recycle", mutates_args=())
def recycle(x: Tensor, table: Tensor, dim: int, start: int) -> Tensor:
    """`x` plus row (start + i) mod M of `table` (M, width) at position i of axis `dim`; `width` is the last axis."""
    return x + _spread(table[_rows(x, table, dim, start)], x, dim)


@recycle.register_fake
def _like(x: Tensor, table: Tensor, dim: int, start: int) -> Tensor:
    return torch.empty_like(x)


def _rows(x: Tensor, table: Tensor, dim: int, start: int) -> Tensor:
    return (torch.arange(x.shape[dim], device=x.device) + start) % table.shape[0]


def _spread(rows: Tensor, x: Tensor, dim: int) -> Tensor:
    """(positions, width) with axes of one where `x` has others."""
    shape = [1] * x.ndim
    shape[dim], shape[-1] = rows.shape
    return rows.reshape(shape)


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor, int, int], output: Tensor) -> None:
    x, table, dim, start = inputs
    ctx.dim, ctx.size, ctx.rows = dim % x.ndim, table.shape[0], _rows(x, table, dim, start)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
    others = [axis for axis in range(grad.ndim - 1) if axis != ctx.dim]
    rows = grad.sum(others) if others else grad
    return grad, rows.new_zeros(ctx.size, grad.shape[-1]).index_add(0, ctx.rows, rows), None, None


recycle.register_autograd(_gradient, setup_context=_remember)


@channel_rule(torch.ops.edgeco.recycle)
def _channels(call: Call) -> Value:
    """Channels of the tokens are those of the table; its rows stay."""
    x, table = call.args["x"], call.args["table"]
    call.pin(table[0])
    width = call.unite([x[-1], table[1]])
    return (*(axis.loud() for axis in x[:-1]), Axis(width.labels, width.silent))


def cyclic_table(size: int, width: int) -> Tensor:
    """Sines and cosines that turn a whole number of times in `size` rows, so that the last row leads on to the first.

    The numbers of turns are a geometric ladder from 1 to half of `size`, a sine and a cosine for each.

    Returns:
        (size, width), float32.

    >>> table = cyclic_table(8, 4)
    >>> bool(torch.allclose((table[0] - table[1]).norm(), (table[-1] - table[0]).norm()))
    True
    """
    pairs = -(-width // 2)
    steps = torch.linspace(0, 1, pairs, dtype=torch.float64) if pairs > 1 else torch.zeros(1, dtype=torch.float64)
    turns = torch.exp(steps * math.log(max(size / 2, 1))).round()
    angle = 2 * math.pi * torch.arange(size, dtype=torch.float64)[:, None] * turns / size
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width].float()


class RecyclingPositionalEncoding(nn.Module):
    """Adds a row of a table to every token, the rows in turn: in a stream the token of step t has row t mod `size`.

    A clip is numbered from row 0 on in evaluation. In training every call begins one row further, so that the network
    meets all of them; it has to, for in a stream a window begins anywhere. Converted, the row is part of the state.

    Args:
        width: size of the tokens, their last axis.
        size: rows of the table; 2 N - 1 for windows of N tokens tells all pairs in a window apart.
        learned: whether the table is a parameter; else it is fixed, see `cyclic_table`.
        dim: the axis of time, counted with the batch.

    >>> encoding = RecyclingPositionalEncoding(4, size=5, learned=False).eval()
    >>> tokens = encoding(torch.zeros(1, 7, 4))
    >>> bool((tokens[:, 5] == tokens[:, 0]).all())
    True
    """

    table: Tensor

    def __init__(self, width: int, size: int, *, learned: bool = True, dim: int = 1) -> None:
        super().__init__()
        if learned:
            self.table = nn.Parameter(torch.randn(size, width) * 0.02)
        else:
            self.register_buffer("table", cyclic_table(size, width))
        self.dim = dim
        self.start = 0
        """Row of the next clip's first token; moves in training alone."""

    def forward(self, x: Tensor) -> Tensor:
        start = 0
        if self.training:
            start = self.start
            self.start = (start + 1) % self.table.shape[0]
        made: Tensor = recycle(x, self.table.to(x.dtype), self.dim, start)
        return made
