"""Refusal of bindings in which a graph would overwrite what it still reads.

Engines accept one address as input and output without a word and then give wrong answers, so every binding is checked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from edgeco.engines.protocol import Buffer
from edgeco.errors import EngineError


def span(buffer: Buffer) -> tuple[int, int]:
    """Addresses of the first byte and of the one past the last."""
    return buffer.address, buffer.address + math.prod(buffer.shape) * buffer.dtype.itemsize


def check_aliasing(inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
    """Raises EngineError if an output shares a byte with an input or with another output."""
    spans = [(*span(buffer), name, False) for name, buffer in inputs.items()]
    spans += [(*span(buffer), name, True) for name, buffer in outputs.items()]
    reach: dict[bool, tuple[int, str]] = {}  # the furthest end so far, of inputs and of outputs
    for start, end, name, written in sorted(spans):
        for other_written, (other_end, other) in reach.items():
            if start < other_end and (written or other_written):
                raise _shared(name, other)
        if end > reach.get(written, (0, ""))[0]:
            reach[written] = (end, name)


def check_apart(name: str, buffer: Buffer, others: Iterable[tuple[str, Buffer]]) -> None:
    """Raises EngineError if ``buffer`` shares a byte with one of ``others``."""
    start, end = span(buffer)
    for other, candidate in others:
        other_start, other_end = span(candidate)
        if other != name and start < other_end and other_start < end:
            raise _shared(name, other)


def _shared(name: str, other: str) -> EngineError:
    return EngineError(f"{name!r} and {other!r} share memory that the graph writes; give each its own buffer")
