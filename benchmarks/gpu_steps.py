"""What edgeco's own steps cost on a GPU: whole, bare, without CUDA graphs, and stacked states instead of slots."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgeco.engines.cuda import open_cuda
from edgeco.engines.protocol import Buffer
from edgeco.engines.session import Session
from edgeco.engines.tensorrt.engine import TensorRtEngine
from edgeco.engines.tensorrt.graph_io import read_io
from edgeco.runtime.model import Model
from edgeco.runtime.timing import now
from edgeco.runtime.verify import relative_difference, rollout

PAST, SHIFTED = "_stack", "_stack_new"
"""Ends of a stack's names as input and as output of the graphs of ``gpu_stacked``."""

EXACT = 1e-3
"""Greatest relative difference of FP32 from the torch runner: the GPU adds up in another order."""


def microseconds(run: Callable[[], object], times: int = 200, warm_up: int = 50) -> dict[str, float]:
    """Median and percentiles of a call that ends when its work is done."""
    for _ in range(warm_up):
        run()
    return _percentiles([once(run) for _ in range(times)])


def _percentiles(taken: list[float]) -> dict[str, float]:
    ordered, count = sorted(taken), len(taken)
    return {"p50": statistics.median(ordered), "p90": ordered[int(0.9 * count)], "p99": ordered[int(0.99 * count)]}


def once(run: Callable[[], object]) -> float:
    """Microseconds of one call."""
    start = now()
    run()
    return (now() - start) * 1e-3


def engine_of(model: Model) -> TensorRtEngine:
    """The engine of a model that TensorRT runs."""
    assert isinstance(model.engine, TensorRtEngine)
    return model.engine


def check(model: Model) -> dict[str, Any]:
    """A stream over the golden frames against the torch runner's answers."""
    manifest = model.manifest
    frames, answers = model.bundle.golden()
    with model.stream() as stream:
        given = rollout(stream, frames)
    worst = 0.0
    for output in manifest.outputs:
        first = manifest.timeline.first_answer(output)
        off, _ = relative_difference(given[output.name][first:], answers[output.name][first:])
        worst = max(worst, off) if off == off else float("inf")
    tolerance = EXACT if model.variant == "fp32" else manifest.variants[model.variant].tolerance
    return {
        "difference": worst, "tolerance": tolerance, "steps": manifest.golden.steps, "passed": worst <= tolerance
    }  # fmt: skip


def frames_of(model: Model, rows: int) -> dict[str, np.ndarray]:
    """A frame for every input, of each row."""
    frames, _ = model.bundle.golden()
    return {n: a[0] if rows == 1 else np.stack([a[i % len(a)] for i in range(rows)]) for n, a in frames.items()}


@contextmanager
def session_of(model: Model, rows: int) -> Iterator[Session]:
    """A session, closed at the end, whatever happens."""
    session = Session(model.engine, model.manifest, rows)
    try:
        yield session
    finally:
        session.close()


def time_steps(model: Model, rows: int) -> dict[str, Any]:
    """A whole step as a user calls it, and the engine alone with a wait at its end."""
    frames = frames_of(model, rows)
    frame = frames if len(frames) > 1 else next(iter(frames.values()))
    with model.stream(rows) as stream, session_of(model, rows) as session:
        outputs = list(session.outputs.values())

        def alone() -> None:
            session.engine.run(*session.due())
            session.engine.memory.read_all(outputs[:1])
            session.advance()

        found = {"rows": rows, "step": microseconds(lambda: stream.step(frame)), "engine": microseconds(alone)}
        # Why there are no CUDA graphs; the processor's time to hand a step over, and the GPU's own for it.
        return {**found, "plain": session.engine.plain, **_both_sides(session)}


def _both_sides(session: Session, times: int = 200) -> dict[str, dict[str, float]]:
    taken = []
    for _ in range(times):
        taken.append(session.engine.timed(*session.due()))  # type: ignore[attr-defined]
        session.advance()
    return {
        name: _percentiles([1e6 * getattr(timing, part) for timing in taken])
        for name, part in (("queued", "queued"), ("gpu", "device"))
    }


def without_graphs(model: Model) -> Model:
    """The same plans, enqueued in every step."""
    return Model(model.bundle, engine_of(model).twin(cuda_graphs=False), model.variant, "without CUDA graphs")


