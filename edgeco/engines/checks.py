"""Whether a compiled graph is the one that a manifest describes, and a window lies in its buffer."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np

from edgeco.bundle.manifest import History, Manifest
from edgeco.engines.protocol import Engine, Tensor
from edgeco.errors import BundleError, EngineError

Shape = tuple[int | None, ...]
"""None is the row axis in a manifest, and any size that a graph leaves open."""


HALVED = {"float32": "float16"}
"""A variant may keep the histories in a narrower type than the manifest's: half the memory, and half its traffic."""


def typed_histories(engine: Engine, manifest: Manifest) -> tuple[History, ...]:
    """The histories in the types in which this graph keeps them, borders as those types can hold them."""
    types = {tensor.name: tensor.dtype for tensor in (*engine.inputs, *engine.outputs)}
    typed = []
    for history in manifest.histories:
        own = {types.get(name) for name in (history.write, *(read.name for read in history.reads))}
        if own == {HALVED.get(history.dtype)}:
            least, greatest = float(np.finfo(np.float16).min), float(np.finfo(np.float16).max)
            border = min(max(history.border, least), greatest)
            history = msgspec.structs.replace(history, dtype="float16", border=border)
        typed.append(history)
    return tuple(typed)


def check_graph(engine: Engine, manifest: Manifest, histories: Iterable[History] | None = None) -> None:
    """Raises BundleError if the compiled graph has not exactly the inputs and outputs that the manifest names."""
    inputs: dict[str, tuple[Shape, str]] = {e.name: ((None, *e.shape), e.dtype) for e in manifest.inputs}
    outputs: dict[str, tuple[Shape, str]] = {e.name: ((None, *e.shape), e.dtype) for e in manifest.outputs}
    for history in typed_histories(engine, manifest) if histories is None else histories:
        element: Shape = (None, *history.shape)
        block = (history.depth, *element) if history.storage in ("ring", "mirror") else element
        inputs.update((read.name, (block, history.dtype)) for read in history.reads)
        outputs[history.write] = element, history.dtype
    _compare(manifest.name, "input", inputs, engine.inputs)
    _compare(manifest.name, "output", outputs, engine.outputs)


def _compare(network: str, what: str, described: dict[str, tuple[Shape, str]], found: Iterable[Tensor]) -> None:
    tensors = {tensor.name: tensor for tensor in found}
    for name in sorted(described.keys() ^ tensors.keys()):
        where = "its manifest but not its graph" if name in described else "its graph but not its manifest"
        raise BundleError(f"{network} is not of one build: {what} {name!r} is in {where}")
    for name, (shape, dtype) in described.items():
        tensor = tensors[name]
        fits = len(shape) == len(tensor.shape) and all(
            None in (ours, theirs) or ours == theirs for ours, theirs in zip(shape, tensor.shape, strict=True)
        )
        if not fits or dtype != tensor.dtype:
            raise BundleError(
                f"{network} is not of one build: {what} {name!r} is {dtype}{_text(shape)} in its manifest "
                f"and {tensor.dtype}{_text(tensor.shape)} in its graph"
            )


def _text(shape: Shape) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"


def check_span(start: int, length: int, size: int, what: str) -> None:
    """Raises EngineError unless so many elements or rows from ``start`` lie in a buffer of ``size``."""
    if not 0 <= start <= start + length <= size:
        raise EngineError(f"a window of {length} from {start} does not lie in a buffer of {size} {what}")
