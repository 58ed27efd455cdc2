"""All histories of a step network for some rows, and one prebuilt binding per phase."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from edgeco.bundle.manifest import Manifest
from edgeco.engines.checks import check_graph, typed_histories
from edgeco.engines.protocol import Binding, Buffer, Copies, Engine
from edgeco.engines.storage import Storage, open_storage, start_up
from edgeco.errors import EngineError

MOST_BINDINGS = 48
"""Bindings worth preparing for mirrors; a binding costs some kilobytes, and not to have it a microsecond per step."""

MOST_ROUNDS = 128
"""Steps after which everything comes round again, copies too, up to which these are part of the engine's runs: there
is a run of its own for each, which on a GPU is a recording of some hundred kilobytes."""


FLOATS = {"float16", "float32"}
"""An engine may keep in FP16 what another of the same variant keeps in FP32."""


class Session:
    """The state of ``rows`` streams that step together, over one engine.

    ``inputs`` and ``outputs`` are the buffers of frames and answers: (rows, *shape) each, without the row axis where
    there is one row. Write the inputs, ``run()``, read the outputs. Confined to one thread at a time.

    Args:
        engine: the compiled step graph; may be shared with other sessions.
        manifest: describes that graph; a bundle's is checked in itself on opening.
        rows: streams stepped by each run.

    Raises:
        BundleError: the graph is not the one that the manifest describes.
        EngineError: buffers do not fit the graph or the memory.
    """

    def __init__(self, engine: Engine, manifest: Manifest, rows: int = 1) -> None:
        if rows < 1:
            raise EngineError(f"a session needs at least one row, not {rows}")
        self.engine = engine.lane(rows)
        try:
            self._open(manifest, rows)
        except BaseException:
            self.engine.close()
            raise

    def _open(self, manifest: Manifest, rows: int) -> None:
        histories = typed_histories(self.engine, manifest)
        check_graph(self.engine, manifest, histories)
        self.rows = rows
        self.steps = 0
        memory = self.engine.memory
        frames = {entry.name: memory.allocate((rows, *entry.shape), entry.dtype) for entry in manifest.inputs}
        answers = {entry.name: memory.allocate((rows, *entry.shape), entry.dtype) for entry in manifest.outputs}
        self.storages: tuple[Storage, ...] = tuple(open_storage(memory, h, rows) for h in histories)
        self.inputs = {name: self._bare(buffer) for name, buffer in frames.items()}
        self.outputs = {name: self._bare(buffer) for name, buffer in answers.items()}
        for buffer in (*self.inputs.values(), *self.outputs.values()):
            memory.stage(buffer)
        phases = math.lcm(manifest.timeline.stride, *(storage.period for storage in self.storages))
        self._moving: list[tuple[Storage, str, tuple[Buffer, ...]]] = []
        for storage in self.storages:
            if storage.moving is None:
                continue
            # A mirror that comes round soon gets bindings of its own; to rebind is for those that do not.
            with_it = math.lcm(phases, len(storage.moving[1]) * storage.history.rate)
            if with_it <= MOST_BINDINGS:
                phases = with_it
            else:
                self._moving.append((storage, *storage.moving))
        self._bindings = [self._bind(phase, frames, answers) for phase in range(phases)]
        self._copying = [storage for storage in self.storages if storage.round]
        self._plan_rounds()
        self._late = [s for s in self.storages if s.history.starts_at > 0 or s.history.before == "first"]
        self._started = max((s.history.starts_at + (s.history.before == "first") for s in self._late), default=0)
        if self.engine.prepare(self._bindings, self._runs()):
            self.reset()
            for buffer in answers.values():  # what the first steps of a stride do not write
                memory.fill(buffer, 0.0)

    @property
    def nbytes(self) -> int:
        """Bytes of all histories, spare buffers included."""
        return sum(storage.nbytes for storage in self.storages)

    def binding(self) -> Binding:
        """What the next run reads and writes, for running the engine alone."""
        step = self.steps
        binding = self._bindings[step % len(self._bindings)]
        for storage, name, windows in self._moving:
            binding.rebind(name, windows[storage.turn(step) % len(windows)])
        return binding

    def run(self) -> None:
        """One step: from the input buffers and the past to the output buffers.

        Raises:
            EngineError: the engine failed; the past is as before, and the step may be tried again.
        """
        self.engine.run(*self.due())
        self.advance()

    def due(self) -> tuple[Binding, Copies]:
        """What the engine is given in this step, to be followed by ``advance``."""
        step = self.steps
        if step < self._started:  # what the graph writes may have to give way to a border before it is copied
            return self.binding(), ()
        return self.binding(), self._rounds[step % len(self._rounds)]

    def advance(self) -> None:
        """Make what the engine wrote the newest element of every history: the second half of ``run``."""
        step, left = self.steps, self._apart
        if step < self._started:
            left = self._copying
            for storage in self._late:
                start_up(storage, step, step)
        for storage in left:
            if storage.writes(step):
                storage.advance(step)
        self.steps = step + 1

    def reset(self) -> None:
        """Back to before the first step: every history holds its border."""
        for storage in self.storages:
            storage.clear()
        self.steps = 0

    def close(self) -> None:
        """Give the lane's memory back; the session cannot be used any more. May be called again."""
        self.engine.close()

    def past(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of all histories by name: (depth, rows * rows_per_stream, *shape), oldest element first."""
        return {storage.history.name: storage.past(self.steps) for storage in self.storages}

    def load(self, past: Mapping[str, np.ndarray[Any, Any]], steps: int) -> None:
        """Take over what ``past`` gave after ``steps`` steps.

        Raises:
            EngineError: an array is missing or does not fit; nothing has been changed.
        """
        check_past(self.storages, past, self.rows)
        load_past(self.storages, past, steps)
        self.steps = steps

    def _plan_rounds(self) -> None:
        """Decide which copies are part of the engine's runs, and list them step by step until all come round."""
        length, within, self._apart = len(self._bindings), list[Storage](), list[Storage]()
        for storage in self._copying:
            with_it = math.lcm(length, storage.round)
            length = with_it if with_it <= MOST_ROUNDS else length
            (within if with_it <= MOST_ROUNDS else self._apart).append(storage)
        self._rounds = [
            tuple(copy for storage in within if storage.writes(step) for copy in storage.copies(step))
            for step in range(length)
        ]

    def _runs(self) -> Iterator[tuple[Binding, Copies]]:
        """What the engine will be given over and over, bound as it will then be."""
        if self._started and self._copying:
            for binding in self._bindings:
                yield binding, ()
        for step, copies in enumerate(self._rounds):
            self.steps = step
            yield self.binding(), copies
        self.steps = 0

    def _bare(self, buffer: Buffer) -> Buffer:
        return self.engine.memory.element(buffer, 0) if self.rows == 1 else buffer

    def _bind(self, phase: int, frames: Mapping[str, Buffer], answers: Mapping[str, Buffer]) -> Binding:
        inputs, outputs = dict(frames), dict(answers)
        for storage in self.storages:
            inputs.update(storage.inputs(phase))
            outputs.update(storage.outputs(phase))
        return self.engine.bind(inputs, outputs, phase)


def check_past(storages: Iterable[Storage], past: Mapping[str, np.ndarray[Any, Any]], rows: int) -> None:
    """Raises EngineError unless ``past`` has every history of so many rows; floats may be of either width."""
    for storage in storages:
        history = storage.history
        shape = (history.depth, rows * history.rows_per_stream, *history.shape)
        array = past.get(history.name)
        wanted = np.dtype(history.dtype)
        fits = array is not None and (array.dtype == wanted or {array.dtype.name, wanted.name} == FLOATS)
        if array is None or array.shape != shape or not fits:
            given = "nothing" if array is None else f"{array.dtype}{array.shape}"
            raise EngineError(f"the past of {history.name!r} is {history.dtype}{shape}; given was {given}")


def load_past(storages: Iterable[Storage], past: Mapping[str, np.ndarray[Any, Any]], steps: int) -> None:
    """Take over a past that was checked, in the types in which it is kept here."""
    for storage in storages:
        array, wanted = past[storage.history.name], np.dtype(storage.history.dtype)
        if array.dtype != wanted:
            limits = np.finfo(wanted)  # the lowest number, which stands for minus infinity, stays finite
            array = np.clip(array, limits.min, limits.max).astype(wanted)
        storage.load(array, steps)
