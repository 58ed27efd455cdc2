"""Bias correction: rounding the weights shifts the mean of a layer's result, and its bias takes the shift back.

The shift of a channel is the sum of what rounding did to its weights, each times the mean of the number it multiplies
(Nagel et al., ICCV 2019, section 4.2, with observed means). Padding at the edges of a frame is not accounted for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto

from edgeco.bundle.manifest import Manifest
from edgeco.bundle.ranges import tensor_key
from edgeco.calibration.channels import observe_channels
from edgeco.calibration.grid import Kind, weight_codes
from edgeco.calibration.network import Graph, Key, attribute
from edgeco.calibration.placement import Placement, layers_of
from edgeco.export.exported import Exported

Array = np.ndarray[Any, Any]


def bias_shifts(
    exported: Exported, graphs: Sequence[Graph], manifest: Manifest, placement: Placement, kind: Kind, frames: Array
) -> dict[Key, Array]:
    """What is to be added to the bias of each layer, by the layer's result.

    Args:
        exported: the FP32 graphs.
        graphs: the same, read.
        manifest: what describes them.
        placement: the layers that are quantised.
        kind: typing.
        frames: a stream, (steps, *shape).
    """
    layers: dict[Key, tuple[NodeProto, str]] = {}
    for graph in graphs:
        for node in layers_of(graph):
            result = Key(graph.number, node.output[0])
            if result in placement.layers and node.op_type in ("Conv", "Gemm") and node.input[1] in exported.weights:
                layers[result] = node, tensor_key(node.input[0], graph.number)
    wanted = {key: 1 for _, key in layers.values()}
    if not wanted:
        return {}
    seen = observe_channels(exported, manifest, frames, wanted)
    return {
        result: -_shift(node, exported.weights[node.input[1]], seen[key].mean, kind)
        for result, (node, key) in layers.items()
        if key in seen
    }


def _shift(node: NodeProto, array: Array, mean: Array, kind: Kind) -> Array:
    """The change of a layer's mean result per output channel."""
    if node.op_type == "Gemm" and not attribute(node, "transB", 0):
        array = array.T
    codes, scales = weight_codes(array, 0, kind)
    rounding = codes * scales.reshape(-1, *[1] * (array.ndim - 1)).astype(np.float64) - array
    per_input = rounding.reshape(*array.shape[:2], -1).sum(axis=2)
    groups = attribute(node, "group", 1)
    if groups == 1:
        return np.asarray(per_input @ mean)
    inputs = mean.reshape(groups, -1)[np.arange(len(array)) // (len(array) // groups)]
    return np.asarray((per_input * inputs).sum(axis=1))
