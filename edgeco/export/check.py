"""Runs an exported graph over frames with the product's own engine, for the build's gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeco.bundle.manifest import Manifest
from edgeco.engines import open_engine
from edgeco.engines.session import Session


def rollout(
    onnx: Sequence[bytes | None], manifest: Manifest, frames: np.ndarray[Any, Any]
) -> dict[str, np.ndarray[Any, Any]]:
    """Answers of one stream of a one-input network, from reset, to every frame.

    Args:
        onnx: the complete model of every phase.
        manifest: what describes it.
        frames: (steps, *shape) as the graph's input takes them.

    Raises:
        EngineError: the engine refuses the graph.
        BundleError: the graph is not what the manifest says.
    """
    engine = open_engine(onnx, engine="onnxruntime")
    session = Session(engine, manifest)
    made: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in session.outputs}
    entry = session.inputs[manifest.inputs[0].name]
    engine.memory.write(entry, frames[0])
    for _ in range(manifest.timeline.lead):
        session.run()
    for frame in frames:
        engine.memory.write(entry, frame)
        session.run()
        for name, buffer in session.outputs.items():
            made[name].append(engine.memory.read(buffer))
    return {name: np.stack(values) for name, values in made.items()}
