"""A host that knows nothing of start-up: states begin as border, outputs become inputs, ONNX Runtime does the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime

from edgeco.bundle.manifest import Manifest


def stream(models: Sequence[bytes | None], manifest: Manifest, frames: np.ndarray) -> list[dict[str, np.ndarray]]:
    """What every step gives: the graph outputs that are answers.

    Args:
        models: complete model of every phase, None where there is nothing to do.
        frames: (steps, rows, *shape) for the network's only input.
    """
    sessions = {model: onnxruntime.InferenceSession(model) for model in set(models) if model is not None}
    rows = frames.shape[1]
    past = {}
    for history in manifest.histories:
        border = np.full((rows * history.rows_per_stream, *history.shape), history.border, history.dtype)
        past[history.name] = [border] * history.depth
    given = []
    for step, frame in enumerate(frames):
        model = models[step % len(models)]
        feeds: dict[str, Any] = {manifest.inputs[0].name: frame}
        for history in manifest.histories:
            elements = past[history.name]
            for read in history.reads:
                single = elements[-(read.age or 1)]
                feeds[read.name] = np.stack(elements) if history.storage in ("ring", "mirror") else single
        made = {} if model is None else _run(sessions[model], feeds)
        for history in manifest.histories:
            if history.write in made:
                past[history.name] = [*past[history.name][1:], made.pop(history.write)]
        given.append(made)
    return given


def _run(session: onnxruntime.InferenceSession, feeds: dict[str, Any]) -> dict[str, np.ndarray]:
    wanted = {argument.name for argument in session.get_inputs()}
    names = [argument.name for argument in session.get_outputs()]
    made = session.run(names, {name: value for name, value in feeds.items() if name in wanted})
    return dict(zip(names, made, strict=True))
