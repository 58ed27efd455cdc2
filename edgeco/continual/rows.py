"""Rows of a batch are streams of their own: a probe that no row of a step network depends on another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from edgeco.continual.history import History
from edgeco.errors import ConversionError
from edgeco.graph.trace import ClipInput


def check_rows(
    module: fx.GraphModule,
    inputs: Sequence[ClipInput],
    histories: Sequence[History],
    outputs: dict[str, int],
    dtype: torch.dtype,
) -> None:
    """Run one step on two random rows, change the second, and look whether the first notices.

    Rules refuse operators that mix rows where they see it; behind a live window operators run unchanged and unseen.

    Args:
        module: the step network.
        inputs, histories: what it takes, in order.
        outputs: per answer the axis that counts rows.
        dtype: type of its floating-point inputs.

    Raises:
        ConversionError: an answer or a state of one row depends on another row.
    """
    generator = torch.Generator().manual_seed(0)
    given: list[Tensor] = []
    changed: list[Tensor] = []

    def add(shape: Sequence[int], axis: int, rows: int, kind: torch.dtype) -> None:
        tensor = torch.randn(shape, generator=generator, dtype=dtype).to(kind)
        other = tensor.clone()
        second = other.narrow(axis, rows, rows)
        second += torch.randn(second.shape, generator=generator, dtype=dtype).to(kind)
        given.append(tensor)
        changed.append(other)

    for item in inputs:
        add([2, *(n for i, n in enumerate(item.shape) if i not in (0, item.time_dim))], 0, 1, item.dtype)
    for history in histories:
        rows = history.rows_per_stream
        if history.ages:
            for _ in history.ages:
                add([2 * rows, *history.shape], 0, rows, history.dtype)
        else:
            add([history.depth, 2 * rows, *history.shape], 1, rows, history.dtype)
    with torch.no_grad():
        before, after = module(*given), module(*changed)
    for (name, axis), a, b in zip(outputs.items(), before[0], after[0], strict=True):
        _hold(f"the output {name!r}", a, b, axis)
    for a, b in zip(before[1], after[1], strict=True):
        _hold("a value it remembers", a, b, 0)


def _hold(what: str, before: Tensor, after: Tensor, axis: int) -> None:
    rows = before.shape[axis] // 2
    a, b = before.narrow(axis, 0, rows), after.narrow(axis, 0, rows)
    if not torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise ConversionError(
            f"The network mixes the rows of its batch: {what} of one row depends on another row. Each row is a stream "
            "of its own; look for an operator over axis 0, or for attention without batch_first=True."
        )
