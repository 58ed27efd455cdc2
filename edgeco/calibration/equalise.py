"""Cross-layer range equalisation: channels of very unequal range made equal before they share one grid.

A channel that one layer makes and another reads may be scaled up in the former and down in the latter: a ReLU and a
history with a border of zero between them do not mind (Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", ICCV 2019, section 4.1). There the scales come from the ranges of the weights.
Weights have a scale per channel here, so only the numbers between the layers profit: their ranges are observed, and
every channel is brought half of the way, in powers, to that of the widest: one that reached a twenty-fifth of it then
reaches a fifth. The whole way would be finer for what was seen, and leave no room for what was not: on held-out
recordings of the shipped networks it is the worse. The readers are depthwise, or stay in float: a dense one in INT8 has
one scale for all the channels that it reads, and what its numbers gain it would lose in its weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from onnx import NodeProto

from edgeco.bundle.manifest import History, Manifest
from edgeco.bundle.ranges import Ranges, TensorRange, tensor_key
from edgeco.calibration.channels import observe_channels
from edgeco.calibration.network import Graph, attribute
from edgeco.calibration.placement import float_reason
from edgeco.export.exported import Exported

Array = np.ndarray[Any, Any]

MOST = 16.0
"""A channel is widened at most so many times: what moves so little is noise, or will not stay so."""


@dataclass(frozen=True)
class Reader:
    """A weight that is multiplied with a history's channels: on which axis, and how often they follow one another."""

    weight: str
    axis: int
    elements: int


@dataclass(frozen=True)
class Pair:
    """A layer and the readers of its history."""

    history: History
    weight: str
    bias: str | None
    readers: tuple[Reader, ...]


def equalise(
    exported: Exported, manifest: Manifest, ranges: Ranges, frames: Array
) -> tuple[Exported, Ranges, list[str]]:
    """The same network with equal channels before the layers that allow it, its ranges, and the histories concerned.

    Args:
        exported: the FP32 graphs.
        manifest: what describes them.
        ranges: of its tensors.
        frames: a stream, (steps, *shape), that channels are looked at over where the ranges do not tell of them.
    """
    graphs = [Graph(number, exported, manifest) for number in range(len(exported.graphs))]
    pairs = [pair for history in manifest.histories if (pair := _pair(graphs, history)) is not None]
    extremes = _extremes(exported, graphs, manifest, pairs, ranges, frames)
    weights, changed, histories = dict(exported.weights), dict(ranges.tensors), dict(ranges.histories)
    done = []
    for pair in pairs:
        name = pair.history.name
        if name not in extremes:
            continue
        low, high = extremes[name]
        factors = _factors(np.maximum(-low, high), histories[name].amax)
        _scale(weights, pair, factors)
        found = histories[name] = _widened(histories[name], low * factors, high * factors)
        for graph in graphs:
            for tensor in (pair.history.write, *(read.name for read in pair.history.reads)):
                if tensor_key(tensor, graph.number) in changed:
                    changed[tensor_key(tensor, graph.number)] = found
        done.append(name)
    made = Exported(exported.graphs, exported.schedule, weights)
    return made, msgspec.structs.replace(ranges, tensors=changed, histories=histories), done


def _extremes(
    exported: Exported,
    graphs: Sequence[Graph],
    manifest: Manifest,
    pairs: Sequence[Pair],
    ranges: Ranges,
    frames: Array,
) -> dict[str, tuple[Array, Array]]:
    """The least and greatest number of every channel, by history: what a calibration saw, of all its recordings.

    A channel that was looked at for a moment only might be widened beyond what it holds at another, and be clipped.
    """
    known = {name: np.array(found.channels, np.float64).T for name, found in ranges.histories.items() if found.channels}
    wanted = {_key(graphs, pair.history): pair for pair in pairs if pair.history.name not in known}
    if wanted:  # ranges of before these were kept
        seen = observe_channels(exported, manifest, frames, dict.fromkeys(wanted, 1))
        known |= {wanted[key].history.name: np.stack([found.low, found.high]) for key, found in seen.items()}
    return {name: (low, high) for name, (low, high) in known.items()}


def _widened(found: TensorRange, low: Array, high: Array) -> TensorRange:
    """A range with other channels, which hold what they did and more."""
    return msgspec.structs.replace(
        found,
        low=min(found.low, float(low.min())),
        high=max(found.high, float(high.max())),
        limit=0.0,
        histogram=(),
        channels=tuple((float(a), float(b)) for a, b in zip(low, high, strict=True)),
    )


def _key(graphs: Sequence[Graph], history: History) -> str:
    return tensor_key(history.write, next(g.number for g in graphs if history.write in g.outputs))


