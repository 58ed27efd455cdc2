"""What to adapt and how, as one typed record: readable from JSON, kept in every task pack."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from edgeco.errors import SpecError

Kind = Literal["low-rank", "splora", "sppara", "splopa", "axis", "taps", "full", "none"]
"""What is learned of a weight (out, in / groups, kernel…):

- ``low-rank``: B A over the whole kernel;
- ``splora``: B A at the centre tap alone;
- ``sppara``: a full matrix at the centre tap;
- ``splopa``: blocks that mix shared prototypes, of matrices alone (linear layers, attention);
- ``axis``: B A over the longest axes of the kernel, through the centre of the others;
- ``taps``: of depthwise kernels a change per channel and tap, over time alone in a kernel of three axes;
- ``full``: a change of every number, as fine-tuning does;
- ``none``: nothing, so that norms and head are all that is learned.

For depthwise kernels ``low-rank`` and ``axis`` take ``taps``, and ``splora`` the centre tap of each channel: a product
of two factors has more numbers there than the kernel itself.
"""

LEARNED: tuple[Kind, ...] = ("low-rank", "splora", "sppara", "splopa", "axis", "taps", "full")


class AdapterSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What to adapt and how.

    Attributes:
        kind: see `Kind`.
        rank: of the factors, at least 1 and at most the weight's own; below 1, a fraction of the weight's own.
        alpha: the change is scaled by alpha / rank; None stands for the rank, for a scale of 1.
        modules: patterns (regular expressions) of which one must match the whole name of a module or of a weight; none
            for all convolutions, linear layers and attention but the head.
        exclude: patterns of what is left alone, likewise.
        norms: whether norms are the task's own: gamma, beta, and the statistics of batch norms.
        biases: whether biases of adapted layers are learned.
        head: name of the layer that is the task's own as a whole; None for the last one.
        blocks, prototypes: size (down, across) and number of the blocks of ``splopa``.
        seed: of the factors that do not begin at zero.
    """

    kind: Kind = "low-rank"
    rank: Annotated[float, msgspec.Meta(gt=0)] = 8
    alpha: Annotated[float, msgspec.Meta(gt=0)] | None = None
    modules: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    norms: bool = True
    biases: bool = True
    head: str | None = None
    blocks: tuple[Annotated[int, msgspec.Meta(ge=1)], Annotated[int, msgspec.Meta(ge=1)]] = (32, 32)
    prototypes: Annotated[int, msgspec.Meta(ge=1)] = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank <= 0 or (self.rank >= 1 and self.rank != int(self.rank)):
            raise SpecError(f"rank {self.rank:g} is neither a whole number from 1 on nor a fraction between 0 and 1.")
        for pattern in (*self.modules, *self.exclude):
            try:
                re.compile(pattern)
            except re.error as error:
                raise SpecError(
                    f"{pattern!r} is not a regular expression ({error}); write '.*' for any text."
                ) from error


def make_adapter_spec(fields: dict[str, object]) -> AdapterSpec:
    """A checked AdapterSpec from plain fields.

    Raises:
        SpecError: a field is unknown or has the wrong type or value.
    """
    try:
        return msgspec.convert(fields, AdapterSpec, strict=False)
    except msgspec.ValidationError as error:
        raise SpecError(f"The adapters are not usable: {error}.") from error
