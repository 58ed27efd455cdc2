"""What the installed TensorRT can do, found by its attributes; one object for every version from 8.6 to 11.x."""

from __future__ import annotations

import importlib
import importlib.util
import re
from types import ModuleType
from typing import Any

from edgeco.errors import EngineError

OLDEST = (8, 6)
STRONG = (10, 12)
"""Strong typing is there from 10.0 and complete from here: operators without a typed form were left before."""

CEILINGS = (((10, 14), 22), ((10, 0), 20), ((8, 6), 17))
"""The newest opset that the ONNX parser takes, by the first version that does."""


class Api:
    """The ``tensorrt`` module, what it is missing, and what differs.

    Attributes:
        trt: the module.
        version: major, minor, patch.
        weak: whether layers may be given types by builder flags (gone in 11.0).
        strong: whether FP16 must be, or had better be, written into the graph.
        monitored: whether a build tells of its progress and can be cancelled.
    """

    def __init__(self, trt: ModuleType) -> None:
        self.trt = trt
        if not hasattr(trt, "__version__") or not hasattr(trt, "Builder"):  # a folder of that name in the path, say
            place = getattr(trt, "__file__", None) or next(iter(getattr(trt, "__path__", ())), "an unknown place")
            raise EngineError(
                f"what Python imports as tensorrt is not TensorRT but {place}; rename that, or start elsewhere"
            )
        self.text = str(trt.__version__)
        numbers = [int(part) for part in re.findall(r"\d+", self.text)[:3]]
        self.version = tuple(numbers + [0] * (3 - len(numbers)))
        if self.version < OLDEST:
            raise EngineError(f"TensorRT {self.text} is too old; edgeco needs 8.6 or newer, on a Jetson JetPack 6 or 7")
        self.weak = hasattr(trt.BuilderFlag, "FP16")
        self.strong = not self.weak or self.version >= STRONG
        self.monitored = hasattr(trt, "IProgressMonitor")
        self.ceiling = next(opset for since, opset in CEILINGS if self.version >= since)
        self.dtypes = self._dtypes()

    def _dtypes(self) -> dict[Any, str]:
        """Element types a step graph may have; TensorRT's own table fails on new types and on old numpy names."""
        kinds = self.trt.DataType
        return {
            kinds.FLOAT: "float32",
            kinds.HALF: "float16",
            kinds.INT8: "int8",
            kinds.UINT8: "uint8",
            kinds.INT32: "int32",
        }

    def creation_flags(self, strong: bool) -> int:
        """For ``Builder.create_network``."""
        flags = self.trt.NetworkDefinitionCreationFlag
        made = 0
        if self.version[0] < 10:
            made |= 1 << int(flags.EXPLICIT_BATCH)
        if strong and self.weak:  # where there is nothing else, asking for it is deprecated
            made |= 1 << int(flags.STRONGLY_TYPED)
        return made


def find_tensorrt() -> Api:
    """The installed TensorRT.

    Raises:
        EngineError: it is missing, cannot be imported, or is too old.
    """
    try:
        found = importlib.util.find_spec("tensorrt")
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise EngineError(
            "TensorRT is not installed; on a Jetson it comes with JetPack (make the environment with "
            "--system-site-packages), elsewhere: pip install tensorrt"
        )
    try:
        module = importlib.import_module("tensorrt")
    except Exception as error:  # a library that is missing, another numpy, a file that is not there: all have been seen
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise EngineError(
            f"TensorRT cannot be imported ({lines[0] if lines else 'no reason given'}); "
            "install its libraries too, on a Jetson with: apt install tensorrt"
        ) from error
    return Api(module)
