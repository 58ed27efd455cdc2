"""Compute a sum of graph convolutions as one, on the clip graph.

A graph convolution mixes the joints of a skeleton by a matrix and its channels by a pointwise convolution, and layers
add up several, one for each part of the neighbourhood: sum over k of W_k (x A_k). All parts together are one product
with [A_1 A_2 …] and one convolution with [W_1 W_2 …]: as many multiplications, a third of the operators, and one sum in
the accumulator of the convolution in place of sums in memory. A norm behind the sum can then be folded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from edgeco.continual.builder import aten
from edgeco.export.edit import add_tensor, evaluated, groups_of, known
from edgeco.graph.trace import ClipGraph

_SUMS = (aten.add.Tensor, aten.add_.Tensor)


@dataclass(frozen=True)
class _Part:
    """One graph convolution of a sum: its matrix (joints, joints'), kernel (channels', channels, 1…) and bias."""

    node: fx.Node
    source: fx.Node
    matrix: Tensor
    kernel: Tensor
    bias: Tensor | None


def merge_graph_convolutions(clip: ClipGraph) -> int:
    """Make one graph convolution of those that are added up; in place.

    Only parts that nothing else reads are joined: with the same input, matrices that are known and of one shape, and
    convolutions that are pointwise. What else is in the sum stays.

    Returns:
        The number of sums that became one.
    """
    merged = 0
    for node in list(clip.graph.nodes):
        if node.target not in _SUMS or _inside(node):
            continue
        groups: dict[tuple[Any, ...], list[_Part]] = {}
        for term in _terms(node):
            part = _part(clip, term)
            if part is not None:
                key = (part.source, part.matrix.shape, part.kernel.shape, part.kernel.dtype)
                groups.setdefault(key, []).append(part)
        for parts in groups.values():
            if len(parts) > 1:
                _merge(clip, parts)
                merged += 1
    clip.graph.eliminate_dead_code()
    return merged


def _inside(node: fx.Node) -> bool:
    """Whether a sum is a term of another, and nothing else."""
    return len(node.users) == 1 and bool(_added(next(iter(node.users))))


def _added(node: fx.Node) -> list[fx.Node]:
    """The two tensors that a node adds; none if it is no sum of two, scales one, or stretches one."""
    terms = list(dict.fromkeys(term for term in node.args[:2] if isinstance(term, fx.Node)))
    if node.target not in _SUMS or len(terms) < 2 or node.kwargs.get("alpha", 1) != 1:
        return []
    return terms if all(term.meta["val"].shape == node.meta["val"].shape for term in terms) else []


def _terms(node: fx.Node) -> Iterator[fx.Node]:
    """What a sum adds up, through the sums that only it reads."""
    for term in _added(node):
        if _added(term) and len(term.users) == 1:
            yield from _terms(term)
        else:
            yield term


def _part(clip: ClipGraph, convolution: fx.Node) -> _Part | None:
    """A term as a graph convolution, if it is one."""
    kernel = known(clip, convolution.args[1]) if groups_of(convolution) == 1 else None
    if kernel is None or len(convolution.users) != 1 or not _pointwise(convolution, kernel):
        return None
    product = convolution.args[0]
    if not isinstance(product, fx.Node) or product.target is not aten.matmul.default or len(product.users) != 1:
        return None
    source, matrix = product.args[0], evaluated(clip, product.args[1])
    if not isinstance(source, fx.Node) or matrix is None or matrix.ndim != 2:
        return None
    shape = source.meta["val"].shape
    if len(shape) != kernel.ndim or source.name not in clip.resized or clip.resized[source.name][-1] != shape[-1]:
        return None  # what is mixed is time, or may be: nobody knows where it is
    bias = convolution.args[2] if len(convolution.args) > 2 else None
    numbers = known(clip, bias)
    return None if bias is not None and numbers is None else _Part(convolution, source, matrix, kernel, numbers)


def _pointwise(convolution: fx.Node, kernel: Tensor) -> bool:
    stride, padding = ([*convolution.args[3:5], (), ()])[:2]
    assert isinstance(stride, (list, tuple)) and isinstance(padding, (list, tuple))
    return set(kernel.shape[2:]) <= {1} and set(stride) <= {1} and set(padding) <= {0}


def _merge(clip: ClipGraph, parts: list[_Part]) -> None:
    """Put one graph convolution in the place of the first part, and take the others out of the sum."""
    nodes = list(clip.graph.nodes)
    parts = sorted(parts, key=lambda part: nodes.index(part.node))
    first, count = parts[0], len(parts)
    rank = first.kernel.ndim
    kernels = torch.stack([part.kernel for part in parts], 2).flatten(1, 2)  # of each channel all parts side by side
    biases = [part.bias for part in parts if part.bias is not None]
    name = first.node.name
    matrix = add_tensor(clip, f"{name}_matrices", torch.cat([part.matrix for part in parts], 1))
    kernel = add_tensor(clip, f"{name}_kernels", kernels)
    bias = add_tensor(clip, f"{name}_biases", torch.stack(biases).sum(0)) if biases else None
    order = [0, 1, rank - 1, *range(2, rank - 1), rank]
    with clip.graph.inserting_before(first.node):
        mixed = _emit(clip, first.node, aten.matmul.default, first.source, matrix)
        apart = _emit(clip, first.node, aten.unflatten.int, mixed, rank - 1, [count, first.matrix.shape[1]])
        turned = _emit(clip, first.node, aten.permute.default, apart, order)
        side_by_side = _emit(clip, first.node, aten.flatten.using_ints, turned, 1, 2)
        merged = _emit(clip, first.node, first.node.target, side_by_side, kernel, bias, *first.node.args[3:])
    first.node.replace_all_uses_with(merged)
    for part in parts[1:]:
        total = next(iter(part.node.users))
        rest = next(term for term in _added(total) if term is not part.node)
        total.replace_all_uses_with(rest)
        clip.outputs = {name: rest if n is total else n for name, n in clip.outputs.items()}
        clip.graph.erase_node(total)


def _emit(clip: ClipGraph, like: fx.Node, op: Any, *args: Any) -> fx.Node:
    """An operator that stands for one of the network's own, with its shapes for both lengths of the clip."""
    node = clip.graph.call_function(op, args)
    node.meta.update(like.meta)

    def result(shape: Callable[[fx.Node], tuple[int, ...]]) -> Tensor:
        shapes = fx.map_arg(args, lambda n: n.meta["val"].new_empty(shape(n), device="meta"))
        made: Tensor = op(*shapes)
        return made

    node.meta["val"] = result(lambda n: tuple(n.meta["val"].shape))
    if clip.resized:
        clip.resized[node.name] = tuple(result(lambda n: clip.resized.get(n.name, tuple(n.meta["val"].shape))).shape)
    return node
