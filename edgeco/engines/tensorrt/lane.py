"""One session's way through TensorRT: a stream, execution contexts, memory, and a CUDA graph per phase."""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgeco.engines.aliasing import check_aliasing, check_apart
from edgeco.engines.cuda.memory import ALIGNMENT, DeviceBuffer, DeviceMemory
from edgeco.engines.cuda.protocol import Cuda
from edgeco.engines.protocol import NO_GRAPHS, Binding, Buffer, Copies, Tensor, Timing
from edgeco.engines.tensorrt.logger import last_words
from edgeco.engines.tensorrt.plans import Plan
from edgeco.errors import EngineError

MOST_GRAPHS = 256
"""CUDA graphs of one lane; each costs some hundred kilobytes of the GPU's memory. Further bindings are enqueued."""


class LaneBinding:
    """Names and addresses of one phase; None for ``context`` where the phase has nothing to do."""

    __slots__ = ("_inputs", "_moved", "_outputs", "_safe", "addresses", "context", "graphs", "logger", "moved")

    def __init__(self, context: Any, logger: Any, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> None:
        self.context, self.logger = context, logger
        self._inputs, self._outputs = dict(inputs), dict(outputs)
        self.addresses = {name: buffer.address for name, buffer in (*inputs.items(), *outputs.items())}
        self.graphs: dict[tuple[tuple[int, ...], int], tuple[Any, Copies]] = {}
        """By where the inputs lie that move, and by the copies that follow, told by what they are: a CUDA graph."""
        self._moved: dict[str, int] = {}
        self.moved: tuple[int, ...] = ()
        """Where the inputs now lie that have been bound anew."""
        self._safe: set[tuple[str, int]] = set()
        for name, buffer in (*inputs.items(), *outputs.items()):
            _check_address(name, buffer)

    def rebind(self, name: str, buffer: Buffer) -> None:
        """Swap the buffer of an input; one that this phase does not read is passed over."""
        bound = self._inputs.get(name)
        if bound is None:
            return
        if (name, buffer.address) not in self._safe:
            if buffer.shape != bound.shape or buffer.dtype != bound.dtype:
                raise EngineError(f"{name!r} takes {bound.dtype}{bound.shape}, not {buffer.dtype}{buffer.shape}")
            _check_address(name, buffer)
            check_apart(name, buffer, self._outputs.items())
            self._safe.add((name, buffer.address))
        self.addresses[name] = buffer.address
        self._moved[name] = buffer.address
        self.moved = tuple(self._moved.values())


class Lane:
    """The Engine protocol for one session: its work is queued on one stream, in order, and waited for by reads.

    Args:
        cuda: the GPU.
        plans: per phase the plan, None where a phase has nothing to do; equal phases share one.
        inputs, outputs: of all phases together.
        graphs: whether to record CUDA graphs where the CUDA package has them.
    """

    name = "tensorrt"
    threads = 1

    def __init__(
        self, cuda: Cuda, plans: Sequence[Plan | None], inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...],
        graphs: bool = True,
    ) -> None:  # fmt: skip
        self.inputs, self.outputs = inputs, outputs
        self.plain: str | None = NO_GRAPHS if cuda.graphs is None else None if graphs else "they are switched off"
        self._cuda, self._plans = cuda, tuple(plans)
        self._graphs = 0
        self._clock: tuple[Any, Any] | None = None
        self._stack = stack = contextlib.ExitStack()
        self._held: dict[int, Any] = {}
        with cuda:
            self._stream = cuda.stream()
        self.close = weakref.finalize(self, _release, cuda, stack, self._stream)
        with cuda:
            stack.callback(cuda.close_stream, self._stream)
            stack.callback(self._held.clear)
            for plan in dict.fromkeys(id(plan) for plan in plans if plan is not None):
                self._held[plan] = self._context(next(p for p in plans if id(p) == plan))
        self.memory = DeviceMemory(cuda, self._stream, stack)

    def _context(self, plan: Plan | None) -> Any:
        assert plan is not None
        context = plan.engine.create_execution_context()
        if context is None:
            raise EngineError(
                f"TensorRT has no memory for another stream: {last_words(plan.logger)}; close one, or step fewer rows"
            )
        return context

    @property
    def stream(self) -> Any:
        """The stream that all work of this lane is queued on, to measure it by events."""
        return self._stream

    def lane(self, rows: int) -> Lane:
        """Itself."""
        return self

    def bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer], phase: int = 0) -> LaneBinding:
        """Prepare one phase: its graph takes what it needs of the buffers.

        Raises:
            EngineError: an address is not aligned, an output shares memory, or a shape or type does not fit.
        """
        plan = self._plans[phase % len(self._plans)]
        if plan is None:
            return LaneBinding(None, None, {}, {})
        context = self._held[id(plan)]
        taken = {name: inputs[name] for name in plan.tensors if name in inputs}
        given = {name: outputs[name] for name in plan.tensors if name in outputs}
        for name, made in plan.tensors.items():
            buffer = taken.get(name) or given.get(name)
            if buffer is None:
                raise EngineError(f"{name!r} of the graph is not bound")
            if made != (buffer.shape, buffer.dtype.name):
                raise EngineError(
                    f"{name!r} is {made[1]}{made[0]} in the plan, and its buffer {buffer.dtype}{buffer.shape}"
                )
        check_aliasing(taken, given)
        return LaneBinding(context, plan.logger, taken, given)

    def run(self, binding: Binding, copies: Copies = ()) -> None:
        """Queue the phase's work and the copies after it, as one CUDA graph if it can be. Raises EngineError if it
        cannot be queued; the past is then as before."""
        assert isinstance(binding, LaneBinding)
        recorded = binding.graphs.get((binding.moved, id(copies)))
        with self._cuda:
            if recorded is None:
                recorded = self._record(binding, copies)
            if recorded is None:
                self._enqueue(binding)
                for copy in copies:
                    copy()
            else:
                assert self._cuda.graphs is not None
                self._cuda.graphs.launch(recorded[0], self._stream.handle)

    def timed(self, binding: Binding, copies: Copies = ()) -> Timing:
        """``run``, waited for and measured."""
        cuda = self._cuda
        with cuda:
            if self._clock is None:
                self._clock = cuda.event(timing=True), cuda.event(timing=True)
                for event in self._clock:
                    self._stack.callback(cuda.close_event, event)
            first, last = self._clock
            start = time.perf_counter()
            cuda.record(first, self._stream)
            before = time.perf_counter()
            self.run(binding, copies)
            after = time.perf_counter()
            cuda.record(last, self._stream)
            cuda.finish(last)
            end = time.perf_counter()
            return Timing(after - before, end - start, 1e-3 * cuda.milliseconds(first, last))

    def prepare(self, bindings: Sequence[Binding], runs: Iterable[tuple[Binding, Copies]]) -> bool:
        """Enqueue every phase once, as TensorRT wants before anything is recorded, then record each run.

        The histories have then been written over: the caller clears them.
        """
        mine = [binding for binding in bindings if isinstance(binding, LaneBinding) and binding.context is not None]
        with self._cuda:
            for binding in mine:
                self._enqueue(binding)
            self._cuda.synchronize(self._stream)
            for bound, copies in runs:
                assert isinstance(bound, LaneBinding)
                self._record(bound, copies)
        return bool(mine)

    def _enqueue(self, binding: LaneBinding) -> None:
        context = binding.context
        if context is None:
            return
        for name, address in binding.addresses.items():
            if not context.set_tensor_address(name, address):
                raise EngineError(f"TensorRT refuses the address of {name!r}: {last_words(binding.logger)}")
        if not context.execute_async_v3(self._stream.handle):
            raise EngineError(f"TensorRT cannot run the graph: {last_words(binding.logger)}")

    def _record(self, binding: LaneBinding, copies: Copies) -> tuple[Any, Copies] | None:
        """A CUDA graph of the phase at its present addresses, and of the copies; None where there is none to have.

        Recording runs nothing, so that no state changes; where it does not work, nothing is recorded from then on.
        """
        graphs, handle = self._cuda.graphs, self._stream.handle
        if binding.context is None or graphs is None or self.plain is not None or self._graphs >= MOST_GRAPHS:
            return None
        try:
            graphs.begin(handle)
            try:
                self._enqueue(binding)
                for copy in copies:
                    copy()
            except EngineError:
                graphs.abort(handle)
                raise
            recorded = graphs.end(handle)
        except EngineError as error:
            self.plain = str(error)
            return None
        self._stack.callback(graphs.destroy, recorded)
        self._graphs += 1
        made = binding.graphs[binding.moved, id(copies)] = recorded, copies
        return made


def _release(cuda: Cuda, stack: contextlib.ExitStack, stream: Any) -> None:
    """Graphs, pages, buffers, contexts, stream: in the reverse of the order in which they came, whatever fails; but
    first what is still going on with them comes to its end."""
    with contextlib.suppress(EngineError), cuda:
        cuda.synchronize(stream)
    with contextlib.suppress(EngineError), cuda:
        stack.close()


def _check_address(name: str, buffer: Buffer) -> None:
    if not isinstance(buffer, DeviceBuffer):
        raise EngineError(f"the buffer of {name!r} does not lie in the GPU's memory")
    if buffer.address % ALIGNMENT:
        raise EngineError(f"the buffer of {name!r} lies at {buffer.address:#x}, no multiple of {ALIGNMENT} bytes")
