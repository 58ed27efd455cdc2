"""How a history lies in memory, for any kind of memory.

In step ``s`` (counted from reset) the graph reads the last ``depth`` elements written before and, where the step is one
of the history's own, writes one. A history of rate ``r`` and phase ``p`` is written in steps congruent to ``p`` modulo
``r``, so that ``turn(s)`` elements were written before step ``s``. Where each lies is a function of ``s`` alone: a
stream restored at step ``s`` reads the same addresses as one that came there by itself, and computes the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from edgeco.bundle.manifest import History
from edgeco.engines.protocol import Buffer, Memory


class Storage(Protocol):
    """One history of all rows of a session. Every element has the shape (rows * rows_per_stream, *shape)."""

    @property
    def history(self) -> History: ...

    @property
    def period(self) -> int:
        """Steps after which ``inputs`` and ``outputs`` give the same buffers again; ``moving`` apart."""
        ...

    @property
    def moving(self) -> tuple[str, tuple[Buffer, ...]] | None:
        """An input whose buffer changes out of step with the phases: in step ``s`` it is number ``turn(s) % len``."""
        ...

    @property
    def round(self) -> int:
        """Steps after which ``advance`` does the same copies again; 0 where it never does any."""
        ...

    def copies(self, step: int) -> tuple[Callable[[], None], ...]:
        """What ``advance`` does in a step that writes."""
        ...

    def row(self, row: int) -> Storage:
        """One row's share of the same memory: to be cleared, blanked, read and loaded, not to be bound or advanced."""
        ...

    def turn(self, step: int) -> int:
        """Elements written before a step."""
        ...

    def writes(self, step: int) -> bool:
        """Whether a step writes an element; ``blank`` and ``advance`` are for those that do."""
        ...

    def inputs(self, step: int) -> dict[str, Buffer]: ...

    def outputs(self, step: int) -> dict[str, Buffer]:
        """Nothing in a step that does not write."""
        ...

    def clear(self) -> None:
        """Fill the whole past with the border."""
        ...

    def blank(self, step: int) -> None:
        """Replace what the graph wrote in ``step`` by the border; before ``advance``."""
        ...

    def begin(self, step: int) -> None:
        """Make what the graph wrote in ``step`` the whole past; before ``advance``."""
        ...

    def advance(self, step: int) -> None:
        """Move what the graph wrote in ``step`` to where later steps read it."""
        ...

    def past(self, step: int) -> np.ndarray[Any, Any]:
        """The elements that step ``step`` may read, (depth, rows * rows_per_stream, *shape), oldest first."""
        ...

    def load(self, past: np.ndarray[Any, Any], step: int) -> None:
        """The inverse of ``past``."""
        ...

    @property
    def nbytes(self) -> int: ...


