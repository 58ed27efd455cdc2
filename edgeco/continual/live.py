"""Weights that stay alive: how a step graph's weights follow from the parameters of its clip network.

A conversion makes weights out of parameters: taps are cut out of kernels, norms become scales and shifts, adapters are
added. For training that must be repeated with the parameters of the moment, under autograd. So a conversion is watched,
and what it computed from parameters is written down as a graph that can be run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from edgeco.errors import ConversionError

aten = torch.ops.aten

_DECIDES = (aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default, aten.item.default)
"""Operators by which a conversion looks at numbers, rather than computing with them."""


class Watch(TorchDispatchMode):
    """Writes down every operator that computes something from given tensors.

    Args:
        sources: the tensors by name.

    Attributes:
        decided: names of the sources whose numbers the conversion looked at, to decide what to make.
    """

    def __init__(self, sources: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.decided: set[str] = set()
        self._kept: list[object] = list(sources.values())  # so that no identity is given to another tensor
        self._nodes: dict[int, fx.Node] = {}
        self._from: dict[int, frozenset[str]] = {}
        self.constants: dict[str, Tensor] = {}
        for number, (name, tensor) in enumerate(sources.items()):
            node = self.graph.placeholder(f"source_{number}")
            node.meta["source"] = name
            self._nodes[id(tensor)], self._from[id(tensor)] = node, frozenset([name])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        given = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        live = [t for t in given if id(t) in self._nodes]
        if live:
            origin = frozenset().union(*(self._from[id(t)] for t in live))
            if func in _DECIDES:
                alike = func is aten.equal.default and self._from.get(id(given[0])) == self._from.get(id(given[1]))
                if made is not False and not alike:  # numbers that differ, or are not all alike, will go on to do so
                    self.decided |= origin
            else:
                self._write(func, args, kwargs, made, origin)
        return made

    def _write(self, func: Any, args: Any, kwargs: Any, made: Any, origin: frozenset[str]) -> None:
        if func in (aten.detach.default, aten.detach_.default):  # what is a copy to a conversion is none to training
            func = aten.alias.default
        given = pytree.tree_map(self._argument, (list(args), dict(kwargs)))
        node = self.graph.call_function(func, tuple(given[0]), given[1])
        self._kept.append(made)
        if isinstance(made, Tensor):
            self._nodes[id(made)], self._from[id(made)] = node, origin
            return
        for number, part in enumerate(made if isinstance(made, list | tuple) else ()):
            if isinstance(part, Tensor):
                self._nodes[id(part)] = self.graph.call_function(_pick, (node, number))
                self._from[id(part)] = origin

    def _argument(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self._nodes:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = value
            self._kept.append(value)
            self._nodes[id(value)], self._from[id(value)] = self.graph.get_attr(name), frozenset()
        return self._nodes[id(value)]

    def finish(self, wanted: Mapping[str, Tensor]) -> LiveWeights:
        """The wanted tensors as a function of the sources; one that follows from none of them is a constant."""
        fixed = {name: t for name, t in wanted.items() if not self._from.get(id(t))}
        alive = {name: self._nodes[id(t)] for name, t in wanted.items() if name not in fixed}
        self.graph.output(tuple(alive.values()))
        self.graph.eliminate_dead_code(is_impure_node=lambda node: node.op in ("placeholder", "output"))
        needed = [n for n in self.graph.nodes if n.op == "placeholder"]
        for node in [n for n in needed if not n.users]:
            self.graph.erase_node(node)
        sources = [str(n.meta["source"]) for n in needed if n.users]
        root = nn.Module()
        for node in self.graph.nodes:
            if node.op == "get_attr":
                root.register_buffer(node.target, self.constants[node.target], persistent=False)
        return LiveWeights(fx.GraphModule(root, self.graph, class_name="Weights"), sources, list(alive), fixed)


class LiveWeights(nn.Module):
    """A step graph's weights as a function of the clip network's parameters and buffers.

    Attributes:
        sources: names of the tensors that they follow from.
    """

    def __init__(
        self, module: fx.GraphModule, sources: list[str], names: list[str], fixed: Mapping[str, Tensor]
    ) -> None:
        super().__init__()
        self.module, self.sources, self._names = module, sources, names
        self._fixed = list(fixed)
        for name, value in fixed.items():
            self.register_buffer(f"fixed_{name}", value, persistent=False)

    def forward(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights by name, of these sources by name."""
        made = self.module(*(tensors[name] for name in self.sources))
        fixed = {name: self.get_buffer(f"fixed_{name}") for name in self._fixed}
        return dict(zip(self._names, made, strict=True)) | fixed


def refuse_decided(decided: Iterable[str], trained: Iterable[str]) -> None:
    """A conversion that depends on numbers that training changes would be out of date after the first step.

    Raises:
        ConversionError: there is such a parameter.
    """
    both = sorted(set(decided) & set(trained))
    if both:
        raise ConversionError(
            f"How {both[0]!r} is streamed depends on its numbers, so that it cannot be trained in the stream; "
            "freeze it (requires_grad_(False)), or train on clips."
        )


def _pick(several: Any, number: int) -> Any:
    return several[number]
