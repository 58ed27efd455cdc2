"""A network as exported: graphs without their weights, and the weights they share. Knows nothing of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from edgeco.bundle import Bundle
from edgeco.bundle.tensors import read_tensors


@dataclass(frozen=True)
class Exported:
    """The graphs without their weights, and the weights they share.

    Attributes:
        graphs: one per distinct set of work.
        schedule: number of the graph of every step, in turn; None where there is nothing to do.
        weights: tensors by name.
    """

    graphs: tuple[bytes, ...]
    schedule: tuple[int | None, ...]
    weights: dict[str, np.ndarray[Any, Any]]

    def model(self, number: int = 0) -> onnx.ModelProto:
        """One graph with its weights."""
        model: onnx.ModelProto = onnx.ModelProto.FromString(self.graphs[number])
        used = {name for node in model.graph.node for name in node.input}
        kept = {name: array for name, array in self.weights.items() if name in used}
        model.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in kept.items())
        return model

    def phases(self) -> list[bytes | None]:
        """The complete model of every step, in turn."""
        made = [self.model(i).SerializeToString() for i in range(len(self.graphs))]
        return [None if number is None else made[number] for number in self.schedule]


def exported_of(bundle: Bundle, variant: str = "fp32") -> Exported:
    """What a bundle was written from, as far as one variant goes; the graphs in the order in which they are first due.

    Raises:
        SpecError: the bundle has no such variant.
    """
    chosen = bundle.variant(variant)
    names = list(dict.fromkeys(filter(None, chosen.graphs)))
    weights = read_tensors(memoryview(bundle.read(chosen.weights)), chosen.weights)
    return Exported(
        graphs=tuple(bundle.read(name) for name in names),
        schedule=tuple(names.index(name) if name else None for name in chosen.graphs),
        weights={name: tensor.array() for name, tensor in weights.items()},
    )
