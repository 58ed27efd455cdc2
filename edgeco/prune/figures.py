"""What a network costs: counted from its trace, or from the step network that the conversion makes of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeco.continual.convert import convert_graph, trace_network
from edgeco.continual.gate import gate
from edgeco.engines import open_engine
from edgeco.export.onnx import export_onnx
from edgeco.export.package import history_bytes
from edgeco.graph.trace import ClipGraph
from edgeco.runtime.timing import now

WARM_UP = 10


def example(clip: ClipGraph) -> dict[str, torch.Tensor]:
    """Clips of one row, by the names of the inputs."""
    return {item.name: torch.zeros(1, *item.shape[1:], dtype=item.dtype) for item in clip.inputs}


def retrace(net: nn.Module, clip: ClipGraph) -> ClipGraph:
    """Trace a network again on clips like those of an earlier trace."""
    clips = example(clip)
    dims = {item.name: item.time_dim for item in clip.inputs}
    if clip.by_name:
        return trace_network(net, clips, dims)
    return trace_network(net, tuple(clips.values()), tuple(dims.values()))


def state_bytes(net: nn.Module, clip: ClipGraph, exact: Any = None) -> int:
    """Bytes that one stream of the network's step form keeps."""
    return sum(map(history_bytes, convert_graph(retrace(net, clip), exact=exact).histories))


def step_times(net: nn.Module, clip: ClipGraph, exact: Any = None, steps: int = 60) -> np.ndarray[Any, Any]:
    """Seconds of single steps of the exported network in ONNX Runtime on this machine, after a warm-up.

    A network that strides in time does unequal work from step to step; its times are means over whole rounds.
    """
    step = gate(convert_graph(retrace(copy.deepcopy(net).float(), clip), exact=exact))
    engine = open_engine(export_onnx(step, None).phases(), engine="onnxruntime")
    return _timed(engine, step, steps)


def _timed(engine: Any, step: Any, steps: int) -> np.ndarray[Any, Any]:
    raise NotImplementedError


def percentiles(samples: np.ndarray[Any, Any]) -> dict[str, float]:
    """Median and 95th percentile, in seconds."""
    p50, p95 = np.percentile(samples, [50, 95])
    return {"p50": float(p50), "p95": float(p95)}


__all__: Sequence[str] = ("example", "percentiles", "retrace", "state_bytes", "step_times")
_ = now