def runner_time(model: Model, pairs: int = 300) -> float:
    """Microseconds that the runner adds: a user's step less the calls to the driver that it cannot do without.

    Those are a copy of the frame, the phase with the copies of rings and mirrors (one launch, or TensorRT's enqueue and
    the copies), a copy of each answer and one wait, prepared beforehand and called one after another; both take turns.
    """
    cuda = open_cuda()
    frames = frames_of(model, 1)
    frame = frames if len(frames) > 1 else next(iter(frames.values()))
    with model.stream() as stream, session_of(model, 1) as session:
        bare = _bare_step(session, frames, cuda)
        for _ in range(50):
            stream.step(frame)
            bare()
        over = [once(lambda: stream.step(frame)) - once(bare) for _ in range(pairs)]
    return statistics.median(over)


def _bare_step(session: Session, frames: dict[str, np.ndarray], cuda: Any) -> Callable[[], None]:
    lane: Any = session.engine
    queue, graphs = lane.stream, cuda.graphs
    ups = [(buffer, _page(lane, buffer)) for buffer in session.inputs.values()]
    downs = [(buffer, _page(lane, buffer)) for buffer in session.outputs.values()]
    for (_, page), frame in zip(ups, frames.values(), strict=True):
        np.copyto(page.array, frame)
    rounds, apart = len(session._rounds), session._apart
    start = -(-session._started // rounds) * rounds  # a round in which nothing starts up any more
    due = []
    for session.steps in range(start, start + rounds):
        binding, copies = session.due()
        due.append((binding, copies, binding.graphs.get((binding.moved, id(copies)))))  # type: ignore[attr-defined]
    step = [start]

    def bare() -> None:
        number = step[0]
        step[0] = number + 1
        binding, copies, recorded = due[number % rounds]
        with cuda:
            for buffer, page in ups:
                cuda.upload(buffer.address, page, queue)
            if recorded is None:
                lane.run(binding, copies)
            else:
                graphs.launch(recorded[0], queue.handle)
            for storage in apart:
                if storage.writes(number):
                    storage.advance(number)
            for buffer, page in downs:
                cuda.download(page, buffer.address, queue)
            cuda.synchronize(queue)

    return bare


def _page(lane: Any, buffer: Buffer) -> Any:
    return lane.memory._pages[buffer.address, buffer.shape].pages[0]


def layers_of(model: Model) -> int:
    """Fused layers of a step, as the engine's inspector counts them; the greatest of the phases."""
    engine, counts = engine_of(model), []
    for plan in engine.compile(1):
        text = Path(engine.plan_path(plan.sidecar.key)).with_suffix("").with_suffix(".layers.json").read_text()
        counts.append(len(json.loads(text or '{"Layers": []}').get("Layers", [])))
    return max(counts)


def time_stacked(model: Model, graph: bytes) -> dict[str, float]:
    """The engine alone, as ``time_steps`` measures it, over whole stacks that are swapped after every step."""
    engine = engine_of(model)
    io = read_io(graph)
    halved = frozenset(
        history.name + end
        for history in model.manifest.histories
        if history.write in engine.half
        for end in (PAST, SHIFTED)
    )
    twin = engine.twin([graph], halved)
    lane = twin.lane(1)
    try:
        kinds = {tensor.name: tensor for tensor in (*twin.inputs, *twin.outputs)}

        def allocate(name: str) -> Buffer:
            tensor = next(t for t in (*io.inputs, *io.outputs) if t.name == name)
            return lane.memory.allocate(tensor.sized(1), kinds[name].dtype)

        pairs = [(h.name + PAST, h.name + SHIFTED) for h in model.manifest.histories]
        stacks = [(allocate(past), allocate(past)) for past, _ in pairs]
        moving = {name for pair in pairs for name in pair}
        inputs = {t.name: allocate(t.name) for t in io.inputs if t.name not in moving}
        outputs = {t.name: allocate(t.name) for t in io.outputs if t.name not in moving}
        bindings = []
        for here, there in ((0, 1), (1, 0)):
            taken = {past: stack[here] for (past, _), stack in zip(pairs, stacks, strict=True)}
            given = {new: stack[there] for (_, new), stack in zip(pairs, stacks, strict=True)}
            bindings.append(lane.bind({**inputs, **taken}, {**outputs, **given}))
        lane.prepare(bindings, [(binding, ()) for binding in bindings])
        read, turn = list(outputs.values())[:1], [0]
        for buffer in read:
            lane.memory.stage(buffer)

        def alone() -> None:
            lane.run(bindings[turn[0]])
            turn[0] = 1 - turn[0]
            lane.memory.read_all(read)

        return microseconds(alone)
    finally:
        lane.close()
