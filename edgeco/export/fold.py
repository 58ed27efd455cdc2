"""Fold batch norms into the convolutions before them, in double precision, on the clip graph."""

from __future__ import annotations

from torch import fx

from edgeco.continual.builder import aten
from edgeco.continual.rules.normalisation import scale_and_shift
from edgeco.export.edit import add_tensor, groups_of, known
from edgeco.graph.trace import ClipGraph

_NORMS = (aten.batch_norm.default, aten._native_batch_norm_legit_no_training.default)


def fold_norms(clip: ClipGraph) -> int:
    """Fold every batch norm that alone reads a convolution; returns how many. The graph is changed in place."""
    folded = 0
    for node in list(clip.graph.nodes):
        if node.target not in _NORMS:
            continue
        source = node.args[0]
        if not isinstance(source, fx.Node) or not groups_of(source) or len(source.users) != 1:
            continue
        if node.target is aten.batch_norm.default and node.args[5]:
            continue  # it uses the statistics of the batch
        folded += _fold(clip, source, node)
    clip.graph.eliminate_dead_code()
    return folded


def _fold(clip: ClipGraph, convolution: fx.Node, norm: fx.Node) -> bool:
    """Whether it could be done: all numbers must be known."""
    functional = norm.target is aten._native_batch_norm_legit_no_training.default
    eps = float(norm.args[6] if functional else norm.args[7])  # type: ignore[arg-type]
    weight, bias, mean, variance = (known(clip, norm.args[i]) for i in (1, 2, 3, 4))
    kernel = known(clip, convolution.args[1])
    if mean is None or variance is None or kernel is None:
        return False
    scale, shift = scale_and_shift(weight, bias, mean.double(), variance.double(), eps)
    before = known(clip, convolution.args[2]) if len(convolution.args) > 2 else None
    if before is not None:
        shift = shift + before.double() * scale
    column = scale.reshape(-1, *[1] * (kernel.ndim - 1))
    args = list(convolution.args) + [None] * (3 - len(convolution.args))
    args[1] = add_tensor(clip, f"{convolution.name}_folded", (kernel.double() * column).to(kernel.dtype))
    args[2] = add_tensor(clip, f"{convolution.name}_shift", shift.to(kernel.dtype))
    convolution.args = tuple(args)
    for node in list(norm.users) if functional else [norm]:
        node.replace_all_uses_with(convolution)
        clip.outputs = {name: convolution if n is node else n for name, n in clip.outputs.items()}
    return True
