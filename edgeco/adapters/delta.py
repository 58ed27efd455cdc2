"""Learned changes of a weight, W' = W + scale * delta: low rank, direct, and of shared blocks.

All are fusible: what runs is an ordinary layer whose weight is W'. Each is exactly zero when it is made, so that
attaching one changes no answer. Sizes are read off the tensors at every call, so that pruning may slice them.

Sources: low rank, LoRA (Hu et al., arXiv:2106.09685), over a whole kernel or, as SPLoRA and SPPaRA (Hedegaard et al.,
arXiv:2211.10155), at its centre tap; blocks, SPLoPA of the same paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F


class Delta(nn.Module):
    """A learned change of one weight, to be registered as its parametrisation.

    Attributes:
        scale: what the change is multiplied by, alpha / rank.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self._merged: tuple[tuple[object, ...], Tensor] | None = None

    def delta(self, weight: Tensor) -> Tensor:
        """The change before scaling, in the shape of `weight`, of which nothing else is read."""
        raise NotImplementedError

    def forward(self, weight: Tensor) -> Tensor:
        """W', or the one that was merged, while nothing is learned and nothing has changed since."""
        traced = type(weight) not in (Tensor, nn.Parameter)
        if self._merged is not None and not (self.training or torch.is_grad_enabled() or traced):
            state, merged = self._merged
            if state == self._state(weight):
                return merged
        return weight + self.scale * self.delta(weight)

    def merge(self, weight: Tensor) -> None:
        """Keep W' ready for inference; training computes it anew, and a changed tensor undoes this."""
        self._merged = (self._state(weight), fused(weight, [self]).detach())

    def unmerge(self) -> None:
        """Compute W' at every call again."""
        self._merged = None

    @property
    def merged(self) -> bool:
        return self._merged is not None

    def _state(self, weight: Tensor) -> tuple[object, ...]:
        """What changes whenever the weight or the adapter does."""
        tensors = (weight, *self.parameters())
        return tuple((t.data_ptr(), t._version, t.dtype, t.device) for t in tensors)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self.unmerge()  # another device or type
        return super()._apply(*args, **kwargs)


class LowRank(Delta):
    """delta = B A, padded with zeros where A spans less than the kernel.

    A is (parts * rank, in / groups, kernel…), a kernel axis it does not span having size 1; B is (out, rank). Only the
    first axis of the weight counts as out: of a transposed convolution that is its input. With several parts the weight
    is as many matrices one below the other, each with an A of its own, as the queries, keys and values of attention.
    """

    def __init__(
        self, weight: Tensor, rank: int, span: Sequence[bool], scale: float, parts: int = 1, seed: int = 0
    ) -> None:
        super().__init__(scale)
        self.parts = parts
        shape = (parts * rank, weight.shape[1], *_spanned(weight, span))
        bound = math.sqrt(3 / math.prod(shape[1:]))  # of variance 1 / fan-in
        start = torch.empty(shape).uniform_(-bound, bound, generator=torch.Generator().manual_seed(seed))
        self.a = nn.Parameter(start.to(weight.device, weight.dtype))
        self.b = nn.Parameter(weight.new_zeros(weight.shape[0], rank))

    def delta(self, weight: Tensor) -> Tensor:
        if self.parts == 1:
            product = self.b @ self.a.flatten(1)
        else:
            a = self.a.flatten(1).unflatten(0, (self.parts, -1))
            product = (self.b.unflatten(0, (self.parts, -1)) @ a).flatten(0, 1)
        return _placed(product.reshape(self.b.shape[0], *self.a.shape[1:]), weight)


class Direct(Delta):
    """delta = D, (out, in / groups, kernel…), padded with zeros along kernel axes in which D has size 1."""

    def __init__(self, weight: Tensor, span: Sequence[bool], scale: float = 1.0) -> None:
        super().__init__(scale)
        self.d = nn.Parameter(weight.new_zeros(*weight.shape[:2], *_spanned(weight, span)))

    def delta(self, weight: Tensor) -> Tensor:
        return _placed(self.d, weight)


class Prototypes(nn.Module):
    """Blocks of low rank that the adapters of one network share: B_k A_k, (count, height, width)."""

    def __init__(self, count: int, block: tuple[int, int], rank: int, like: Tensor, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        (height, width), bound = block, math.sqrt(3 / rank)
        b, a = torch.empty(count, height, rank), torch.empty(count, rank, width)
        self.b = nn.Parameter(b.uniform_(-bound, bound, generator=generator).to(like.device, like.dtype))
        self.a = nn.Parameter(a.uniform_(-bound, bound, generator=generator).to(like.device, like.dtype))

    def forward(self) -> Tensor:
        return self.b @ self.a


class Blocks(Delta):
    """delta = the sum over k of P_k (x) B_k A_k: every block of a matrix mixes the same prototypes, by its own numbers.

    P is (count, blocks down, blocks across); what the last blocks hold beyond the matrix is cut off.
    """

    def __init__(self, weight: Tensor, prototypes: Prototypes, scale: float) -> None:
        super().__init__(scale)
        self.prototypes = prototypes
        height, width = prototypes.b.shape[1], prototypes.a.shape[2]
        down, across = -(-weight.shape[0] // height), -(-weight.shape[1] // width)
        self.p = nn.Parameter(weight.new_zeros(prototypes.b.shape[0], down, across))

    def delta(self, weight: Tensor) -> Tensor:
        whole = torch.einsum("kij,kpq->ipjq", self.p, self.prototypes()).flatten(2, 3).flatten(0, 1)
        return whole[: weight.shape[0], : weight.shape[1]]


def fused(weight: Tensor, deltas: Sequence[Delta]) -> Tensor:
    """The weight with its changes, accumulated in double precision and rounded once."""
    total = weight.detach().double()
    with torch.no_grad():
        for delta in deltas:
            own = {name: value.double() for name, value in delta.named_parameters()}
            merged, delta._merged = delta._merged, None
            total = functional_call(delta, own, (total,))
            delta._merged = merged
    return total.to(weight.dtype)


def centre(size: int) -> int:
    """The centre tap of a kernel: of an even one, the first of its second half."""
    return size // 2


def _spanned(weight: Tensor, span: Sequence[bool]) -> list[int]:
    return [size if kept else 1 for size, kept in zip(weight.shape[2:], span, strict=True)]


def _placed(delta: Tensor, weight: Tensor) -> Tensor:
    """A change at the centre of the kernel axes that it does not span."""
    pads: list[int] = []
    for own, size in zip(reversed(delta.shape[2:]), reversed(weight.shape[2:]), strict=True):
        before = 0 if own == size else centre(size)
        pads += [before, size - own - before]
    return F.pad(delta, pads) if any(pads) else delta


__all__ = ["Blocks", "Delta", "Direct", "LowRank", "Prototypes", "centre", "fused"]
