"""Rows that join, leave, pause and move at random, each against a stream of its own that saw only its frames."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeco.runtime.model import Model
from edgeco.runtime.result import Result
from edgeco.runtime.stream import Stream
from edgeco.runtime.streams import Streams

Frame = Callable[[np.random.Generator], Any]


class Driver:
    """Drives ``Streams`` of a model, with NaN and huge numbers wherever no row has a past.

    Args:
        frame: makes a frame.
        tolerance: greatest difference relative to the greatest magnitude of an answer.
    """

    def __init__(self, model: Model, rows: int, frame: Frame, seed: int, tolerance: float = 1e-5) -> None:
        self.model, self.frame, self.tolerance = model, frame, tolerance
        self.rng = np.random.default_rng(seed)
        self.streams: Streams = model.streams(rows)
        self.own: dict[int, Stream] = {}
        self.known: dict[int, set[str]] = {}
        """By row the answers that have come since it began or moved: between two of them the latest stands."""
        self.counts: Counter[str] = Counter()
        self.shares = [[storage.row(row) for storage in self.streams._open().storages] for row in range(rows)]

    def run(self, ticks: int) -> Counter[str]:
        """Returns how often what was done; each tick may bring one change and always a check of every row."""
        changes = [self.join, self.leave, self.reset, self.move_out, self.move_in]
        for _ in range(ticks):
            if self.rng.random() < 0.35 or not self.own:
                changes[self.rng.choice(len(changes), p=[0.6, 0.1, 0.1, 0.1, 0.1])]()
            self.spoil()
            self.tick()
        return self.counts

    def join(self) -> None:
        if len(self.own) < self.streams.rows:
            row = self.streams.join()
            assert row not in self.own
            self.own[row] = self.model.stream()
            self.counts["joined"] += 1

    def leave(self) -> None:
        if self.own:
            row = self.any_row()
            self.streams.leave(row)
            self.own.pop(row).close()
            self.known.pop(row, None)
            self.counts["left"] += 1

    def reset(self) -> None:
        if self.own:
            row = self.any_row()
            self.streams.reset(row)
            self.own[row].reset()
            self.known.pop(row, None)
            self.counts["reset"] += 1

    def move_out(self) -> None:
        """The row's past equals that of its stream, which goes on from the row's snapshot."""
        if self.own:
            row = self.any_row()
            data = self.streams.snapshot(row)
            other = self.model.stream()
            other.restore(data)
            assert other.snapshot() == data
            assert other.steps == self.own[row].steps == self.streams.steps(row)
            self.own[row] = other
            self.known.pop(row, None)
            self.counts["moved out"] += 1

    def move_in(self) -> None:
        """The row takes over what a stream of another past has come to."""
        if self.own:
            row, other = self.any_row(), self.model.stream()
            for _ in range(self.rng.integers(0, 12)):
                other.step(self.frame(self.rng))
            self.streams.restore(row, other.snapshot())
            self.own[row] = other
            self.known.pop(row, None)
            self.counts["moved in"] += 1

    def any_row(self) -> int:
        return int(self.rng.choice(list(self.own)))

    def spoil(self) -> None:
        session = self.streams._open()
        values = [math.nan, math.inf, 3e38]
        for row in range(session.rows):
            if row in self.own and self.streams.steps(row):
                continue
            for share in self.shares[row]:
                for buffer in getattr(share, "buffers", None) or (share.buffer, share.scratch):
                    worst = self.rng.choice(values) if buffer.dtype.kind == "f" else 127
                    with np.errstate(over="ignore"):
                        session.engine.memory.fill(buffer, worst)
            for buffer in session.inputs.values():
                array = buffer.array if session.rows == 1 else buffer.array[row]
                array[...] = self.rng.choice(values) if array.dtype.kind == "f" else 255

    def tick(self) -> None:
        live = [row for row in self.streams.live if self.streams.steps(row)]
        before = {row: (self.streams.snapshot(row), self.streams.steps(row)) for row in live}
        share = self.rng.choice([0.0, 0.5, 0.9, 1.0], p=[0.05, 0.15, 0.3, 0.5])
        frames = {row: self.frame(self.rng) for row in self.streams.ready if self.rng.random() < share}
        results = self.streams.tick(frames)
        assert results.keys() == frames.keys()
        for row, result in results.items():
            self.check(row, result, self.own[row].step(frames[row]))
            self.counts["answered"] += result.valid
        for row in before.keys() - frames.keys():
            assert (self.streams.snapshot(row), self.streams.steps(row)) == before[row], "a held row has moved"
            self.counts["held"] += 1
        self.counts["stepped"] += len(frames)

    def check(self, row: int, given: Result, expected: Result) -> None:
        for what in ("valid", "warm", "step", "rows", "labels"):
            assert getattr(given, what) == getattr(expected, what), what
        assert given.outputs.keys() == expected.outputs.keys()
        known = self.known.setdefault(row, set())
        for output in self.model.manifest.outputs:
            if expected.step >= output.valid_from and (expected.step - output.valid_from) % output.rate == 0:
                known.add(output.name)
        for name in known:
            found, wanted = given.outputs[name], expected.outputs[name]
            assert found.shape == wanted.shape
            assert np.abs(found - wanted).max() <= self.tolerance * max(float(np.abs(wanted).max()), 1e-6), name
