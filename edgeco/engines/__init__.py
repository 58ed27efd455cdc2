"""Engines compile step graphs and run them over buffers bound beforehand.

Example::

    engine = open_engine(bundle.onnx("fp32"), threads=2)
    session = Session(engine, bundle.manifest, rows=1)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeco.errors import EngineError, SpecError

if TYPE_CHECKING:
    from edgeco.engines.protocol import Engine

NAMES = ("onnxruntime",)
"""Engines of this release, in the order that "auto" prefers them."""

MOST_THREADS = 256
"""Starting more takes minutes and helps nobody."""


def open_engine(onnx: bytes | Sequence[bytes | None], *, engine: str = "auto", threads: int | None = None) -> Engine:
    """Compile a complete ONNX model (weights included).

    Args:
        onnx: the serialized model; several, one per phase, for a network that strides in time, None where a phase has
            nothing to do. Equal ones are compiled once.
        engine: one of ``NAMES``, or "auto" for the best that is installed.
        threads: processor threads to compute with; None for the physical cores this process may use.

    Raises:
        SpecError: `threads` is out of all proportion.
        EngineError: no such engine, it is not installed, or it refuses the graph.
    """
    if engine not in ("auto", *NAMES):
        raise EngineError(f"there is no engine named {engine!r}; choose auto or {' or '.join(NAMES)}")
    if threads is not None and threads > MOST_THREADS:
        raise SpecError(f"threads is {threads}; at most {MOST_THREADS} are started, and one per core is best")
    from edgeco.engines.onnxruntime import OnnxRuntimeEngine
    from edgeco.engines.phased import Phased

    if isinstance(onnx, bytes):
        return OnnxRuntimeEngine(onnx, threads=threads)
    compiled = {model: OnnxRuntimeEngine(model, threads=threads) for model in dict.fromkeys(onnx) if model is not None}
    if len(onnx) == 1 and onnx[0] is not None:
        return compiled[onnx[0]]
    return Phased([None if model is None else compiled[model] for model in onnx])


__all__ = ["NAMES", "open_engine"]
