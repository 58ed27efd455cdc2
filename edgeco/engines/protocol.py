"""What every engine promises. An engine compiles a step graph once and runs it over buffers bound beforehand.

Engines know tensors by name and nothing of frames, streams or cameras.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Tensor:
    """An input or output of a compiled graph: ``shape`` has None where the graph leaves a size open."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


class Buffer(Protocol):
    """A block of an engine's memory that keeps its address: the unit that is bound."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def address(self) -> int:
        """Address of the first byte, used to refuse aliasing."""
        ...


class Memory(Protocol):
    """One kind of memory (host, CUDA device): where buffers live and how bytes get in, out and across."""

    @property
    def alignment(self) -> int:
        """What the address of a bound buffer must be a multiple of; 1 where any will do."""
        ...

    @property
    def current(self) -> AbstractContextManager[object]:
        """Enter it around calls that follow one another: what each would prepare for itself is done once."""
        ...

    def allocate(self, shape: Sequence[int], dtype: str, fill: float = 0.0) -> Buffer: ...

    def window(self, buffer: Buffer, start: int, length: int) -> Buffer:
        """View of ``length`` elements from ``start`` along the outermost axis: no copy, one contiguous block."""
        ...

    def element(self, buffer: Buffer, index: int) -> Buffer:
        """View of one element along the outermost axis, without that axis: no copy."""
        ...

    def strip(self, buffer: Buffer, start: int, length: int) -> Buffer:
        """View of ``length`` rows from ``start`` of every element of a block (length, rows, ...): no copy.

        It lies in pieces: it and its windows may be filled, copied, read and written, but not bound.
        """
        ...

    def fill(self, buffer: Buffer, value: float) -> None: ...

    def copier(self, destination: Buffer, source: Buffer) -> Callable[[], None]:
        """A prepared copy between two buffers of one shape and type, without passing through the host.

        Prepared, because it is done in every step: what can be checked or looked up is, once.
        """
        ...

    def picker(self, destination: Buffer, source: Buffer) -> Callable[[int], None]:
        """A prepared copy of the element of ``source`` whose number it is given."""
        ...

    def stage(self, buffer: Buffer) -> None:
        """Prepare for a buffer to be written from the host, or read there, in every step."""
        ...

    def write(self, buffer: Buffer, array: np.ndarray[Any, Any]) -> None: ...

    def accept(self, buffer: Buffer, foreign: object) -> None:
        """Copy from an array of another library that lies in this memory (DLPack, ``__cuda_array_interface__``).

        Raises:
            EngineError: it does not lie there, or its shape or type is another.
        """
        ...

    def read(self, buffer: Buffer) -> np.ndarray[Any, Any]:
        """A fresh host array with the buffer's contents."""
        ...

    def read_all(self, buffers: Sequence[Buffer]) -> list[np.ndarray[Any, Any]]:
        """``read`` of each, waited for once."""
        ...


class Binding(Protocol):
    """Names bound to buffers for one phase. ``rebind`` swaps the buffer of one name (mirrors move each step)."""

    def rebind(self, name: str, buffer: Buffer) -> None: ...


Copies = Sequence[Callable[[], None]]
"""Prepared copies of a memory (``Memory.copier``), done one after another."""


class Engine(Protocol):
    """A compiled step graph: immutable, shareable between streams."""

    @property
    def name(self) -> str: ...

    @property
    def memory(self) -> Memory: ...

    @property
    def threads(self) -> int:
        """Processor threads the engine computes with."""
        ...

    @property
    def inputs(self) -> tuple[Tensor, ...]: ...

    @property
    def outputs(self) -> tuple[Tensor, ...]: ...

    def bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer], phase: int = 0) -> Binding:
        """Prepare one phase; an engine of one graph does the same in all of them.

        Raises:
            EngineError: an output shares bytes with an input or another output.
        """
        ...

    def run(self, binding: Binding, copies: Copies = ()) -> None:
        """Run the graph once over what is bound, and do some copies after it.

        Returns when its memory may read or copy the outputs. Give the same sequence for the same copies: an engine that
        records its work records them with it.

        Raises:
            EngineError: the graph did not run, and nothing was copied.
        """
        ...

    def lane(self, rows: int) -> Engine:
        """What one session runs: an engine for this number of rows, with a queue and a memory of its own.

        An engine that works when called, and keeps nothing between calls, gives itself.

        Raises:
            EngineError: so many rows cannot be run.
        """
        ...

    def prepare(self, bindings: Sequence[Binding], runs: Iterable[tuple[Binding, Copies]]) -> bool:
        """Whatever makes later runs fast.

        Args:
            bindings: all there are.
            runs: what ``run`` will be given over and over, each binding as it will then be bound.

        Returns:
            Whether that ran the graph, and so wrote to buffers that are bound.
        """
        ...

    def close(self) -> None:
        """Give back what a lane holds, its memory included; nothing where it is the engine itself."""
        ...


NO_GRAPHS = "no package here has CUDA graphs"
"""What ``Deferred.plain`` says where installing one helps."""


class Timing(NamedTuple):
    """Seconds of one run: until ``run`` had returned, until all was done, and what the device took by its own clock."""

    queued: float
    done: float
    device: float


@runtime_checkable
class Deferred(Protocol):
    """An engine whose work goes on after ``run`` has returned."""

    @property
    def plain(self) -> str | None:
        """Why every step is queued piece by piece; None where it is recorded and queued at once."""
        ...

    def timed(self, binding: Binding, copies: Copies = ()) -> Timing:
        """``run``, waited for and measured."""
        ...
