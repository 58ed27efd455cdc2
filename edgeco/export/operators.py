"""The table of ATen operators in ONNX, and what a translation is given.

One small function an operator, in ``pointwise``, ``layers``, ``reshaping`` and ``several``. What has none is decomposed
by PyTorch into what has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from edgeco.export.writer import TYPES, GraphWriter

aten = torch.ops.aten


@dataclass(frozen=True)
class Ref:
    """A tensor of the ONNX graph: its name, shape (the traced batch stands in it) and type."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Call:
    """One operator to write: the writer, arguments by schema name (tensors as Ref), its result, the batch, its name."""

    writer: GraphWriter
    args: dict[str, Any]
    result: torch.Tensor
    batch: int
    op: str = ""

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    @property
    def first(self) -> Ref:
        return next(iter(self.args.values()))  # type: ignore[no-any-return]

    def sizes(self, shape: Any = None) -> list[int]:
        """A shape with -1 in place of the batch."""
        return [-1 if n and n % self.batch == 0 else int(n) for n in (self.result.shape if shape is None else shape)]

    def operand(self, value: Any, dtype: torch.dtype) -> str:
        """A tensor or number as an operand of a given type."""
        if not isinstance(value, Ref):
            return self.writer.scalar(value, dtype)
        return value.name if value.dtype == dtype else self.cast(value.name, dtype)

    def cast(self, name: str, dtype: torch.dtype) -> str:
        return self.writer.emit("Cast", name, to=TYPES[dtype])


Translator = Callable[[Call], str]
TABLE: dict[Any, Translator] = {}


def onnx_op(*targets: Any) -> Callable[[Translator], Translator]:
    """Register the translation of ATen operators (all overloads of a packet)."""

    def register(function: Translator) -> Translator:
        for target in targets:
            TABLE[target] = function
        return function

    return register


def spread(value: Any, count: int) -> list[int]:
    listed = list(value) if isinstance(value, (list, tuple)) else [value]
    return listed * count if len(listed) == 1 else listed
