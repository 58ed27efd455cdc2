"""Runs an exported graph over frames with the product's own engine, for the build's gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeco.bundle.manifest import Manifest
from edgeco.engines import open_engine
from edgeco.engines.session import Session
from edgeco.errors import CheckFailed
from edgeco.export.exported import Exported

ENGINE_TOLERANCE = 1e-4
"""Greatest difference of the exported graph in ONNX Runtime from the torch runner, relative to the answers' size."""


def engine_gate(
    exported: Exported, manifest: Manifest, frames: np.ndarray[Any, Any], answers: dict[str, np.ndarray[Any, Any]]
) -> float:
    """The difference of the exported graph in ONNX Runtime, over the golden frames, from the torch runner, relative.

    Args:
        exported: the graphs.
        manifest: what describes them.
        frames: distinct golden frames, shown in turn.
        answers: of the torch runner, by output, (steps, *shape).

    Raises:
        CheckFailed: it is greater than ``ENGINE_TOLERANCE``.
    """
    steps = len(next(iter(answers.values())))
    given = rollout(exported.phases(), manifest, frames[np.arange(steps) % len(frames)])
    worst = 0.0
    for output in manifest.outputs:
        first = manifest.timeline.first_answer(output)
        expected = answers[output.name][first:]
        scale = max(float(np.abs(expected).max()), 1e-12)
        worst = max(worst, float(np.abs(given[output.name][first:] - expected).max()) / scale)
    if not worst <= ENGINE_TOLERANCE:
        raise CheckFailed(
            f"The exported graph differs from the step network by {worst:.2g} over the golden frames, where "
            f"{ENGINE_TOLERANCE:g} is accepted; nothing was written. Please report this network."
        )
    return worst


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
