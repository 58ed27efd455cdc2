"""Bias correction: what rounding does to the mean of a layer's result, its bias takes back.

Rounding weights shifts the mean by what it did to each, times the mean of the number that it multiplies (Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2, with observed means).
Rounding the numbers themselves shifts it as well: after a ReLU or a SiLU most are small, less than half a step, and all
of them become 0, in every layer to the same side; beyond the last code they are clipped. So the means of the numbers
as the grid gives them back are observed too, for each layer by itself on what FP32 gives it: those before it have their
own correction. A layer left in float is corrected as well if what it reads lies on a grid, and of a sum of two branches
the layer that makes one. Padding at the edges of a frame is not accounted for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto

from edgeco.bundle.manifest import Manifest
from edgeco.bundle.ranges import tensor_key
from edgeco.calibration.channels import Channels, observe_channels
from edgeco.calibration.grid import Grid, Kind, weight_codes
from edgeco.calibration.network import Graph, Key, attribute
from edgeco.calibration.placement import Placement, layers_of
from edgeco.export.exported import Exported

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Layer:
    """A layer to correct: its node, whether its weights are rounded, and the keys of what it and its sum read."""

    node: NodeProto
    coded: bool
    given: str
    added: tuple[str, ...]


def bias_shifts(
    exported: Exported,
    graphs: Sequence[Graph],
    manifest: Manifest,
    placement: Placement,
    grids: Mapping[Key, Grid],
    kind: Kind,
    streams: Sequence[Array],
) -> dict[str, Array]:
    """What is to be added to the bias of each layer, by the layer's weight.

    Args:
        exported: the FP32 graphs.
        graphs: the same, read.
        manifest: what describes them.
        placement: the layers that are quantised.
        grids: of every tensor on one.
        kind: typing.
        streams: what means are taken over, (steps, *shape) each.
    """
    layers: dict[str, _Layer] = {}
    for graph in graphs:
        for layer in _layers(graph, placement, grids):
            layers.setdefault(layer.node.input[1], layer)
    wanted = {key: 1 for layer in layers.values() for key in (layer.given, *layer.added)}
    if not wanted:
        return {}
    coded = {tensor_key(key.name, key.graph): grid for key, grid in grids.items()}
    seen = observe_channels(exported, manifest, streams, wanted, coded)
    shifts = {}
    for weight, layer in layers.items():
        if layer.given in seen and weight in exported.weights:
            shift = _shift(layer, exported.weights[weight], seen[layer.given], kind)
            if shift is not None:
                extra = [seen[key].rounded_mean - seen[key].mean for key in layer.added if key in seen]
                shifts[weight] = -sum(extra, shift)
    return shifts


def _layers(graph: Graph, placement: Placement, grids: Mapping[Key, Grid]) -> Iterator[_Layer]:
    """The layers of a graph whose result rounding shifts, and which have a place for a bias."""
    sums = dict(_sums(graph, placement, grids))
    for node in layers_of(graph):
        coded = Key(graph.number, node.output[0]) in placement.layers
        if node.op_type not in ("Conv", "Gemm") or not (coded or Key(graph.number, node.input[0]) in grids):
            continue
        if not coded and (node.op_type != "Conv" or len(graph.readers[node.input[1]]) > 1):
            continue
        yield _Layer(node, coded, tensor_key(node.input[0], graph.number), sums.get(node.output[0], ()))


def _sums(graph: Graph, placement: Placement, grids: Mapping[Key, Grid]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Of sums whose branches both lie on a grid: what the layer makes whose bias takes the shifts of both."""
    for node in graph.body.node:
        if node.op_type != "Add" or not all(Key(graph.number, name) in grids for name in node.input):
            continue
        for name in node.input:
            if Key(graph.number, name) in placement.layers and graph.only_reader(name) is not None:
                yield name, tuple(tensor_key(given, graph.number) for given in node.input)
                break


def _shift(layer: _Layer, array: Array, given: Channels, kind: Kind) -> Array | None:
    """The change of a layer's mean result per output channel; None where its channels are not those observed."""
    if layer.node.op_type == "Gemm" and not attribute(layer.node, "transB", 0):
        array = array.T
    groups = attribute(layer.node, "group", 1)
    exact = array.reshape(*array.shape[:2], -1).sum(axis=2, dtype=np.float64)
    rounded = exact
    if layer.coded:
        codes, scales = weight_codes(array, 0, kind)
        real = codes * scales.reshape(-1, *[1] * (array.ndim - 1)).astype(np.float64)
        rounded = real.reshape(*array.shape[:2], -1).sum(axis=2)
    if len(given.mean) != groups * array.shape[1]:
        return None
    inputs = np.arange(len(array)) // (len(array) // groups)
    means, after = (mean.reshape(groups, -1)[inputs] for mean in (given.mean, given.rounded_mean))
    return np.asarray((rounded * after - exact * means).sum(axis=1))
