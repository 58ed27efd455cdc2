"""A session whose rows begin, pause and end each by itself, over one run of the engine for all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeco.bundle.manifest import Manifest
from edgeco.engines.holding import Hold, hold, spare_for
from edgeco.engines.protocol import Buffer, Engine
from edgeco.engines.session import Session, check_past, load_past
from edgeco.engines.storage import Storage, nbytes, start_up


@dataclass(frozen=True)
class _Row:
    """One row's share of every history, in the session's order, and how it is held."""

    shares: tuple[Storage, ...]
    holds: tuple[Hold, ...]


class RowSession(Session):
    """As ``Session``; besides, each row has a past of its own, with a count of steps that the caller keeps.

    A row may step in any step of the session that is congruent to its own modulo the network's stride. In every other
    step it must be held, or begin anew later (``clear_row``): the graph computes all rows, whatever they hold, and
    writes their histories.
    """

    def __init__(self, engine: Engine, manifest: Manifest, rows: int) -> None:
        super().__init__(engine, manifest, rows)
        self._spares = tuple(spare_for(self.engine.memory, storage) for storage in self.storages)
        self._shared: dict[int, _Row] = {}

    @property
    def nbytes(self) -> int:
        return super().nbytes + sum(nbytes(spare) for spare in self._spares if spare is not None)

    def open_row(self, row: int) -> tuple[dict[str, Buffer], dict[str, Buffer]]:
        """Prepare all that a row will ever need; its own buffers of frames and of answers."""
        memory = self.engine.memory
        if row not in self._shared:
            shares = tuple(storage.row(row) for storage in self.storages)
            holds = (hold(memory, share, spare) for share, spare in zip(shares, self._spares, strict=True))
            self._shared[row] = _Row(shares, tuple(holds))
        if self.rows == 1:
            return self.inputs, self.outputs
        inputs = {name: memory.element(buffer, row) for name, buffer in self.inputs.items()}
        outputs = {name: memory.element(buffer, row) for name, buffer in self.outputs.items()}
        for buffer in (*inputs.values(), *outputs.values()):
            memory.stage(buffer)
        return inputs, outputs

    def clear_row(self, row: int) -> None:
        """Fill a row's past with the border."""
        for share in self._shared[row].shares:
            share.clear()

    def row_past(self, row: int) -> dict[str, np.ndarray[Any, Any]]:
        """As ``past``, of one row."""
        return {share.history.name: share.past(self.steps) for share in self._shared[row].shares}

    def check_row(self, row: int, past: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Raises EngineError unless ``past`` is that of one row of this network."""
        check_past(self._shared[row].shares, past, 1)

    def load_row(self, row: int, past: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Take over what ``row_past``, or ``past`` of a session of one row, gave and ``check_row`` found to fit."""
        load_past(self._shared[row].shares, past, self.steps)

    def run_rows(self, stepping: Mapping[int, int], held: Collection[int]) -> int:
        """One step of some rows, while others are held; of all the rest nothing is promised.

        Args:
            stepping: the rows' own steps so far, by row.
            held: rows whose past stays as it is.

        Returns:
            Bytes copied for the sake of the held rows.

        Raises:
            EngineError: the engine failed; the past of every row is as before, and the step may be tried again.
        """
        step = self.steps
        if not held and all(own >= self._started for own in stepping.values()):
            self.engine.run(self.binding(), self._rounds[step % len(self._rounds)])
            for storage in self._apart:
                if storage.writes(step):
                    storage.advance(step)
            return self.skip(())
        self.engine.run(self.binding())
        for row, own in stepping.items():
            if own < self._started:
                for share in self._shared[row].shares:
                    start_up(share, own, step)
        for each in self._holds(held):
            each.rescue(step)
        for storage in self._copying:
            if storage.writes(step):
                storage.advance(step)
        return self.skip(held)

    def skip(self, held: Collection[int]) -> int:
        """Let a step pass in which nothing runs; returns the bytes copied for the sake of the held rows."""
        step, copied = self.steps, 0
        for each in self._holds(held):
            each.shift(step)
            copied += each.nbytes
        self.steps = step + 1
        return copied

    def _holds(self, held: Collection[int]) -> list[Hold]:
        """How to hold these rows in every history that the step writes."""
        if not held:
            return []
        due = [index for index, storage in enumerate(self.storages) if storage.writes(self.steps)]
        return [self._shared[row].holds[index] for row in held for index in due]
