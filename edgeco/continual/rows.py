"""Rows of a batch are streams of their own: a probe that no row of a step network depends on another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from edgeco.continual.history import History
from edgeco.errors import ConversionError, UnsupportedOperator
from edgeco.graph.trace import ClipInput, op_name, where


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
        module: the step network; its nodes say in ``meta["source"]`` which operator of the clip network they are of.
        inputs, histories: what it takes, in order.
        outputs: per answer the axis that counts rows.
        dtype: type of its floating-point inputs.

    Raises:
        UnsupportedOperator: an answer or a state of one row depends on another row; names the first operator at which
            it does.
    """
    given, changed = (_given(inputs, histories, dtype, 2, change) for change in (False, True))
    with torch.no_grad():
        before, after = module(*given), module(*changed)
    answers = zip(outputs.items(), before[0], after[0], strict=True)
    mixed = [f"the output {name!r}" for (name, axis), a, b in answers if not _apart(a, b, axis)]
    mixed += ["a value it remembers" for a, b in zip(before[1], after[1], strict=True) if not _apart(a, b, 0)]
    if not mixed:
        return
    reason = f"with it {mixed[0]} of one row of the batch depends on another row"
    instead = (
        "Each row is a stream of its own; look for an operator over axis 0, or for attention without batch_first=True."
    )
    source = _first_that_mixes(module, given, changed, _given(inputs, histories, dtype, 3, False))
    if source is None:
        raise ConversionError(f"The network mixes the rows of its batch: {reason}. {instead}")
    raise UnsupportedOperator(op_name(source), f"it mixes the rows of the batch: {reason}", where(source), instead)


def _given(
    inputs: Sequence[ClipInput], histories: Sequence[History], dtype: torch.dtype, rows: int, change: bool
) -> list[Tensor]:
    """Random frames and histories of some rows, the same every time; where `change`, with another second row."""
    generator = torch.Generator().manual_seed(0)
    made: list[Tensor] = []

    def add(shape: Sequence[int], axis: int, each: int, kind: torch.dtype) -> None:
        tensor = torch.randn(shape, generator=generator, dtype=dtype).to(kind)
        more = torch.randn(tensor.narrow(axis, each, each).shape, generator=generator, dtype=dtype).to(kind)
        if change:
            tensor.narrow(axis, each, each).add_(more)
        made.append(tensor)

    for item in inputs:
        add([rows, *(n for i, n in enumerate(item.shape) if i not in (0, item.time_dim))], 0, 1, item.dtype)
    for history in histories:
        each = history.rows_per_stream
        for _ in history.ages:
            add([rows * each, *history.shape], 0, each, history.dtype)
        if not history.ages:
            add([history.depth, rows * each, *history.shape], 1, each, history.dtype)
    return made


def _apart(before: Tensor, after: Tensor, axis: int) -> bool:
    """Whether the first of two rows stayed as it was."""
    rows = before.shape[axis] // 2
    return _close(before.narrow(axis, 0, rows), after.narrow(axis, 0, rows))


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)


class _Recorder(fx.Interpreter):
    """Keeps the value of every node."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)

    def values(self, given: Sequence[Tensor]) -> dict[fx.Node, Any]:
        with torch.no_grad():
            self.run(*given)
        return self.env


def _first_that_mixes(
    module: fx.GraphModule, given: Sequence[Tensor], changed: Sequence[Tensor], three: Sequence[Tensor]
) -> fx.Node | None:
    """The clip network's operator behind the first node whose first row noticed the other, if one can be told."""
    before, after, more = (_Recorder(module).values(values) for values in (given, changed, three))
    for node in module.graph.nodes:
        a, b, c = before.get(node), after.get(node), more.get(node)
        if not isinstance(a, Tensor) or not isinstance(b, Tensor) or not isinstance(c, Tensor) or _close(a, b):
            continue
        if not any(_close(x, y) for x, y in zip(_first_rows(a, c), _first_rows(b, c), strict=True)):
            source = node.meta.get("source")
            if isinstance(source, fx.Node):
                return source
    return None


def _first_rows(tensor: Tensor, three: Tensor) -> Iterator[Tensor]:
    """What may be the first of two rows in a tensor, told by its shape for three rows: none where rows are gone."""
    axes = [i for i, (two, more) in enumerate(zip(tensor.shape, three.shape, strict=True)) if two != more]
    if len(axes) != 1:
        return
    axis, each = axes[0], tensor.shape[axes[0]] // 2
    for inner in (n for n in range(1, each + 1) if each % n == 0):  # time or persons outside of the rows, or within
        yield tensor.unflatten(axis, (each // inner, 2, inner)).select(axis + 1, 0)
