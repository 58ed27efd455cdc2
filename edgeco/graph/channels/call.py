"""What a rule gets: the operator, its arguments with the labels of their axes, and the verbs to join or pin them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from edgeco.graph.channels.axes import Axis, Member, Value, still
from edgeco.graph.channels.labels import NOTHING, STRUCTURE, Array, Labels
from edgeco.graph.trace import op_name, where

aten = torch.ops.aten


@dataclass(frozen=True)
class Producer:
    """A layer that makes channels.

    Attributes:
        node: its operator.
        norm: whether it is a norm.
        tensors: the axes of parameters along which its channels lie.
        first: the operator whose channels it only scales and shifts, if any.
    """

    node: str
    norm: bool
    tensors: frozenset[Member]
    first: str | None = None


@dataclass
class Findings:
    """What the rules note as they go."""

    producers: list[Producer] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    """Operators without a rule, by name, with a source line."""
    assumed: dict[str, Array] = field(default_factory=dict)
    """Operators taken to cut an axis in proportion to its size, with the labels that rests on."""
    rigid: frozenset[str] = frozenset()
    """Operators that are known to cut an axis at fixed places instead."""


class Call:
    """One operator of the clip network.

    Attributes:
        node: the operator's node.
        args: its arguments by schema name, tensors as `Value`, defaults filled in.
    """

    def __init__(self, node: fx.Node, labels: Labels, findings: Findings, lookup: Callable[[fx.Node], Any]) -> None:
        self.node, self.labels, self.findings = node, labels, findings
        self.args = self._bind(lookup)

    def _bind(self, lookup: Callable[[fx.Node], Any]) -> dict[str, Any]:
        positional, named = fx.node.map_arg((self.node.args, self.node.kwargs), lookup)
        schema = getattr(self.node.target, "_schema", None)
        if schema is None:
            return {str(i): value for i, value in enumerate(positional)} | dict(named)
        bound = {}
        for i, argument in enumerate(schema.arguments):
            given = i < len(positional)
            bound[argument.name] = positional[i] if given else named.get(argument.name, argument.default_value)
        return bound

    # -- the operator ------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the (single) result."""
        return tuple(int(n) for n in self.node.meta["val"].shape)

    @property
    def shapes(self) -> list[tuple[int, ...] | None]:
        """Shapes of all results."""
        return [tuple(int(n) for n in v.shape) if isinstance(v, Tensor) else None for v in self.node.meta["val"]]

    @property
    def where(self) -> str:
        return f"{op_name(self.node)} at {where(self.node)}"

    @property
    def values(self) -> list[Value]:
        """All tensor arguments, in order."""
        return list(_values(self.args.values()))

    # -- verbs -------------------------------------------------------------------------------------------------

    def pin(self, axes: Axis | Iterable[Axis], why: str = "") -> None:
        """Say that no index of these can be removed."""
        for axis in [axes] if isinstance(axes, Axis) else axes:
            if not axis.fixed:
                self.labels.pin(axis.labels, f"{why}: {self.where}" if why else STRUCTURE)

    def unite(self, axes: Sequence[Axis]) -> Axis:
        """Axes that are met index by index: those of one index broadcast. The result is as silent as all of them."""
        size = max(axis.size for axis in axes)
        wide = [axis for axis in axes if axis.size == size] if size != 1 else list(axes)
        best = max(wide, key=lambda axis: axis.labels.shape[1])
        for axis in wide:
            if axis is not best:
                self.labels.equate(best.labels, axis.labels, f"it meets an axis that stays, in {self.where}")
        sources = frozenset[Member]().union(*(axis.sources for axis in wide))
        return Axis(best.labels, all(a.silent for a in axes) and len(wide) == len(axes), sources)

    def contract(self, left: Axis, right: Axis) -> None:
        """Axes summed over as two values are multiplied."""
        together = self.unite([left, right])
        if together.fixed:
            return
        if not (left.silent or right.silent):
            self.pin([left, right], "a sum over it also counts what is not zero where a channel is removed")
        if not left.sources and not right.sources:
            self.labels.mark_contracted(left.labels)
            self.labels.mark_contracted(right.labels)

    def summarise(self, axis: Axis, why: str) -> None:
        """Mark an axis whose indices together make one number that others then meet, as a norm's mean."""
        if not axis.fixed:
            self.labels.mark_approximate(axis.labels, f"{why}: {self.where}")

    def tie(self, labels: Array, period: int) -> None:
        """Let indices that are `period` apart fall together."""
        for start in range(period, len(labels), period):
            part = labels[start : start + period]
            self.labels.equate(labels[: len(part)], part, f"parts of it must stay equal, in {self.where}")

    def cut(self, axis: Axis, bounds: Iterable[int]) -> None:
        """An axis cut at some places.

        If these divide it evenly, the network is taken to compute them from the axis' size: every part then loses as
        many indices. Else they are taken as numbers that stand in the code: what lies before a bound stays.
        """
        inner = sorted(b for b in {*bounds} if 0 < b < axis.size)
        if axis.fixed or not inner:
            return
        step = reduce(np.gcd, inner, axis.size)
        if self.node.name in self.findings.rigid or step == 1:
            self.pin(axis.picked(slice(0, inner[-1])), "the network's code cuts it at a fixed place")
            return
        self.findings.assumed[self.node.name] = axis.labels
        self.tie(axis.labels, int(step))

    def produce(self, axes: Iterable[Member], *, norm: bool = False, first: fx.Node | None = None) -> None:
        """Note a layer whose channels lie along these axes of parameters."""
        tensors = frozenset(axes)
        if tensors:
            name = first.name if first is not None else None
            self.findings.producers.append(Producer(self.node.name, norm, tensors, name))

    def zero_of_zeros(self) -> bool:
        """Whether the operator gives zero where all tensors it takes are zero."""

        def zero(node: fx.Node) -> Tensor:
            return torch.zeros((), dtype=node.meta["val"].dtype)

        args, kwargs = fx.node.map_arg((self.node.args, self.node.kwargs), zero)
        try:
            made = self.node.target(*args, **kwargs)  # type: ignore[operator]
        except (RuntimeError, TypeError, ValueError, IndexError):
            return False
        return isinstance(made, Tensor) and bool((made == 0).all())

    def unknown(self) -> Value | list[Value | None]:
        """Pin all that the operator takes and makes."""
        for value in self.values:
            self.pin(value, "there is no rule for channels through it")
        self.findings.unknown.setdefault(op_name(self.node), where(self.node))
        return self.fixed()

    def fixed(self) -> Value | list[Value | None]:
        """Results of which nothing can be removed."""
        if isinstance(self.node.meta["val"], Tensor):
            return tuple(still(n) for n in self.shape)
        return [None if shape is None else tuple(still(n) for n in shape) for shape in self.shapes]


def _values(items: Iterable[Any]) -> Iterator[Value]:
    for item in items:
        if is_value(item):
            yield item
        elif isinstance(item, (list, tuple)):
            yield from _values(item)


def is_value(item: Any) -> bool:
    """Whether an argument is a tensor."""
    return isinstance(item, tuple) and all(isinstance(axis, Axis) for axis in item) and not isinstance(item, torch.Size)


def getitem(node: fx.Node) -> bool:
    """Whether a node picks one of several results."""
    return node.target is operator.getitem


__all__ = ["NOTHING", "Call", "Findings", "Producer", "aten", "getitem", "is_value"]
