"""Whether the members of a bundle are what its manifest says: the same checks before writing and when opening.

Names and sizes come first, then hashes; only what has the right hash is parsed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeco.bundle.archive import MANIFEST
from edgeco.bundle.golden import check_golden
from edgeco.bundle.graph import Graph, read_graph
from edgeco.bundle.limits import MAX_REPORT
from edgeco.bundle.manifest import Manifest, Variant
from edgeco.bundle.ranges import RANGES, model_hash, read_ranges
from edgeco.bundle.tensors import Tensor, read_tensors
from edgeco.bundle.text import parse_json, shown
from edgeco.bundle.validate import validate
from edgeco.errors import BundleError

REPORT = "report.json"


def check_listing(manifest: Manifest, members: Mapping[str, memoryview]) -> None:
    """Check names, then sizes, then hashes. ``members`` are all but the manifest.

    Raises:
        BundleError: a member is missing, unlisted, or not the one that was built.
    """
    for name in members:
        if name not in manifest.members:
            raise BundleError(f"member {shown(name)} is not listed in {MANIFEST}.")
    for name, record in manifest.members.items():
        if name not in members:
            raise BundleError(f"member {shown(name)} is listed in {MANIFEST} and missing.")
        size = members[name].nbytes
        if size != record.size:
            raise BundleError(f"member {shown(name)} has {size} bytes; {MANIFEST} says {record.size}.")
    for name, record in manifest.members.items():
        if hashlib.sha256(members[name]).hexdigest() != record.sha256:
            raise BundleError(f"member {shown(name)} is not the one the bundle was built with (sha256).")


def check_contents(manifest: Manifest, members: Mapping[str, memoryview]) -> dict[str, frozenset[str]]:
    """Check the manifest in itself, then every member it uses; returns each graph member's weights by name.

    Raises:
        BundleError: with the first thing that does not fit.
    """
    validate(manifest)
    graphs = {name: read_graph(members[name], name) for name in _graph_members(manifest)}
    weights = {
        name: read_tensors(members[name], name)
        for name in sorted({variant.weights for variant in manifest.variants.values()})
    }
    for name, variant in manifest.variants.items():
        phases = [graphs[member] if member else None for member in variant.graphs]
        _check_interface(name, [graph for graph in phases if graph is not None], manifest)
        _check_phases(name, phases, manifest)
        for member in filter(None, dict.fromkeys(variant.graphs)):
            _check_weights(member, graphs[member], variant, weights[variant.weights])
    check_golden(manifest, read_tensors(members[manifest.golden.member], manifest.golden.member))
    if REPORT in members:
        read_report(members[REPORT])
    if RANGES in members:
        _check_ranges(manifest, members, weights)
    return {name: frozenset(graph.missing) for name, graph in graphs.items()}


def read_report(member: memoryview) -> dict[str, object]:
    """The build report."""
    if member.nbytes > MAX_REPORT:
        raise BundleError(f"{REPORT} has {member.nbytes} bytes; the limit is {MAX_REPORT}.")
    return parse_json(member, REPORT)


EXACT = "fp32"
"""The variant that every bundle has, and whose tensors the ranges are of."""


@dataclass(frozen=True)
class _Exact:
    graphs: tuple[bytes, ...]
    schedule: tuple[int | None, ...]
    weights: dict[str, np.ndarray[Any, Any]]


def _check_ranges(
    manifest: Manifest, members: Mapping[str, memoryview], weights: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """The ranges are those of this network, with these weights, and of its histories."""
    ranges = read_ranges(members[RANGES])
    variant = manifest.variants.get(EXACT)
    if variant is None:
        raise BundleError(f"{RANGES} is of the variant {EXACT}, which the bundle does not have.")
    arrays = {name: tensor.array() for name, tensor in weights[variant.weights].items()}
    graphs = tuple(bytes(members[name]) if name else b"" for name in variant.graphs)
    schedule = tuple(place if graph else None for place, graph in enumerate(graphs))
    if model_hash(_Exact(graphs, schedule, arrays)) != ranges.model:
        raise BundleError(f"{RANGES} is of another network, or of other weights; calibrate this one.")
    histories = {history.name for history in manifest.histories}
    for name in ranges.histories.keys() ^ histories:
        what = "lacks the history" if name in histories else "names a history that the network does not have,"
        raise BundleError(f"{RANGES} {what} {shown(name)}.")


def _graph_members(manifest: Manifest) -> list[str]:
    return sorted({name for variant in manifest.variants.values() for name in variant.graphs if name})


def _check_interface(name: str, graphs: list[Graph], manifest: Manifest) -> None:
    """The graphs of one variant take and give exactly what the manifest describes."""
    fed = {entry.name for entry in manifest.inputs}
    given = {entry.name for entry in manifest.outputs}
    for history in manifest.histories:
        fed |= {read.name for read in history.reads}
        given.add(history.write)
    sides = (
        ("takes", fed, set[str]().union(*(graph.inputs for graph in graphs))),
        ("gives", given, set[str]().union(*(graph.outputs for graph in graphs))),
    )
    for verb, described, found in sides:
        for tensor in sorted(found - described):
            raise BundleError(f"variant {shown(name)} {verb} {shown(tensor)}, which {MANIFEST} does not describe.")
        for tensor in sorted(described - found):
            raise BundleError(f"variant {shown(name)} does not have {shown(tensor)}, which {MANIFEST} describes.")


def _check_phases(name: str, graphs: list[Graph | None], manifest: Manifest) -> None:
    """Every phase gives the answers and writes the histories that are due in it, and no others."""
    for phase, graph in enumerate(graphs):
        due = {answer.name for answer in manifest.outputs if (phase - answer.valid_from) % answer.rate == 0}
        due |= {history.write for history in manifest.histories if phase % history.rate == history.phase}
        given = set(graph.outputs) if graph is not None else set[str]()
        for tensor in sorted(due ^ given):
            verb = "does not give" if tensor in due else "gives"
            raise BundleError(f"variant {shown(name)} {verb} {shown(tensor)} in phase {phase}, unlike {MANIFEST} says.")


def _check_weights(member: str, graph: Graph, variant: Variant, weights: Mapping[str, Tensor]) -> None:
    """Every name the graph leaves open is a weight, and no weight takes a name that the graph makes itself."""
    for tensor in sorted(graph.missing - set(weights)):
        raise BundleError(f"{member} reads {shown(tensor)}, which is neither made in it nor held by {variant.weights}.")
    for tensor in sorted((graph.made | graph.inputs | graph.initializers) & set(weights)):
        raise BundleError(f"{member} makes {shown(tensor)} itself, and {variant.weights} holds a tensor of that name.")
