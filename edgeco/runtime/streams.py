"""Several streams that share every run of the engine, each with a beginning, pauses and an end of its own."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeco.engines.protocol import Buffer
from edgeco.engines.rows import RowSession
from edgeco.engines.session import Session
from edgeco.errors import BundleError, EdgecoError, FrameError, SpecError
from edgeco.runtime.frame import Frame
from edgeco.runtime.intake import Array, Intake
from edgeco.runtime.result import Result
from edgeco.runtime.snapshot import Identity, read_snapshot, write_snapshot
from edgeco.runtime.timing import now
from edgeco.runtime.validity import Validity

if TYPE_CHECKING:
    from edgeco.runtime.model import Model


@dataclass
class _Row:
    """A live row. Before its first step (``steps`` 0) it has no past, and its memory may hold anything."""

    intake: Intake
    outputs: tuple[tuple[str, Buffer], ...]
    steps: int = 0
    latest: dict[str, Array] = field(default_factory=dict)
    """Its last answers, where some come only now and then and the buffers may since have served nobody."""


class Streams:
    """Up to ``rows`` streams, stepped by one run of the engine for all of them. Made by ``Model.streams``.

    ``join`` begins a stream and returns its row, ``leave`` ends it; ``tick`` takes a frame for each live row. One
    without a frame in a tick is *held*: its past is afterwards what it was before, at the price of copying that past
    once (counted in ``held`` and ``copied``). Rows never influence each other.

    A network that strides in time does other work in each of ``stride`` ticks, and all rows share it. So a row takes a
    frame only in the ticks that stand where it stands: a new one begins at the next whole round, and one that was held
    waits until its turn comes round again. ``ready`` names the rows that take a frame in the next tick, ``waits``
    counts the ticks until a row does. Where that must not be, give a row its last frame once more rather than none, or
    step it in a ``Stream`` of its own. At stride 1 every live row is always ready.

    Belongs to one thread at a time, as a ``Stream`` does.

    Attributes:
        rows: how many streams there is room for.
        stride: ticks of one round, 1 where every step does the same.
        held: times that a row was held, so far.
        copied: bytes copied for it.

    Example::

        with model.streams(8) as streams:
            cameras = {streams.join(): camera for camera in eight_cameras}
            while True:
                for row, result in streams.tick({row: cameras[row].read() for row in streams.ready}).items():
                    ...
    """

    def __init__(self, model: Model, rows: int) -> None:
        if rows < 1:
            raise SpecError(f"streams need room for at least one row, not {rows}")
        manifest = model.manifest
        self.rows = rows
        self.stride = manifest.timeline.stride
        self.held = 0
        self.copied = 0
        self._session: RowSession | None = RowSession(model.engine, manifest, rows)
        self._live: dict[int, _Row] = {}
        self._manifest = manifest
        self._identity = Identity(model.sha256, model.variant, 1)
        self._memory = self._session.engine.memory
        self._validity = Validity(manifest)
        self._lead = manifest.timeline.lead
        self._starter = Session(model.engine, manifest) if self._lead else None
        """A stream apart, in which a row's first frame is stepped until nothing else is remembered."""
        self._always = all(output.rate == 1 for output in manifest.outputs)
        self._preprocessor = functools.cache(model.preprocessor)  # one for all: each picture is written at once

    @property
    def live(self) -> tuple[int, ...]:
        """Rows that have joined, in order."""
        return tuple(sorted(self._live))

    @property
    def ready(self) -> tuple[int, ...]:
        """Live rows that take a frame in the next tick."""
        return tuple(row for row in self.live if self.waits(row) == 0)

    @property
    def state_bytes(self) -> int:
        """Memory that the histories of all rows take, live or not."""
        return self._open().nbytes + (self._starter.nbytes if self._starter is not None else 0)

    def steps(self, row: int) -> int:
        """Steps of a row since it joined or was reset."""
        return max(0, self._row(row).steps - self._lead)

    def waits(self, row: int) -> int:
        """Ticks to pass before the one in which a row takes a frame; 0 if that is the next."""
        return (self._row(row).steps - self._open().steps) % self.stride

    def join(self) -> int:
        """Begin a stream; returns its row, the lowest that is free.

        Raises:
            SpecError: all rows are taken.
        """
        session = self._open()
        row = next((number for number in range(self.rows) if number not in self._live), None)
        if row is None:
            raise SpecError(f"all {self.rows} rows are taken; leave one, or make more with model.streams(n)")
        inputs, outputs = session.open_row(row)
        intake = Intake(self._memory, self._manifest, inputs, 1, self._preprocessor)
        self._live[row] = _Row(intake, tuple(outputs.items()))
        self._align(0)
        return row

    def leave(self, row: int) -> None:
        """End a stream; its row is free for another."""
        self._row(row)
        del self._live[row]
        self._align(0)

    def reset(self, row: int) -> None:
        """Let a row forget everything: its next frame is its step 0 again."""
        self._forget(row)
        self._align(0)

    def snapshot(self, row: int) -> bytes:
        """A row's whole past, for ``restore`` here or on a ``Stream`` of one row."""
        live, session = self._row(row), self._open()
        if live.steps == 0:
            session.clear_row(row)
        return write_snapshot(self._identity, live.steps, session.row_past(row))

    def restore(self, row: int, data: bytes) -> None:
        """Let a live row continue where the row, or the ``Stream`` of one row, that gave ``snapshot`` stood.

        Raises:
            BundleError: damaged, or of another network, variant or number of rows; the row is as before.
        """
        self._row(row)
        session = self._open()
        steps, past = read_snapshot(data, self._identity)
        try:
            session.check_row(row, past)
        except EdgecoError as error:
            raise BundleError(f"the snapshot does not fit this network: {error}") from error
        live = self._forget(row)
        self._align(steps)
        session.load_row(row, past)
        live.steps = steps if steps > self._lead else 0

    def tick(self, frames: Mapping[int, Frame | Array | Mapping[str, Frame | Array]]) -> dict[int, Result]:
        """One step of the rows that have a frame; the other live rows are held.

        A tick without any frame runs nothing. If every live row is ready it is as if it had not been; else it passes as
        any other, so that the waiting rows get their turn.

        Args:
            frames: by row what ``Stream.step`` takes; of live rows that are ready, as many as there are frames for.

        Returns:
            A result for each of these rows, of the row's own step and with its own stamp; ``latency`` is that of the
            whole tick.

        Raises:
            FrameError: a frame does not fit, or is for a row that does not take one now; all rows are as before.
            EngineError: the engine failed; all rows are as before.
        """
        start = now()
        session = self._open()
        with self._memory.current:
            return self._tick(session, frames, start)

    def _tick(
        self, session: RowSession, frames: Mapping[int, Frame | Array | Mapping[str, Frame | Array]], start: int
    ) -> dict[int, Result]:
        stamps = {row: self._take(row, frame) for row, frame in frames.items()}
        held = [row for row, live in self._live.items() if live.steps and row not in frames]
        if not stamps:
            if len(self.ready) < len(self._live):
                self._count(held, session.skip(held))
            return {}
        for row in stamps:
            if self._live[row].steps == 0:
                self._begin(session, row)
        stepping = {row: self._live[row].steps or self._lead for row in stamps}
        self._count(held, session.run_rows(stepping, held))
        for row, own in stepping.items():
            self._live[row].steps = own + 1
        answers = self._answers(stepping)
        latency = (now() - start) * 1e-9
        return {row: self._result(stepping[row], answers[row], stamp, latency) for row, stamp in stamps.items()}

    def close(self) -> None:
        """Give the memory back; may be called again. Any other call from now on raises SpecError."""
        sessions = (self._starter, self._session)
        self._session = self._starter = None
        self._live = {}
        for session in sessions:
            if session is not None:
                session.close()

    def __enter__(self) -> Streams:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> RowSession:
        if self._session is None:
            raise SpecError("these streams are closed; make others with model.streams()")
        return self._session

    def _row(self, row: int) -> _Row:
        self._open()
        live = self._live.get(row)
        if live is None:
            rows = ", ".join(map(str, self.live)) or "none"
            raise SpecError(f"row {row!r} is not live (live rows: {rows}); join() gives one")
        return live

    def _forget(self, row: int) -> _Row:
        live = self._row(row)
        live.steps, live.latest = 0, {}
        return live

    def _align(self, steps: int) -> None:
        """Where no live row has a past, no row need wait for one that stands at ``steps``."""
        session = self._open()
        if not any(live.steps for live in self._live.values()):
            session.steps += (steps - session.steps) % self.stride

    def _take(self, row: int, frame: object) -> float | None:
        """Write a frame to its row's input, which is no state: nothing is lost should another frame not fit."""
        if row not in self._live:
            raise FrameError(f"there is a frame for row {row!r}, which is not live; join() gives rows")
        wait = self.waits(row)
        if wait:
            raise FrameError(
                f"row {row} takes its next frame after {wait} more ticks, for the network does other work in each of "
                f"{self.stride} steps and this row stands at another than the tick; give frames for streams.ready, "
                "and a row's last frame again where it would have to be held"
            )
        try:
            return self._live[row].intake.write(frame)
        except FrameError as error:
            raise FrameError(f"row {row}: {error}") from error

    def _count(self, held: list[int], copied: int) -> None:
        self.held += len(held)
        self.copied += copied

    def _begin(self, session: RowSession, row: int) -> None:
        """Make a row's past that of a stream which is about to take its first frame."""
        starter = self._starter
        if starter is None:
            session.clear_row(row)
            return
        starter.reset()
        memory = starter.engine.memory  # each session's own, and so its own queue
        for name, buffer in session.open_row(row)[0].items():
            memory.write(starter.inputs[name], self._memory.read(buffer))
        for _ in range(self._lead):
            starter.run()
        session.load_row(row, starter.past())
        self._live[row].latest = {name: memory.read(buffer) for name, buffer in starter.outputs.items()}

    def _answers(self, stepping: Mapping[int, int]) -> dict[int, dict[str, Array]]:
        """Copies of the answers of rows' steps, waited for once."""
        if not self._always:
            return {row: self._latest(self._live[row], step) for row, step in stepping.items()}
        buffers = [buffer for row in stepping for _, buffer in self._live[row].outputs]
        made = iter(self._memory.read_all(buffers))
        return {row: {name: next(made) for name, _ in self._live[row].outputs} for row in stepping}

    def _latest(self, live: _Row, step: int) -> dict[str, Array]:
        """Copies of the answers of a row's step, and of its last where none was due."""
        read = self._memory.read
        for output, (name, buffer) in zip(self._manifest.outputs, live.outputs, strict=True):
            if (step - output.valid_from) % output.rate == 0:
                live.latest[name] = read(buffer)
            elif name not in live.latest:
                live.latest[name] = np.zeros(buffer.shape, buffer.dtype)
        return {name: array.copy() for name, array in live.latest.items()}

    def _result(self, step: int, outputs: dict[str, Any], stamp: float | None, latency: float) -> Result:
        valid = self._validity.valid(step)
        full = step >= self._validity.warm_from
        labels, activation = self._manifest.labels, self._manifest.activation
        return Result(outputs, valid, valid and full, stamp, latency, step - self._lead, 1, labels, activation)
