"""Step networks made by hand, with a numpy oracle that knows histories only as lists.

Each history gets its own output that shows what the graph read: every age in order, or, for a ring, what does not
depend on the order. All values are small whole numbers, so that answers must be equal to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from onnx_bytes import TYPES, constant, graph, model, operation, value, weighted

from edgeco.bundle.manifest import Costs, Golden, History, Input, Manifest, Output, Read, Timeline, Variant

GAIN = 3


def history(
    storage: str,
    depth: int = 1,
    *,
    ages: Sequence[int] | None = None,
    spare: int = 0,
    number: int = 0,
    channels: int = 2,
    **fields: Any,
) -> History:
    """A history named after its number, by default read at every age."""
    name = f"h{number:03d}_{storage}"
    reads: tuple[Read, ...] = (Read(name=f"{name}_past"),)
    if storage == "slots":
        reads = tuple(Read(name=f"{name}_age{age}", age=age) for age in ages or range(1, depth + 1))
    return History(
        name=name,
        storage=storage,
        shape=(channels,),
        depth=depth,
        reads=reads,
        write=f"{name}_new",
        buffers={"slots": depth + 1 + spare, "ring": depth, "mirror": 2 * depth, "carry": 2}[storage],
        **{"dtype": "float32", **fields},
    )


@dataclass(frozen=True)
class StepNet:
    """One input ``x`` (features,), one output ``y…`` per history; written is ``GAIN * x + number of the history``.

    A carry writes that plus what it held.
    """

    manifest: Manifest
    model: bytes
    """The graph without its only weight."""

    @property
    def onnx(self) -> bytes:
        return weighted(self.model, constant("gain", np.float32(GAIN)))

    @property
    def features(self) -> int:
        return self.manifest.inputs[0].shape[0]

    def frames(self, steps: int, rows: int = 1, seed: int = 0) -> np.ndarray:
        """(steps, features), or (steps, rows, features) for more than one row."""
        shape = (steps, self.features) if rows == 1 else (steps, rows, self.features)
        return np.random.default_rng(seed).integers(0, 20, shape).astype(np.float32)

    def oracle(self, frames: np.ndarray, rows: int = 1) -> dict[str, np.ndarray]:
        """Answers to frames from reset, by output name, shaped as a stream's."""
        answers: dict[str, list[np.ndarray]] = {output.name: [] for output in self.manifest.outputs}
        for number, (record, output) in enumerate(zip(self.manifest.histories, self.manifest.outputs, strict=True)):
            shape = (rows * record.rows_per_stream, *record.shape)
            border = np.full(shape, record.border, record.dtype)
            past = [border] * record.depth
            for step, frame in enumerate(frames):
                element = GAIN * frame.reshape(rows, -1)[:, : math.prod(shape) // rows].reshape(shape) + number
                if record.storage == "carry":
                    element = element + past[-1].astype(np.float32)
                seen = _seen(record, [value.astype(np.float32) for value in past])
                answers[output.name].append(seen.reshape(output.shape if rows == 1 else (rows, *output.shape)))
                past = [*past[1:], border if step < record.starts_at else element.astype(record.dtype)]
                if step == record.starts_at and record.before == "first":
                    past = [past[-1]] * record.depth
        return {name: np.stack(values) for name, values in answers.items()}


def _seen(record: History, past: list[np.ndarray]) -> np.ndarray:
    if record.storage == "slots":
        return np.stack([past[-read.age] for read in record.reads], axis=1)
    if record.storage == "ring":
        with np.errstate(over="ignore"):
            return np.stack([sum(past), np.max(past, axis=0), sum(value * value for value in past)], axis=1)
    return np.stack(past, axis=1)


def stepnet(*histories: History, valid_from: int = 0, receptive_field: int = 4, name: str = "net") -> StepNet:
    """A network over these histories."""
    features = max(record.rows_per_stream * math.prod(record.shape) for record in histories)
    nodes, outputs, inputs = [], [], [value("x", ("rows", features))]
    constants: list[bytes] = []
    answers = []
    for number, record in enumerate(histories):
        own, shape = _history_nodes(number, record, constants)
        nodes += own
        # Axes of one name must be of one size: ONNX Runtime reuses memory on the strength of it.
        rows = "rows" if record.rows_per_stream == 1 else f"rows_by_{record.rows_per_stream}"
        element = (rows, *record.shape)
        block = (record.depth, *element) if record.storage in ("ring", "mirror") else element
        inputs += [value(read.name, block, record.dtype) for read in record.reads]
        outputs += [value(f"y{number}", ("rows", *shape)), value(record.write, element, record.dtype)]
        answers.append(Output(name=f"y{number}", shape=shape, dtype="float32", valid_from=valid_from, delay=0))
    made = model(graph(nodes, inputs, outputs, constants, name=name), opset=17)
    period = math.lcm(*(record.buffers for record in histories if record.storage == "slots"), 1)
    manifest = Manifest(
        schema_version=1,
        name=name,
        inputs=(Input(name="x", shape=(features,), dtype="float32", kind="array"),),
        outputs=tuple(answers),
        histories=tuple(histories),
        timeline=Timeline(
            clip_length=receptive_field,
            receptive_field=receptive_field,
            delay=0,
            valid_from=valid_from,
            warm_from=receptive_field - 1,
            period=period,
        ),
        variants={"fp32": Variant(graphs=("graphs/fp32.onnx",), weights="weights.safetensors", tolerance=1e-5)},
        golden=Golden(member="golden.safetensors", steps=16),
        costs=Costs(parameters=1, clip_macs=400, step_macs=100, state_bytes=1),
        members={},
    )
    return StepNet(manifest, made)


def mixed(**fields: Any) -> StepNet:
    """All four storages, with a period of 12, late starts and borders."""
    return stepnet(
        history("slots", 2, border=-1.0, starts_at=2),
        history("slots", 3, ages=(1, 3), number=1),
        history("ring", 3, number=2, border=-8.0, starts_at=3),
        history("mirror", 5, number=3, starts_at=1, dtype="float16"),
        history("carry", number=4),
        **fields,
    )


def members(net: StepNet) -> dict[str, bytes]:
    """What goes into a bundle: the graph without its weight, the weight, golden frames and answers."""
    frames = net.frames(net.manifest.golden.steps)
    answers = net.oracle(frames)
    golden = {"frame.x": frames, **{f"answer.{name}": values for name, values in answers.items()}}
    return {
        "graphs/fp32.onnx": net.model,
        "weights.safetensors": safetensors.numpy.save({"gain": np.array(GAIN, np.float32)}),
        "golden.safetensors": safetensors.numpy.save(golden),
    }


def write_stepnet(path: Path, net: StepNet, **changes: bytes) -> Path:
    """Write a real bundle; ``changes`` replaces members by the name before the dot."""
    from edgeco.bundle import write_bundle

    contents = {name: changes.get(Path(name).stem, data) for name, data in members(net).items()}
    write_bundle(path, net.manifest, contents)
    return path


def _history_nodes(number: int, record: History, constants: list[bytes]) -> tuple[list[bytes], tuple[int, ...]]:
    """Nodes that write one history and show what was read of it, and the shape of the latter for one row."""
    own, size = f"n{number}_", math.prod(record.shape)
    taken = record.rows_per_stream * size
    depth = {"slots": len(record.reads), "ring": 3}.get(record.storage, record.depth)
    shape = (record.rows_per_stream, depth, *record.shape)
    for name, held in (
        ("zero", [0]),
        ("end", [taken]),
        ("axis", [1]),
        ("element", [-1, *record.shape]),
        ("shown", [-1, *shape]),
        ("first", [0]),
    ):
        constants.append(constant(own + name, np.array(held, np.int64)))
    constants.append(constant(own + "number", np.float32(number)))
    node = operation
    nodes = [
        node("Slice", ["x", own + "zero", own + "end", own + "axis"], [own + "taken"]),
        node("Reshape", [own + "taken", own + "element"], [own + "framed"]),
        node("Mul", [own + "framed", "gain"], [own + "scaled"]),
        node("Add", [own + "scaled", own + "number"], [own + "value"]),
    ]
    for read in record.reads:
        nodes.append(node("Cast", [read.name], [read.name + "_f"], to=TYPES["float32"]))
    reads = [read.name + "_f" for read in record.reads]
    written = own + "value"
    if record.storage == "carry":
        nodes.append(node("Add", [written, reads[0]], [own + "sum"]))
        written = own + "sum"
    nodes.append(node("Cast", [written], [record.write], to=TYPES[record.dtype]))
    if record.storage == "ring":
        nodes += [
            node("ReduceSum", [reads[0], own + "first"], [own + "a"], keepdims=0),
            node("ReduceMax", [reads[0]], [own + "b"], axes=[0], keepdims=0),
            node("ReduceSumSquare", [reads[0]], [own + "c"], axes=[0], keepdims=0),
        ]
        reads = [own + "a", own + "b", own + "c"]
    if record.storage == "mirror":
        nodes.append(node("Transpose", reads, [own + "seen"], perm=[1, 0, *range(2, 2 + len(record.shape))]))
    else:
        nodes.append(node("Concat", reads, [own + "seen"], axis=1))
    nodes.append(node("Reshape", [own + "seen", own + "shown"], [f"y{number}"]))
    return nodes, shape
