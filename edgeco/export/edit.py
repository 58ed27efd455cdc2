"""What edits of a clip graph share: its convolutions, their known kernels, new constants."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from edgeco.continual.builder import aten
from edgeco.graph.trace import ClipGraph

CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)


def groups_of(node: object) -> int:
    """The groups of a convolution; 0 for anything else."""
    if not isinstance(node, fx.Node) or node.target not in CONVOLUTIONS:
        return 0
    return int(node.args[6]) if len(node.args) > 6 else 1  # type: ignore[arg-type]


def known(clip: ClipGraph, argument: object) -> Tensor | None:
    """The numbers of an argument that is a parameter or constant; None for what is computed, or not given."""
    return clip.tensors.get(argument.name) if isinstance(argument, fx.Node) else None


def evaluated(clip: ClipGraph, argument: object) -> Tensor | None:
    """The numbers of an argument that is known, or computed from what is; None where a frame takes part in it."""
    found = _evaluated(clip, argument, {})
    return found if isinstance(found, Tensor) else None


def _evaluated(clip: ClipGraph, argument: object, seen: dict[fx.Node, Any]) -> Any:
    if not isinstance(argument, fx.Node):
        return argument
    if argument.op != "call_function":
        return known(clip, argument)
    if argument not in seen:
        inputs = {node: _evaluated(clip, node, seen) for node in argument.all_input_nodes}
        if not inputs or any(value is None for value in inputs.values()):
            return None
        args, kwargs = fx.map_arg((argument.args, argument.kwargs), inputs.__getitem__)
        seen[argument] = argument.target(*args, **kwargs)  # type: ignore[operator]
    return seen[argument]


def add_tensor(clip: ClipGraph, name: str, tensor: Tensor) -> fx.Node:
    """A new constant of the clip graph."""
    first = next(iter(clip.graph.nodes))
    with clip.graph.inserting_before(first):
        node = clip.graph.placeholder(name)
    node.meta["val"] = tensor
    clip.tensors[node.name] = tensor.detach()
    return node
