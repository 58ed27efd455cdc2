"""Networks that stride in time: several compiled graphs that take turns over the same states, as one engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgeco.engines.protocol import Binding, Buffer, Copies, Engine, Memory, Tensor
from edgeco.errors import EngineError


class Phased:
    """The graphs of a network by phase; ``inputs`` and ``outputs`` are those of all of them together.

    Args:
        engines: per phase the compiled graph, None where a step has nothing to do; equal phases share one.
    """

    def __init__(self, engines: Sequence[Engine | None]) -> None:
        self.engines = tuple(engines)
        working = [engine for engine in self.engines if engine is not None]
        if not working:
            raise EngineError("a network needs at least one step that has something to do")
        self.name = working[0].name
        self.memory: Memory = working[0].memory
        self.threads = working[0].threads
        self.inputs = _union([engine.inputs for engine in working])
        self.outputs = _union([engine.outputs for engine in working])

    def bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer], phase: int = 0) -> PhaseBinding:
        """Prepare one phase: its graph takes what it needs of the buffers. Raises EngineError as the engine's own."""
        engine = self.engines[phase % len(self.engines)]
        if engine is None:
            return PhaseBinding(None, None, frozenset())
        taken = {tensor.name: inputs[tensor.name] for tensor in engine.inputs if tensor.name in inputs}
        given = {tensor.name: outputs[tensor.name] for tensor in engine.outputs if tensor.name in outputs}
        return PhaseBinding(engine, engine.bind(taken, given), frozenset(taken))

    def run(self, binding: Binding, copies: Copies = ()) -> None:
        """Run the phase's graph once, if it has one, and do the copies."""
        assert isinstance(binding, PhaseBinding)
        if binding.engine is not None and binding.inner is not None:
            binding.engine.run(binding.inner)
        for copy in copies:
            copy()

    def lane(self, rows: int) -> Phased:
        """Itself: its engines compute on the processor, and keep nothing between calls."""
        return self

    def prepare(self, bindings: Sequence[Binding], runs: Iterable[tuple[Binding, Copies]]) -> bool:
        """Nothing."""
        return False

    def close(self) -> None:
        """Nothing."""


@dataclass(frozen=True)
class PhaseBinding:
    """What a phase binds, and the graph that runs it."""

    engine: Engine | None
    inner: Binding | None
    names: frozenset[str]

    def rebind(self, name: str, buffer: Buffer) -> None:
        """Swap the buffer of an input; one that this phase does not read is passed over."""
        if self.inner is not None and name in self.names:
            self.inner.rebind(name, buffer)


def _union(sides: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple({tensor.name: tensor for side in sides for tensor in side}.values())
