"""One pass over a traced network: labels for its parameters, a rule for every operator, and what follows."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from edgeco.graph.channels.axes import Axis, Value, still
from edgeco.graph.channels.call import Call, Findings, getitem, is_value
from edgeco.graph.channels.families import Channels, sorted_out
from edgeco.graph.channels.labels import Labels
from edgeco.graph.channels.rules import find_rule
from edgeco.graph.trace import ClipGraph, where


def find_channels(clip: ClipGraph, rigid: frozenset[str] = frozenset()) -> Channels:
    """Find which channels of a traced network can only be removed together, and which cannot be removed at all.

    Args:
        clip: the traced network.
        rigid: operators (by name in the graph) that cut an axis at numbers that stand in the network's code, where
            without being told it is assumed that they are computed from the axis' size.

    An operator without a rule, or used as its rule does not foresee, pins all that it touches and is listed.
    """
    walk = _Walk(clip, rigid)
    walk.run()
    return sorted_out(clip, walk.labels, walk.values, walk.findings)


class _Walk:
    def __init__(self, clip: ClipGraph, rigid: frozenset[str]) -> None:
        self.clip = clip
        self.labels = Labels()
        self.findings = Findings(rigid=rigid)
        self.values: dict[fx.Node, Any] = {}
        self.seen: dict[Any, fx.Node] = {}

    def run(self) -> None:
        for node in self.clip.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._placeholder(node)
            elif node.op == "call_function":
                self.values[node] = self._operator(node)
        for name, node in self.clip.outputs.items():
            for axis in self.values[node]:
                self.labels.pin(axis.labels, f"it is the network's answer {name!r}")
        self.labels.resolve()

    def _placeholder(self, node: fx.Node) -> Value:
        shape = tuple(int(n) for n in node.meta["val"].shape)
        name = self.clip.names.get(node.name)
        if name is None or node.name not in self.clip.tensors:
            return tuple(still(n) for n in shape)
        tensor = self.clip.tensors[node.name]
        first = self.seen.setdefault((tensor.data_ptr(), shape, tensor.stride()) if tensor.numel() else node, node)
        if first is not node:  # one tensor by two names
            return self.values[first]  # type: ignore[no-any-return]
        return tuple(
            Axis(self.labels.fresh(n, carried=True), sources=frozenset({(name, i)})) for i, n in enumerate(shape)
        )

    def _operator(self, node: fx.Node) -> Any:
        if getitem(node):
            return self.values[node.args[0]][node.args[1]]  # type: ignore[index]
        call = Call(node, self.labels, self.findings, self.values.__getitem__)
        if not _tensors(node):
            return None
        if _inside_multihead(node):
            for value in call.values:
                call.pin(value, "nn.MultiheadAttention has one width for all; write its projections as layers to prune")
        rule = find_rule(node.target)
        try:
            return self._confirmed(node, call.unknown() if rule is None else rule(call))
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError):
            return call.unknown()  # a use of the operator that its rule does not foresee

    def _confirmed(self, node: fx.Node, made: Any) -> Any:
        """What a rule says, if it has the shape that the operator gives."""
        expected = node.meta["val"]
        single = isinstance(expected, Tensor)
        for value, like in zip([made] if single else made, [expected] if single else expected, strict=False):
            if isinstance(like, Tensor):
                sizes = tuple(axis.size for axis in value) if is_value(value) else None
                assert sizes == tuple(like.shape), f"{node.target} at {where(node)}: {sizes} for {tuple(like.shape)}"
        return made


def _tensors(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) or (isinstance(value, (list, tuple)) and any(isinstance(v, Tensor) for v in value))


def _inside_multihead(node: fx.Node) -> bool:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return bool(stack) and str(stack[-1][1]).endswith("MultiheadAttention")
