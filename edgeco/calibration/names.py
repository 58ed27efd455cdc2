"""What a user may ask INT8 to leave alone, and which networks INT8 is made for: told before any work is done."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from edgeco.bundle.manifest import Manifest
from edgeco.bundle.text import shown
from edgeco.calibration.network import Graph, folded_weights
from edgeco.calibration.placement import label, layers_of
from edgeco.errors import CalibrationError, SpecError
from edgeco.export.exported import Exported


def known_names(exported: Exported, manifest: Manifest) -> set[str]:
    """Every name by which a layer, a sum or a history can be left in float."""
    found = {history.name for history in manifest.histories}
    found |= {name for history in manifest.histories for name in (history.write, *(r.name for r in history.reads))}
    for network in (exported, folded_weights(exported)):
        for number in range(len(network.graphs)):
            graph = Graph(number, network, manifest)
            for node in layers_of(graph):
                found |= {label(graph, node), node.input[0], node.output[0], node.name}
            for node in graph.body.node:
                found |= {node.output[0], node.name} if node.op_type == "Add" else set()
    return found - {""}


def check_names(exported: Exported, manifest: Manifest, keep_float: Collection[str]) -> None:
    """Refuse a name that stands for nothing: a layer that was to stay in float would be in INT8 and nobody told.

    Raises:
        SpecError: the network has no layer, sum or history of that name.
    """
    if not keep_float:
        return
    names = known_names(exported, manifest)
    for name in keep_float:
        if name not in names:
            near = difflib.get_close_matches(name, sorted(names), 3) or sorted(h.name for h in manifest.histories)[:3]
            raise SpecError(
                f"There is no layer or history {shown(name)} to keep in float; names are as in {', '.join(near)}, and "
                "'edgeco calibrate --sensitivity' lists all that are in INT8."
            )


def check_inputs(manifest: Manifest) -> None:
    """Refuse INT8 for a network of several inputs.

    Raises:
        CalibrationError: there is more than one input.
    """
    if len(manifest.inputs) != 1:
        raise CalibrationError(
            f"{manifest.name} has {len(manifest.inputs)} inputs; INT8 is made for networks of one input so far. "
            "Build it without INT8, or join the inputs into one that the network takes apart."
        )
