"""Widen depthwise convolutions to whole blocks of channels, on the clip graph.

ONNX Runtime computes a depthwise convolution in blocks of channels where these are a multiple of the block (16 with
AVX-512 and NEON, 8 with AVX2), and takes a general path, several times slower, where they are not. The added channels
come from zero kernels and are read by zero kernels: no answer changes.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from edgeco.continual.builder import aten
from edgeco.export.edit import add_tensor, groups_of, known
from edgeco.graph.trace import ClipGraph

BLOCK = 16
MOST_ADDED = 1 / 3
"""Greatest share of channels added: 24 become 32."""

_SAME = {aten.dropout, aten.clone, aten.contiguous}
_POOLS = {
    aten.avg_pool2d, aten.avg_pool3d, aten.max_pool2d, aten.max_pool3d, aten.adaptive_avg_pool2d,
    aten.adaptive_avg_pool3d,
}  # fmt: skip


def widen_depthwise(clip: ClipGraph) -> int:
    """Widen what lies between the dense convolutions around each depthwise one; in place.

    Left as they are: channels already whole blocks, those that would grow by more than a third, those that only
    convolutions over time alone would gain from, and those that reach an answer or an operator not known to keep
    channels apart.

    Returns:
        The number of depthwise convolutions widened.
    """
    seen: set[fx.Node] = set()
    widened = 0
    for node in list(clip.graph.nodes):
        channels = groups_of(node)
        wide = -(-channels // BLOCK) * BLOCK
        if channels == wide or wide > channels * (1 + MOST_ADDED) or node in seen or not _depthwise(clip, node):
            continue
        if _over_time_alone(clip, node):
            continue
        values = _coupled(clip, node, channels)
        if values is not None:
            _widen(clip, values, wide)
            seen.update(values)
            widened += sum(groups_of(value) > 1 for value in values)
    clip.graph.eliminate_dead_code()
    return widened


def _depthwise(clip: ClipGraph, node: fx.Node) -> bool:
    kernel = known(clip, node.args[1])
    return kernel is not None and kernel.shape[1] == 1 and kernel.shape[0] == groups_of(node) and _given(clip, node)


def _over_time_alone(clip: ClipGraph, node: fx.Node) -> bool:
    """Whether a step multiplies and adds whole elements in its place: there is no convolution left to be fast."""
    kernel = known(clip, node.args[1])
    times = {entry.time_dim for entry in clip.inputs}
    return kernel is not None and all(size == 1 or axis in times for axis, size in enumerate(kernel.shape[2:], 2))


def _given(clip: ClipGraph, convolution: fx.Node) -> bool:
    """Whether kernel and bias are numbers, not computed."""
    return all(a is None or known(clip, a) is not None for a in convolution.args[1:3])


def _coupled(clip: ClipGraph, start: fx.Node, channels: int) -> list[fx.Node] | None:
    """The values whose channels must grow together; None if one of them cannot."""
    found: dict[fx.Node, None] = {}  # ordered, so that a build gives the same bundle twice
    waiting: list[Any] = [start]
    while waiting:
        node = waiting.pop()
        if node in found:
            continue
        sources = _sources(clip, node, channels)
        if sources is None:
            return None
        found[node] = None
        waiting += sources
        for user in node.users:
            if groups_of(user) != 1:
                waiting.append(user)
            elif user.args[0] is not node or not _given(clip, user):
                return None
    values = [node for node in clip.graph.nodes if node in found]
    return values if _finite(values) else None


def _finite(values: list[fx.Node]) -> bool:
    """Whether the added channels hold numbers throughout: a zero kernel would not silence a NaN that it reads.

    They are functions of zeros alone, so that one number stands for each of them.
    """
    numbers: dict[fx.Node, Tensor] = {}
    for node in values:
        if groups_of(node):
            numbers[node] = torch.zeros(())
        elif _pointwise(node):
            operands = [numbers[a] if isinstance(a, fx.Node) else a for a in node.args]
            numbers[node] = node.target(*operands, **node.kwargs)  # type: ignore[operator]
        else:
            numbers[node] = numbers[node.args[0]]  # type: ignore[index]
            if bool(numbers[node]) and getattr(node.target, "overloadpacket", None) in _POOLS:
                return False  # a mean that counts padding would be other numbers at the frame's border
        if not bool(numbers[node].isfinite()):
            return False
    return True


def _pointwise(node: fx.Node) -> bool:
    return torch.Tag.pointwise in getattr(node.target, "tags", ())


def _sources(clip: ClipGraph, node: Any, channels: int) -> list[Any] | None:
    """The operands whose channels are those of a value; None if it cannot grow."""
    value = node.meta.get("val") if isinstance(node, fx.Node) and node.op == "call_function" else None
    if not isinstance(value, Tensor) or value.ndim < 3 or value.shape[1] != channels:
        return None
    groups = groups_of(node)
    if groups == 1:
        return [] if _given(clip, node) else None
    if groups > 1:
        return [node.args[0]] if _depthwise(clip, node) else None
    operator = getattr(node.target, "overloadpacket", None)
    if operator not in _SAME and _pointwise(node):
        return list(node.all_input_nodes)
    if operator in _POOLS and value.ndim != _rank(node):
        return None
    if operator in _SAME or operator in _POOLS or (operator is aten.mean and _keeps_channels(node, value.ndim)):
        return [node.args[0]]
    return None


def _rank(pool: fx.Node) -> int:
    """Axes of a batch that a pooling takes, by its name: 4 for ``avg_pool2d``."""
    return 2 + int(re.search(r"pool(\d)d", str(pool.target))[1])  # type: ignore[index]


def _keeps_channels(mean: fx.Node, rank: int) -> bool:
    dims = mean.args[1] if len(mean.args) > 1 else None
    return len(mean.args) > 2 and mean.args[2] is True and bool(dims) and all(d % rank > 1 for d in dims)  # type: ignore[union-attr, operator]


def _widen(clip: ClipGraph, values: list[fx.Node], wide: int) -> None:
    for node in values:
        shape = node.meta["val"].shape
        if groups_of(node):
            _pad(clip, node, 0, wide - shape[1])
            if groups_of(node) > 1:
                node.args = (*node.args[:6], wide)
        node.meta["val"] = node.meta["val"].new_empty((shape[0], wide, *shape[2:]))
        if node.name in clip.resized:
            resized = clip.resized[node.name]
            clip.resized[node.name] = (resized[0], wide, *resized[2:])
    for reader in dict.fromkeys(u for n in values for u in n.users if groups_of(u) == 1):
        kernel = known(clip, reader.args[1])
        assert kernel is not None
        _pad(clip, reader, 1, wide - kernel.shape[1])


def _pad(clip: ClipGraph, convolution: fx.Node, axis: int, more: int) -> None:
    """Zeros for `more` channels at the end of a kernel's axis, of the bias too where these are the outputs."""
    args = [*convolution.args]
    kernel = known(clip, args[1])
    assert kernel is not None
    pads = [0, 0] * (kernel.ndim - 1 - axis) + [0, more]
    args[1] = add_tensor(clip, f"{convolution.name}_wide{axis}", F.pad(kernel, pads))
    bias = known(clip, args[2]) if axis == 0 and len(args) > 2 else None
    if bias is not None:
        args[2] = add_tensor(clip, f"{convolution.name}_wide_bias", F.pad(bias, (0, more)))
    convolution.args = tuple(args)
