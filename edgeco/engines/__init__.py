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

NAMES = ("onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt")
"""Engines of this release. "auto" takes tensorrt where all that it needs is there, else onnxruntime."""

PROVIDERS = {
    "onnxruntime": "CPUExecutionProvider",
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
}
"""What of ONNX Runtime computes; with the latter two states cross to the GPU and back in every step."""

MOST_THREADS = 256
"""Starting more takes minutes and helps nobody."""


def open_engine(onnx: bytes | Sequence[bytes | None], *, engine: str = "auto", threads: int | None = None) -> Engine:
    """Compile a complete ONNX model (weights included).

    Args:
        onnx: the serialized model; several, one per phase, for a network that strides in time, None where a phase has
            nothing to do. Equal ones are compiled once.
        engine: one of ONNX Runtime's ``NAMES``; "auto" is the processor. TensorRT is opened over a whole bundle,
            which knows its states: ``edgeco.engines.selection``.
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

    if engine == "tensorrt":
        raise EngineError("TensorRT compiles whole bundles; open one with edgeco.load(path, engine='tensorrt')")
    provider = PROVIDERS["onnxruntime" if engine == "auto" else engine]

    def compiled_by(model: bytes) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(model, threads=threads, provider=provider)

    if isinstance(onnx, bytes):
        return compiled_by(onnx)
    compiled = {model: compiled_by(model) for model in dict.fromkeys(onnx) if model is not None}
    if len(onnx) == 1 and onnx[0] is not None:
        return compiled[onnx[0]]
    return Phased([None if model is None else compiled[model] for model in onnx])


__all__ = ["NAMES", "open_engine"]