class _Turns:
    """When a history is written, and what is copied then."""

    history: History
    round = 0
    _copies: list[tuple[Callable[[], None], ...]]
    """By turn: the copies that keep the newest element."""

    def turn(self, step: int) -> int:
        return -((self.history.phase - step) // self.history.rate)

    def writes(self, step: int) -> bool:
        return step % self.history.rate == self.history.phase

    def copies(self, step: int) -> tuple[Callable[[], None], ...]:
        return self._copies[self.turn(step) % len(self._copies)] if self._copies else ()

    def advance(self, step: int) -> None:
        for copy in self.copies(step):
            copy()


class Slots(_Turns):
    """Equal buffers in rotation, no copy: age ``a`` of step ``s`` lies in buffer ``(turn(s) - a) % buffers``.

    Serves ``slots`` and ``carry``, which is two slots read at age 1.
    """

    moving = None

    def __init__(self, memory: Memory, history: History, buffers: Sequence[Buffer]) -> None:
        self.history = history
        self.period = history.buffers * history.rate
        self.buffers = tuple(buffers)
        self._memory = memory
        self._copies = []  # nothing moves: the next step reads other addresses

    @classmethod
    def allocated(cls, memory: Memory, history: History, rows: int) -> Slots:
        shape = (rows * history.rows_per_stream, *history.shape)
        buffers = [memory.allocate(shape, history.dtype, history.border) for _ in range(history.buffers)]
        return cls(memory, history, buffers)

    def row(self, row: int) -> Slots:
        own = self.history.rows_per_stream
        return Slots(self._memory, self.history, [self._memory.window(b, row * own, own) for b in self.buffers])

    def inputs(self, step: int) -> dict[str, Buffer]:
        turn = self.turn(step)
        return {read.name: self._at(turn - (read.age or 1)) for read in self.history.reads}

    def outputs(self, step: int) -> dict[str, Buffer]:
        return {self.history.write: self._at(self.turn(step))} if self.writes(step) else {}

    def clear(self) -> None:
        for buffer in self.buffers:
            self._memory.fill(buffer, self.history.border)

    def blank(self, step: int) -> None:
        self._memory.fill(self._at(self.turn(step)), self.history.border)

    def begin(self, step: int) -> None:
        first = self._memory.read(self._at(self.turn(step)))
        for buffer in self.buffers:
            self._memory.write(buffer, first)

    def past(self, step: int) -> np.ndarray[Any, Any]:
        turn = self.turn(step)
        return np.stack([self._memory.read(self._at(turn - age)) for age in range(self.history.depth, 0, -1)])

    def load(self, past: np.ndarray[Any, Any], step: int) -> None:
        turn = self.turn(step)
        for age, element in zip(range(self.history.depth, 0, -1), past, strict=True):
            self._memory.write(self._at(turn - age), element)

    @property
    def nbytes(self) -> int:
        return nbytes(*self.buffers)

    def _at(self, turn: int) -> Buffer:
        return self.buffers[turn % len(self.buffers)]


class Ring(_Turns):
    """One buffer of ``depth`` elements in any order, read whole; the newest is copied over the oldest.

    What step ``s`` writes lies at ``turn(s) % depth``. The graph writes to a scratch element: it reads the whole ring.
    """

    turns = 1
    """Times each element is kept."""

    def __init__(self, memory: Memory, history: History, buffer: Buffer, scratch: Buffer) -> None:
        self.history = history
        self.period = history.rate
        self.round = history.depth * history.rate
        self.buffer, self.scratch = buffer, scratch
        self._memory = memory
        self._copies = []

    @classmethod
    def allocated(cls, memory: Memory, history: History, rows: int) -> Ring:
        element = (rows * history.rows_per_stream, *history.shape)
        buffer = memory.allocate((cls.turns * history.depth, *element), history.dtype, history.border)
        made = cls(memory, history, buffer, memory.allocate(element, history.dtype, history.border))
        copies = [memory.copier(memory.element(buffer, index), made.scratch) for index in range(buffer.shape[0])]
        made._copies = [tuple(copies[index :: history.depth]) for index in range(history.depth)]
        return made

    @property
    def moving(self) -> tuple[str, tuple[Buffer, ...]] | None:
        return None

    def row(self, row: int) -> Ring:
        own = self.history.rows_per_stream
        buffer = self._memory.strip(self.buffer, row * own, own)
        return type(self)(self._memory, self.history, buffer, self._memory.window(self.scratch, row * own, own))

    def inputs(self, step: int) -> dict[str, Buffer]:
        return {self.history.reads[0].name: self.buffer}

    def outputs(self, step: int) -> dict[str, Buffer]:
        return {self.history.write: self.scratch} if self.writes(step) else {}

    def clear(self) -> None:
        self._memory.fill(self.buffer, self.history.border)

    def blank(self, step: int) -> None:
        self._memory.fill(self.scratch, self.history.border)

    def begin(self, step: int) -> None:
        first = self._memory.read(self.scratch)
        self._memory.write(self.buffer, np.repeat(first[None], self.buffer.shape[0], axis=0))

    def past(self, step: int) -> np.ndarray[Any, Any]:
        depth = self.history.depth
        whole = self._memory.read(self.buffer)
        turn = self.turn(step)
        return whole[[index % depth for index in range(turn, turn + depth)]]

    def load(self, past: np.ndarray[Any, Any], step: int) -> None:
        depth = self.history.depth
        whole = np.roll(past, self.turn(step) % depth, axis=0)
        self._memory.write(self.buffer, np.concatenate([whole] * self.turns))

    @property
    def nbytes(self) -> int:
        return nbytes(self.buffer, self.scratch)


class Mirror(Ring):
    """Every element kept twice, ``depth`` apart, so that the window of any step is one block, oldest element first."""

    turns = 2

    @cached_property
    def _windows(self) -> tuple[Buffer, ...]:
        depth = self.history.depth
        return tuple(self._memory.window(self.buffer, start, depth) for start in range(depth))

    @property
    def moving(self) -> tuple[str, tuple[Buffer, ...]] | None:
        return self.history.reads[0].name, self._windows

    def inputs(self, step: int) -> dict[str, Buffer]:
        return {self.history.reads[0].name: self._windows[self.turn(step) % self.history.depth]}


class Shifted(_Turns):
    """The window of a mirror where elements are no multiple of the memory's alignment, so that it cannot be bound at
    every one of them: two blocks in turn, each the other moved up by one element, and the newest behind it.

    In step ``s`` the graph reads block ``turn(s) % 2``, oldest element first. Such elements are small, and so is what
    is copied; with whole blocks no output, and no other step's window, shares memory with what is read.
    """

    moving: tuple[str, tuple[Buffer, ...]] | None = None

    def __init__(self, memory: Memory, history: History, blocks: Sequence[Buffer], scratch: Buffer) -> None:
        self.history = history
        self.period = self.round = 2 * history.rate
        self.blocks, self._scratch = tuple(blocks), scratch
        self._memory = memory
        self._copies = []

    @classmethod
    def allocated(cls, memory: Memory, history: History, rows: int) -> Shifted:
        element = (rows * history.rows_per_stream, *history.shape)
        block = (history.depth, *element)
        blocks = [memory.allocate(block, history.dtype, history.border) for _ in range(2)]
        made = cls(memory, history, blocks, memory.allocate(element, history.dtype, history.border))
        made._copies = [made._shift(*pair) for pair in (blocks, blocks[::-1])]
        return made

    def row(self, row: int) -> Shifted:
        own = self.history.rows_per_stream
        blocks = [self._memory.strip(block, row * own, own) for block in self.blocks]
        return Shifted(self._memory, self.history, blocks, self._memory.window(self._scratch, row * own, own))

    def _shift(self, old: Buffer, new: Buffer) -> tuple[Callable[[], None], ...]:
        memory, rest = self._memory, self.history.depth - 1
        newest = memory.copier(memory.element(new, rest), self._scratch)
        if not rest:
            return (newest,)
        return memory.copier(memory.window(new, 0, rest), memory.window(old, 1, rest)), newest

    def inputs(self, step: int) -> dict[str, Buffer]:
        return {self.history.reads[0].name: self.blocks[self.turn(step) % 2]}

    def outputs(self, step: int) -> dict[str, Buffer]:
        return {self.history.write: self._scratch} if self.writes(step) else {}

    def clear(self) -> None:
        for block in self.blocks:
            self._memory.fill(block, self.history.border)

    def blank(self, step: int) -> None:
        self._memory.fill(self._scratch, self.history.border)

    def begin(self, step: int) -> None:
        first = self._memory.read(self._scratch)
        for block in self.blocks:
            self._memory.write(block, np.repeat(first[None], self.history.depth, axis=0))

    def past(self, step: int) -> np.ndarray[Any, Any]:
        return self._memory.read(self.blocks[self.turn(step) % 2])

    def load(self, past: np.ndarray[Any, Any], step: int) -> None:
        self._memory.write(self.blocks[self.turn(step) % 2], np.ascontiguousarray(past))

    @property
    def nbytes(self) -> int:
        return nbytes(*self.blocks, self._scratch)


def start_up(storage: Storage, own: int, step: int) -> None:
    """What the first steps of a stream do to what the graph wrote in ``step``, the stream's own step being ``own``."""
    if not storage.writes(step):
        return
    if own < storage.history.starts_at:
        storage.blank(step)
    elif own == storage.history.starts_at and storage.history.before == "first":
        storage.begin(step)


KINDS: dict[str, type[Slots] | type[Ring]] = {"slots": Slots, "carry": Slots, "ring": Ring, "mirror": Mirror}


def open_storage(memory: Memory, history: History, rows: int) -> Storage:
    """Allocate a history for ``rows`` rows, its past all border. Raises EngineError if there is no room."""
    size = rows * history.rows_per_stream * math.prod(history.shape) * np.dtype(history.dtype).itemsize
    if history.storage == "mirror" and size % memory.alignment:
        return Shifted.allocated(memory, history, rows)
    return KINDS[history.storage].allocated(memory, history, rows)


def nbytes(*buffers: Buffer) -> int:
    """Bytes of some buffers together."""
    return sum(int(np.prod(buffer.shape, dtype=np.int64)) * buffer.dtype.itemsize for buffer in buffers)
