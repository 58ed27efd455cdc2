"""What a network costs as a step network: bytes that a stream keeps, and seconds of a step on this machine."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeco.continual.context import Exact
from edgeco.continual.convert import StepGraph, convert_graph, trace_network
from edgeco.engines import open_engine
from edgeco.engines.session import Session
from edgeco.export.onnx import export_onnx
from edgeco.export.package import history_bytes, manifest_of
from edgeco.graph.trace import ClipGraph
from edgeco.runtime.timing import now
from edgeco.spec import BuildSpec

WARM_UP = 8
"""Rounds of the network's strides before any are timed."""


def example(clip: ClipGraph) -> Any:
    """A clip of one row as the network takes it, and its axes of time."""
    made = {item.name: torch.zeros(1, *item.shape[1:], dtype=item.dtype) for item in clip.inputs}
    dims = {item.name: item.time_dim for item in clip.inputs}
    return (made, dims) if clip.by_name else (tuple(made.values()), tuple(dims.values()))


def step_graph(net: nn.Module, clip: ClipGraph, exact: Exact | None = None) -> StepGraph:
    """The step network of a network that takes clips like those of an earlier trace."""
    return convert_graph(trace_network(net, *example(clip)), exact=exact)


def state_bytes(net: nn.Module, clip: ClipGraph, exact: Exact | None = None) -> int:
    """Bytes that one stream of the network's step form keeps."""
    return sum(map(history_bytes, step_graph(net, clip, exact).histories))


def step_session(net: nn.Module, clip: ClipGraph, exact: Exact | None = None) -> tuple[Session, int]:
    """The exported step network in ONNX Runtime, ready to run, and in how many steps its strides come round."""
    step = step_graph(copy.deepcopy(net).float(), clip, exact)
    exported = export_onnx(step, None)
    manifest = manifest_of("pruned", BuildSpec(model="pruned"), step, None, None, 0, 0, {})
    session = Session(open_engine(exported.phases(), engine="onnxruntime"), manifest)
    rng = np.random.default_rng(0)
    for item in manifest.inputs:
        frame = rng.standard_normal(item.shape).astype(item.dtype)
        session.engine.memory.write(session.inputs[item.name], frame)
    return session, manifest.timeline.stride


def step_times(sessions: list[tuple[Session, int]], rounds: int = 60) -> list[np.ndarray[Any, Any]]:
    """Seconds of steps, of several networks in turn so that a busy machine slows all of them alike.

    A network that strides in time works unequally from step to step; a time is the mean over one round of its strides.
    """
    whole = [period * max(1, math.ceil(4 / period)) for _, period in sessions]
    samples: list[list[float]] = [[] for _ in sessions]
    for turn in range(WARM_UP + rounds):
        for (session, _), steps, own in zip(sessions, whole, samples, strict=True):
            start = now()
            for _ in range(steps):
                session.run()
            if turn >= WARM_UP:
                own.append((now() - start) * 1e-9 / steps)
    return [np.array(own) for own in samples]


def percentiles(samples: np.ndarray[Any, Any]) -> dict[str, float]:
    """Median and 95th percentile, in seconds."""
    p50, p95 = np.percentile(samples, [50, 95])
    return {"p50": float(p50), "p95": float(p95)}
