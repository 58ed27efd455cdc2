"""Sizes that modules hold as attributes, and what they must be once channels are gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn

from edgeco.graph.channels import Channels
from edgeco.graph.channels.families import Gone
from edgeco.prune.cuts import Cut, Repair

aten = torch.ops.aten
_Shape = Callable[[fx.Node], tuple[int, ...]]
Sizes = dict[str, Any]


def known_repairs(net: nn.Module, cuts: Sequence[Cut], channels: Channels, gone: Gone) -> list[Repair]:
    """What PyTorch's own layers hold of their sizes.

    Args:
        net: the network with its tensors cut already, and attributes as they were.
        cuts: what was cut.
        channels: of the network before.
        gone: the labels that fell.
    """
    found: dict[tuple[str, str], Repair] = {}
    paths = sorted({_layer_path(cut.tensor) for cut in cuts})
    shape = channels.shape_without(gone)
    for layer in paths:
        _note(found, net, layer, _sizes(net.get_submodule(layer)))
    for node in channels.clip.graph.nodes:
        packet = getattr(node.target, "overloadpacket", None)
        if packet in (aten.group_norm, aten.layer_norm, aten.rms_norm):
            path = _module_path(node)
            if path is not None:
                _note(found, net, path, _norm_sizes(net.get_submodule(path), node, shape))
    return list(found.values())


def _note(found: dict[tuple[str, str], Repair], net: nn.Module, path: str, sizes: Sizes) -> None:
    module = net.get_submodule(path)
    for name, after in sizes.items():
        before = getattr(module, name)
        if isinstance(after, tuple):
            before = tuple(before)
        if before != after:
            found[path, name] = Repair(path, name, before, after)


def _layer_path(tensor: str) -> str:
    """The layer a tensor belongs to; a parametrised one's own."""
    return tensor.split(".parametrizations.")[0] if ".parametrizations." in tensor else tensor.rpartition(".")[0]


def _sizes(module: nn.Module) -> Sizes:
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.modules.conv._ConvTransposeNd) and weight is not None:
        return {"in_channels": weight.shape[0], "out_channels": weight.shape[1] * module.groups}
    if isinstance(module, nn.modules.conv._ConvNd) and weight is not None:
        return _convolution_sizes(module, weight)
    if isinstance(module, nn.Linear) and weight is not None:
        return {"in_features": weight.shape[1], "out_features": weight.shape[0]}
    if isinstance(module, nn.modules.batchnorm._NormBase):
        like = weight if weight is not None else module.running_mean
        return {} if like is None else {"num_features": like.shape[0]}
    if isinstance(module, nn.Embedding):
        return {"embedding_dim": module.weight.shape[1]}
    if isinstance(module, nn.RNNBase):
        into, kept = module.get_parameter("weight_ih_l0"), module.get_parameter("weight_hh_l0")
        return {"input_size": into.shape[1], "hidden_size": kept.shape[1]}
    if isinstance(module, nn.PReLU):
        return {"num_parameters": module.weight.shape[0]}
    return {}


def _convolution_sizes(module: nn.modules.conv._ConvNd, weight: torch.Tensor) -> Sizes:
    out, each = weight.shape[:2]
    groups = module.groups
    if groups > 1 and each == 1:  # depthwise: whole groups fell
        groups = out // (module.out_channels // module.groups)
    return {"out_channels": out, "in_channels": each * groups, "groups": groups}


def _norm_sizes(module: nn.Module, node: fx.Node, shape: _Shape) -> Sizes:
    source = node.all_input_nodes[0]
    before, after = tuple(source.meta["val"].shape), shape(source)
    if isinstance(module, nn.GroupNorm):
        groups = module.num_groups
        each = before[1] // groups
        return {"num_channels": after[1], "num_groups": after[1] // each if groups > 1 else groups}
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return {"normalized_shape": after[len(after) - len(module.normalized_shape) :]}
    return {}


def _module_path(node: fx.Node) -> str | None:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]).split("@")[0] if stack else None


def possible_repairs(net: nn.Module, channels: Channels, gone: Gone) -> list[Repair]:
    """Whole numbers that a user's own module holds and that are a size which changed where its code shapes a value.

    Heads are the usual case: ``x.unflatten(2, (self.heads, -1))``. Whether they must change, the oracle tells.
    """
    shape = channels.shape_without(gone)
    found: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for node in channels.clip.graph.nodes:
        if node.op != "call_function" or getattr(node.target, "overloadpacket", None) not in _SHAPING:
            continue
        path = _module_path(node)
        if path is None:
            continue
        module = net.get_submodule(path)
        for before, after in _changed(node, shape):
            for name, value in vars(module).items():
                if type(value) is int and value == before and not name.startswith("_"):
                    found.setdefault((path, name), set()).add((before, after))
    return [
        Repair(path, name, *next(iter(pairs)))
        for (path, name), pairs in found.items()
        if len(pairs) == 1 and next(iter(pairs))[0] != next(iter(pairs))[1]
    ]


def alternatives(repairs: Sequence[Repair]) -> list[tuple[Repair, ...]]:
    """Which of the possible repairs to try: all, then those of one attribute's name; heads and groups first."""
    if not repairs:
        return []
    names = sorted({r.attribute for r in repairs}, key=lambda n: ("head" not in n, "group" not in n, n))
    single = [tuple(r for r in repairs if r.attribute == name) for name in names]
    return [tuple(repairs), *single[:MOST_TRIED]] if len(names) > 1 else [tuple(repairs)]


MOST_TRIED = 6
"""Attributes tried by themselves."""

_SHAPING = {
    packet
    for name in (
        *("view", "reshape", "_unsafe_view", "unflatten", "split", "split_with_sizes", "chunk", "slice", "narrow"),
        *("expand", "full", "zeros", "ones", "new_zeros", "new_ones", "new_full", "repeat", "group_norm"),
    )
    if (packet := getattr(aten, name, None)) is not None
}


def _changed(node: fx.Node, shape: _Shape) -> set[tuple[int, int]]:
    """Sizes of a node's results before and after, those that changed."""
    value = node.meta["val"]
    if isinstance(value, (list, tuple)):
        pairs: set[tuple[int, int]] = set()
        for user in node.users:
            pairs |= _changed(user, shape)
        return pairs
    if not isinstance(value, torch.Tensor):
        return set()
    return {(b, a) for b, a in zip(map(int, value.shape), shape(node), strict=True) if a != b}
