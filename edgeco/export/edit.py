"""What edits of a clip graph share: its convolutions, their known kernels, new constants."""

from __future__ import annotations

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


def add_tensor(clip: ClipGraph, name: str, tensor: Tensor) -> fx.Node:
    """A new constant of the clip graph."""
    first = next(iter(clip.graph.nodes))
    with clip.graph.inserting_before(first):
        node = clip.graph.placeholder(name)
    node.meta["val"] = tensor
    clip.tensors[node.name] = tensor.detach()
    return node