def _factors(peak: Array, amax: float) -> Array:
    """How many times each channel is widened; one that was always 0 is not."""
    ratio = np.maximum(amax / np.maximum(peak, 1e-30), 1.0)
    return np.where(peak > 0, np.minimum(np.sqrt(ratio), MOST), 1.0)


def _scale(weights: dict[str, Array], pair: Pair, factors: Array) -> None:
    for name in filter(None, (pair.weight, pair.bias)):
        weights[name] = (weights[name] * _along(factors, 0, weights[name].ndim)).astype(np.float32)
    for reader in pair.readers:
        array = weights[reader.weight]
        column = _along(np.tile(factors, reader.elements), reader.axis, array.ndim)
        weights[reader.weight] = (array / column).astype(np.float32)


def _along(factors: Array, axis: int, axes: int) -> Array:
    return factors.reshape([-1 if place == axis else 1 for place in range(axes)])


def _pair(graphs: Sequence[Graph], history: History) -> Pair | None:
    """The layers around a history whose channels may be scaled; None where something else sees them."""
    if history.storage != "slots" or history.border != 0 or history.dtype != "float32" or not history.shape:
        return None
    makers, readers, met = set[tuple[str, str | None]](), set[Reader](), Counter[str]()
    for graph in graphs:
        maker = _maker(graph, history.write)
        if maker is not None:
            makers.add((maker.input[1], maker.input[2] if len(maker.input) > 2 else None))
            met.update(maker.input[1:])
        elif history.write in graph.maker:
            return None
        names = [history.write, *(read.name for read in history.reads)]
        for node in {id(node): node for name in names for node, _ in graph.readers.get(name, [])}.values():
            reader = _channelwise(graph, node, history) or _dense(graph, node, names)
            if reader is None:
                return None
            readers.add(reader)
            met[reader.weight] += 1
    if len(makers) != 1:
        return None
    weight, bias = makers.pop()
    pair = Pair(history, weight, bias or None, tuple(sorted(readers, key=lambda reader: reader.weight)))
    used = (weight, *filter(None, [bias]), *(reader.weight for reader in pair.readers))
    shared = len(set(used)) < len(used) or any(_uses(graphs, name) != met[name] for name in used)
    return None if shared or not readers else pair


def _maker(graph: Graph, name: str) -> NodeProto | None:
    node: NodeProto | None = graph.maker.get(name)
    if node is not None and node.op_type == "Relu":
        inner = graph.maker.get(node.input[0])
        node = inner if graph.only_reader(node.input[0]) is not None else None
    if node is None or not _by_rows(node) or node.input[1] not in graph.weights:
        return None
    return node


def _by_rows(node: NodeProto) -> bool:
    """Whether a layer's weight is (outputs, inputs, …)."""
    if node.op_type == "Gemm":
        plain = attribute(node, "alpha", 1.0) == 1 and attribute(node, "beta", 1.0) == 1
        return bool(plain and attribute(node, "transB", 0) and not attribute(node, "transA", 0))
    return str(node.op_type) == "Conv"


def _channelwise(graph: Graph, node: NodeProto, history: History) -> Reader | None:
    """A node that reads each channel by itself."""
    channels, axes = history.shape[0], len(history.shape)
    if node.op_type == "Conv" and node.input[1] in graph.weights:
        shape = graph.weights[node.input[1]].shape
        return Reader(node.input[1], 0, 1) if attribute(node, "group", 1) == channels == shape[0] else None
    if node.op_type == "Mul":
        for name in node.input:
            array = graph.weights.get(name)
            if array is not None and array.shape == (channels, *[1] * (axes - 1)) and axes > 1:
                return Reader(name, 0, 1)
    return None


def _dense(graph: Graph, node: NodeProto, names: Sequence[str]) -> Reader | None:
    """A layer that stays in float and mixes the channels of elements that follow one another.

    Where it computes in INT8, what its channels gain its weights would lose, which have no scale per input.
    """
    elements = 1
    if node.op_type == "Concat" and attribute(node, "axis", 0) == 1 and set(node.input) <= set(names):
        elements, joined = len(node.input), node.output[0]
        reader = graph.only_reader(joined)
        if reader is None or reader.input[0] != joined:
            return None
        node = reader
    if not _by_rows(node) or attribute(node, "group", 1) != 1 or node.input[1] not in graph.weights:
        return None
    if any(float_reason(graph, node, kind) is None for kind in ("cpu", "trt")):
        return None
    return Reader(node.input[1], 1, elements)


def _uses(graphs: Sequence[Graph], name: str) -> int:
    return sum(len(graph.readers.get(name, [])) for graph in graphs)
