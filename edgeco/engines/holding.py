"""Holding one row of a history while the others step: its elements grow no older.

Where an element lies is a function of the step alone, the same for all rows (see ``storage``). A row that sits a step
out must therefore move its elements one place on, so that each is found at the same age by the next step.
"""

from __future__ import annotations

from typing import Protocol

from edgeco.engines.protocol import Buffer, Memory
from edgeco.engines.storage import Ring, Shifted, Slots, Storage, nbytes


class Hold(Protocol):
    """How one row of one history is held in a step that writes the history."""

    @property
    def nbytes(self) -> int:
        """Bytes copied by one step of holding."""
        ...

    def rescue(self, step: int) -> None:
        """After the graph ran, before ``Storage.advance``: save what that would overwrite."""
        ...

    def shift(self, step: int) -> None:
        """After ``Storage.advance``, or in a step in which nothing ran: move every element one place on."""
        ...


class SlotsHold:
    """Each element goes one buffer up, the youngest first: over what the graph wrote for nobody."""

    def __init__(self, memory: Memory, row: Slots) -> None:
        buffers, depth = row.buffers, row.history.depth
        self._row = row
        ups = [memory.copier(buffer, buffers[index - 1]) for index, buffer in enumerate(buffers)]
        self._ups = [tuple(ups[turn - age] for age in range(depth)) for turn in range(len(buffers))]
        self.nbytes = depth * nbytes(buffers[0])

    def rescue(self, step: int) -> None:
        """The graph never writes where the past lies."""

    def shift(self, step: int) -> None:
        for up in self._ups[self._row.turn(step) % len(self._ups)]:
            up()


class RingHold:
    """The whole ring turns by one place, through a spare block.

    The newest element of all rows is about to be copied over the oldest, this row's too: its scratch element is made
    that oldest element first, which so comes to no harm.
    """

    def __init__(self, memory: Memory, row: Ring, spare: Buffer) -> None:
        depth, block = row.history.depth, row.buffer
        self._row = row
        self._rescue = memory.picker(row.scratch, block)
        self._copies = [memory.copier(spare, memory.window(block, 0, depth))]
        for start in range(0, row.turns * depth, depth):
            last = memory.window(spare, depth - 1, 1)
            self._copies.append(memory.copier(memory.window(block, start, 1), last))
            if depth > 1:
                rest = memory.window(spare, 0, depth - 1)
                self._copies.append(memory.copier(memory.window(block, start + 1, depth - 1), rest))
        self.nbytes = nbytes(row.scratch) + nbytes(spare) + nbytes(block)

    def rescue(self, step: int) -> None:
        self._rescue(self._row.turn(step) % self._row.history.depth)

    def shift(self, step: int) -> None:
        for copy in self._copies:
            copy()


class ShiftedHold:
    """The block that the next step reads becomes what the last one read, over what was shifted for nobody."""

    def __init__(self, memory: Memory, row: Shifted) -> None:
        self._row = row
        blocks = row.blocks
        self._copies = [memory.copier(blocks[1 - turn], blocks[turn]) for turn in range(2)]
        self.nbytes = nbytes(blocks[0])

    def rescue(self, step: int) -> None:
        """What the last step read is not written to."""

    def shift(self, step: int) -> None:
        self._copies[self._row.turn(step) % 2]()


def spare_for(memory: Memory, storage: Storage) -> Buffer | None:
    """A block that holding needs, one for all rows of a history; None where it needs none."""
    history = storage.history
    if isinstance(storage, (Slots, Shifted)):
        return None
    return memory.allocate((history.depth, history.rows_per_stream, *history.shape), history.dtype)


def hold(memory: Memory, row: Storage, spare: Buffer | None) -> Hold:
    """Prepare the holding of one row, given as the row's share of a storage."""
    if isinstance(row, Slots):
        return SlotsHold(memory, row)
    if isinstance(row, Shifted):
        return ShiftedHold(memory, row)
    assert isinstance(row, Ring)
    assert spare is not None
    return RingHold(memory, row, spare)
