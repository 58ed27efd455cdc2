"""Which tensors of the step graphs there are to observe, and from which step on what they hold counts.

Two things must not be taken for data. In the first steps of a stream much of what a graph computes rests on an empty
past and is thrown away: histories replace it by their border, answers are not yet valid. And some graphs write minus
infinity, or the lowest number there is, where something is absent: behind an attention mask, before a padded maximum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgeco.bundle.manifest import Manifest
from edgeco.bundle.ranges import tensor_key
from edgeco.calibration.observer import ABSENT
from edgeco.errors import CalibrationError
from edgeco.export.exported import Exported

SELECTING = {
    "Softmax", "LogSoftmax", "Max", "MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceLogSumExp", "Exp", "Sigmoid",
    "Tanh", "Relu", "Clip", "ArgMax", "TopK", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal",
}  # fmt: skip
"""What is absent at their inputs is not seen at their outputs."""


@dataclass
class Observed:
    """One tensor: what is computed alike in several graphs is one.

    Attributes:
        name: how messages call it.
        layer: the node that computes it, and the weights that node reads.
        starts: by graph number and tensor name, the first step in which what it holds is used.
        absent: whether it may hold numbers that stand for nothing.
        history: the history that keeps it, if one does.
        reads: keys of graph inputs by which that history is read.
    """

    name: str
    layer: str
    absent: bool
    starts: dict[tuple[int, str], int] = field(default_factory=dict)
    history: str | None = None
    reads: list[str] = field(default_factory=list)

    def filed(self) -> Iterator[str]:
        """The keys under which its range is filed."""
        for graph, name in self.starts:
            yield tensor_key(name, graph)
        yield from self.reads


def observed_tensors(exported: Exported, manifest: Manifest, asked: Iterable[str] | None = None) -> list[Observed]:
    """The tensors to observe, in the order in which they are computed; every history is among them.

    Args:
        exported: the FP32 step graphs.
        manifest: what describes them.
        asked: keys of tensors; None for all that hold float numbers.

    Raises:
        CalibrationError: a key names no tensor of float numbers.
    """
    readers = [_Reader(number, exported, manifest) for number in range(len(exported.graphs))]
    found: dict[bytes, Observed] = {}
    for reader in readers:
        reader.collect(found)
    _join_histories(found, readers, manifest)
    everything = list(found.values())
    if asked is None:
        return everything
    wanted = set(asked)
    missing = wanted - {key for item in everything for key in item.filed()}
    if missing:
        raise CalibrationError(
            f"There is no tensor {min(missing)!r} of float numbers in the step graph to observe; 'edgeco inspect "
            "--ranges' lists those of a calibrated bundle."
        )
    return [item for item in everything if item.history is not None or wanted.intersection(item.filed())]


def _join_histories(found: dict[bytes, Observed], readers: list[_Reader], manifest: Manifest) -> None:
    """Say of each history by which inputs it is read."""
    for history in manifest.histories:
        kept = found[_digest("result", history.write)]
        kept.history = history.name
        kept.reads += [
            tensor_key(read.name, reader.number)
            for reader in readers
            for read in history.reads
            if read.name in reader.inputs
        ]


class _Reader:
    """One graph, read for its tensors.

    Attributes:
        identity: of every tensor a digest of how it is computed; equal ones hold equal numbers.
    """

    def __init__(self, number: int, exported: Exported, manifest: Manifest) -> None:
        self.number, self.manifest, self.weights = number, manifest, exported.weights
        self.body = onnx.ModelProto.FromString(exported.graphs[number]).graph
        self.inputs = [value.name for value in self.body.input]
        inferred = onnx.shape_inference.infer_shapes(exported.model(number)).graph
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        self.floats = {v.name for v in values if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
        self._results = {history.write for history in manifest.histories} | {o.name for o in manifest.outputs}
        self.identity = self._identities()

    def collect(self, found: dict[bytes, Observed]) -> None:
        """Add this graph's tensors to those of the graphs before."""
        starts, absent = self._starts(), self._reached(self._absent(), SELECTING)
        varying = self._reached(set(self.inputs))
        frames = {entry.name for entry in self.manifest.inputs}
        layers = {name: f"input {name}" for name in self.inputs if name in frames}
        layers |= {name: _layer(node, self.weights) for node in self.body.node for name in node.output}
        for name, layer in layers.items():
            if name in self.floats and name in starts and name in varying:
                item = found.setdefault(self.identity[name], Observed(name, layer, name in absent))
                item.starts[self.number, name] = starts[name]

    def _identities(self) -> dict[str, bytes]:
        known = {name: _digest("input", name) for name in self.inputs}
        known |= {name: _digest("weight", name) for name in self.weights}
        for tensor in self.body.initializer:
            array = numpy_helper.to_array(tensor)
            known[tensor.name] = _digest("constant", array.dtype.str, str(array.shape), array.tobytes())
        for node in self.body.node:
            attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
            given = [known.get(name, b"") for name in node.input]
            for place, name in enumerate(node.output):
                shared = name in self._results  # one thing, also where steps come to it in different ways
                known[name] = (
                    _digest("result", name) if shared else _digest(node.op_type, str(place), *attributes, b"|", *given)
                )
        return known

    def _starts(self) -> dict[str, int]:
        """The first step in which each tensor is used: of those that a history keeps, or an answer that is valid."""
        made = {name for node in self.body.node for name in node.output}
        sinks = {output.name: output.valid_from for output in self.manifest.outputs if output.name in made}
        starts = sinks | {h.write: h.starts_at for h in self.manifest.histories if h.write in made}
        for node in reversed(self.body.node):
            used = [starts[name] for name in node.output if name in starts]
            for name in node.input if used else ():
                starts[name] = min(starts.get(name, min(used)), *used)
        return starts

    def _absent(self) -> set[str]:
        """Constants and histories that hold numbers which stand for nothing."""
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.body.initializer} | self.weights
        kinds = {name: array for name, array in constants.items() if np.issubdtype(array.dtype, np.floating)}
        marked = {name for name, array in kinds.items() if bool((np.abs(array) >= ABSENT).any())}
        bordered = [h for h in self.manifest.histories if abs(h.border) >= ABSENT]
        return marked | {read.name for history in bordered for read in history.reads}

    def _reached(self, names: set[str], past: set[str] | None = None) -> set[str]:
        """Some tensors, and those computed from them by other operators than those of ``past``."""
        reached = set(names)
        for node in self.body.node:
            if reached.intersection(node.input) and node.op_type not in (past or ()):
                reached.update(node.output)
        return reached


def _digest(*parts: str | bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()


def _layer(node: onnx.NodeProto, weights: dict[str, np.ndarray[Any, Any]]) -> str:
    read = [name for name in node.input if name in weights]
    return f"{node.op_type} {node.name}" + (f" (weights {', '.join(read)})" if read else "")
