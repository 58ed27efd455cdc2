"""edgeco: run clip networks live on edge devices, one frame at a time.

Build side (needs ``edgeco[build]``): :func:`convert`, :func:`build`, :func:`rule`,
:class:`RecyclingPositionalEncoding`.
Run side: :func:`load`, :func:`open_source`, :class:`Pacer`. Nothing heavy is imported until it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgeco.errors import EdgecoError

__version__ = "0.1.0"

_FACE = {
    "convert": "edgeco.continual.program",
    "StepProgram": "edgeco.continual.program",
    "rule": "edgeco.continual.registry",
    "RecyclingPositionalEncoding": "edgeco.continual.positions",
    "build": "edgeco.building",
    "BuildSpec": "edgeco.spec",
    "load": "edgeco.runtime.model",
    "open_source": "edgeco.runtime.sources",
    "Pacer": "edgeco.runtime.pacer",
}

__all__ = ["EdgecoError", "__version__", *_FACE]

if TYPE_CHECKING:
    from edgeco.building import build
    from edgeco.continual.positions import RecyclingPositionalEncoding
    from edgeco.continual.program import StepProgram, convert
    from edgeco.continual.registry import rule
    from edgeco.runtime.model import load
    from edgeco.runtime.pacer import Pacer
    from edgeco.runtime.sources import open_source
    from edgeco.spec import BuildSpec


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module 'edgeco' has no attribute {name!r}")
    try:
        module = importlib.import_module(_FACE[name])
    except ModuleNotFoundError as error:
        if error.name in ("torch", "onnx", "onnxscript"):
            raise ImportError(f"edgeco.{name} needs {error.name}: pip install 'edgeco[build]'.") from error
        raise
    return getattr(module, name)
