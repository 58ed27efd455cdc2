"""Cross-layer range equalisation: channels of very unequal range made equal before they share one grid.

A channel that a convolution makes and a depthwise one reads may be scaled up in the former and down in the latter: a
ReLU and a history with a border of zero between them do not mind (Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", ICCV 2019, section 4.1). There the scales come from the ranges of the weights.
Weights have a scale per channel here, so only the numbers between the layers profit: their ranges are observed, and
every channel is brought to that of the widest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from onnx import NodeProto

from edgeco.bundle.manifest import History, Manifest
from edgeco.bundle.ranges import Ranges, tensor_key
from edgeco.calibration.channels import Channels, observe_channels
from edgeco.calibration.network import Graph, attribute
from edgeco.export.exported import Exported

Array = np.ndarray[Any, Any]

MOST = 256.0
"""A channel is widened at most so many times: what moves so little is noise, or will not stay so."""


@dataclass(frozen=True)
class Pair:
    """A convolution and the depthwise readers of its history."""

    history: History
    weight: str
    bias: str | None
    readers: tuple[str, ...]


def equalise(
    exported: Exported, manifest: Manifest, ranges: Ranges, streams: Sequence[Array]
) -> tuple[Exported, Ranges, list[str]]:
    """The same network with equal channels before its depthwise layers, its ranges, and the histories concerned.

    Args:
        exported: the FP32 graphs.
        manifest: what describes them.
        ranges: of its tensors.
        streams: what channels are looked at over, (steps, *shape) each.
    """
    graphs = [Graph(number, exported, manifest) for number in range(len(exported.graphs))]
    pairs = [pair for history in manifest.histories if (pair := _pair(graphs, history)) is not None]
    if not pairs:
        return exported, ranges, []
    wanted = {_key(graphs, pair.history): 1 for pair in pairs}
    seen = observe_channels(exported, manifest, streams, wanted)
    weights, changed, histories = dict(exported.weights), dict(ranges.tensors), dict(ranges.histories)
    done = []
    for pair in pairs:
        channels = seen.get(_key(graphs, pair.history))
        if channels is None:
            continue
        factors = _factors(channels, ranges.histories[pair.history.name].amax)
        _scale(weights, pair, factors)
        found = histories[pair.history.name]
        low, high = float((channels.low * factors).min()), float((channels.high * factors).max())
        found = histories[pair.history.name] = msgspec.structs.replace(
            found, low=min(found.low, low), high=max(found.high, high), limit=0.0, histogram=()
        )
        for graph in graphs:
            for name in (pair.history.write, *(read.name for read in pair.history.reads)):
                if tensor_key(name, graph.number) in changed:
                    changed[tensor_key(name, graph.number)] = found
        done.append(pair.history.name)
    made = Exported(exported.graphs, exported.schedule, weights)
    return made, msgspec.structs.replace(ranges, tensors=changed, histories=histories), done


def _key(graphs: Sequence[Graph], history: History) -> str:
    return tensor_key(history.write, next(g.number for g in graphs if history.write in g.outputs))


def _factors(channels: Channels, amax: float) -> Array:
    peak = channels.peak.astype(np.float64)
    return np.where(peak > 0, np.clip(amax / np.maximum(peak, 1e-30), 1.0, MOST), 1.0)


def _scale(weights: dict[str, Array], pair: Pair, factors: Array) -> None:
    def column(array: Array) -> Array:
        return factors.reshape(-1, *[1] * (array.ndim - 1))

    for name in filter(None, (pair.weight, pair.bias)):
        weights[name] = (weights[name] * column(weights[name])).astype(np.float32)
    for name in pair.readers:
        weights[name] = (weights[name] / column(weights[name])).astype(np.float32)


def _pair(graphs: Sequence[Graph], history: History) -> Pair | None:
    """The layers around a history whose channels may be scaled; None where something else sees them."""
    if history.storage != "slots" or history.border != 0 or history.dtype != "float32" or not history.shape:
        return None
    makers, readers = set[tuple[str, str | None]](), set[str]()
    for graph in graphs:
        maker = _maker(graph, history.write)
        if maker is not None:
            makers.add((maker.input[1], maker.input[2] if len(maker.input) > 2 else None))
        elif history.write in graph.maker:
            return None
        for name in (history.write, *(read.name for read in history.reads)):
            for node, _ in graph.readers.get(name, []):
                weight = _channelwise(graph, node, history.shape[0])
                if weight is None:
                    return None
                readers.add(weight)
    if len(makers) != 1:
        return None
    weight, bias = makers.pop()
    pair = Pair(history, weight, bias or None, tuple(sorted(readers)))
    shared = any(_uses(graphs, name) > len(graphs) for name in (weight, *(filter(None, [bias])), *readers))
    return None if shared or not readers else pair


def _maker(graph: Graph, name: str) -> NodeProto | None:
    node: NodeProto | None = graph.maker.get(name)
    if node is not None and node.op_type == "Relu":
        inner = graph.maker.get(node.input[0])
        node = inner if graph.only_reader(node.input[0]) is not None else None
    if node is None or node.op_type != "Conv" or node.input[1] not in graph.weights:
        return None
    return node


def _channelwise(graph: Graph, node: NodeProto, channels: int) -> str | None:
    """The weight of a node that reads each channel by itself."""
    if node.op_type == "Conv" and node.input[1] in graph.weights:
        shape = graph.weights[node.input[1]].shape
        return str(node.input[1]) if attribute(node, "group", 1) == channels == shape[0] else None
    if node.op_type == "Mul":
        for name in node.input:
            array = graph.weights.get(name)
            if array is not None and array.shape[:1] == (channels,) and array.size == channels and array.ndim > 1:
                return str(name)
    return None


def _uses(graphs: Sequence[Graph], name: str) -> int:
    return sum(len(graph.readers.get(name, [])) for graph in graphs)
