"""Whether a TensorRT takes a network as it is: found out by compiling it once, and remembered beside the plans.

INT8 at the ends of a network is taken by some versions and not by others, and nothing but trying tells. A compilation
that fails takes minutes and leaves no plan, so that without this every start would try again.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edgeco.errors import EngineError

FORMAT: Literal[1] = 1

SHORTAGES = ("outofmemory", "out of memory", "insufficient memory", "insufficient workspace")
"""Words of TensorRT's that blame the moment and not the graph."""


class Refused(EngineError):
    """TensorRT does not take a graph, and will not take it another time either. Whatever else keeps it from being
    compiled (memory, a signal, a disk) is an EngineError alone."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came of trying: ``refused`` says why it is not taken, None if it is."""

    format: Literal[1]
    network: str
    tensorrt: str
    gpu: str
    refused: str | None


def failure(message: str, reason: str) -> EngineError:
    """The error for a graph that could not be compiled for a reason of TensorRT's."""
    short = any(word in reason.lower() for word in SHORTAGES)
    return EngineError(message) if short else Refused(message)
