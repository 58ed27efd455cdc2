"""What rounding shifts on the way to the last layers in INT8 is taken back by their biases.

Rounding that goes through a ReLU or a gate has a mean, and blocks that add to one another hand it on: in a deep network
most of what the answers differ by may be one and the same shift in every step, of which the rounding of weights tells
nothing. So the last layers are held against FP32 over a stream, and their means set right (the empirical bias
correction of Nagel et al., ICCV 2019). There it is done layer by layer, with a pass for each; all at once would count
each shift again in every layer behind it, and the last alone gets nearly all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto

from edgeco.bundle.manifest import Manifest
from edgeco.calibration.network import Graph, Key
from edgeco.calibration.placement import Placement, layers_of
from edgeco.calibration.probe import Probe
from edgeco.calibration.tensors import Observed
from edgeco.export.exported import Exported

Array = np.ndarray[Any, Any]


def last_layers(graphs: Sequence[Graph], placement: Placement) -> list[Key]:
    """Layers in INT8 from which an answer is computed without another one between, and that have room for a bias."""
    return [
        Key(graph.number, node.output[0])
        for graph in graphs
        for node in layers_of(graph)
        if node.op_type in ("Conv", "Gemm")
        and Key(graph.number, node.output[0]) in placement.layers
        and _ends(graph, node, placement)
    ]


def last_shifts(
    layers: Sequence[Key],
    right: tuple[Exported, Manifest],
    rounded: tuple[Exported, Manifest],
    written: Mapping[str, str],
    frames: Array,
) -> dict[Key, Array]:
    """What is to be added to the biases of some layers so that their results have the mean of FP32's, per channel.

    Args:
        layers: by their results in FP32.
        right: FP32 graphs and what describes them.
        rounded: the same network in INT8.
        written: what a result is called there, where not the same.
        frames: a stream, (steps, *shape).
    """
    means = [
        _means(exported, manifest, {key: names.get(key.name, key.name) for key in layers}, frames)
        for (exported, manifest), names in ((right, {}), (rounded, written))
    ]
    return {key: means[0][key] - means[1][key] for key in layers if key in means[0]}


def _ends(graph: Graph, layer: NodeProto, placement: Placement) -> bool:
    waiting, seen = [str(layer.output[0])], set[str]()
    while waiting:
        name = waiting.pop()
        if name in graph.answers:
            return True
        for reader, _ in graph.readers.get(name, []):
            if reader.output[0] not in seen and Key(graph.number, reader.output[0]) not in placement.layers:
                seen.update(reader.output)
                waiting += reader.output
    return False


def _means(exported: Exported, manifest: Manifest, names: Mapping[Key, str], frames: Array) -> dict[Key, Array]:
    """The mean of every channel (the second axis), from the first valid answer on."""
    start = manifest.timeline.valid_from
    observed = [Observed(name, "", False, {(key.graph, name): start}) for key, name in names.items()]
    keys, totals, counts = list(names), dict[Key, Array](), dict[Key, int]()
    probe = Probe(exported, manifest, observed, fused=False)
    for index, frame in enumerate(frames):
        probe.take({manifest.inputs[0].name: frame})
        for _ in range(1 + (manifest.timeline.lead if index == 0 else 0)):
            for place, array in probe.step():
                by_channel = np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)
                totals[keys[place]] = totals.get(keys[place], 0.0) + by_channel.sum(axis=1, dtype=np.float64)
                counts[keys[place]] = counts.get(keys[place], 0) + by_channel.shape[1]
    return {key: total / counts[key] for key, total in totals.items()}
