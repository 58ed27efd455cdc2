"""A small step network, whole: y = w * frame + what that was one and two steps before."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from onnx_bytes import graph, model, node, value
from safetensors.numpy import save

from edgeco.bundle import write_bundle
from edgeco.bundle.manifest import Costs, Golden, History, Input, Manifest, Output, Read, Timeline, Variant
from edgeco.bundle.ranges import Ranges, TensorRange, model_hash

STEPS = 6
WIDTH = 3
WEIGHT = np.array([1.0, -2.0, 0.5], np.float32)


def toy_manifest(**changes: Any) -> Manifest:
    history = History(
        name="h000",
        storage="slots",
        shape=(WIDTH,),
        dtype="float32",
        depth=2,
        reads=(Read(name="h000_1", age=1), Read(name="h000_2", age=2)),
        write="h000_new",
        buffers=3,
    )
    manifest = Manifest(
        schema_version=1,
        name="toy",
        inputs=(Input(name="frame", shape=(WIDTH,), dtype="float32", kind="array"),),
        outputs=(Output(name="score", shape=(WIDTH,), dtype="float32", valid_from=2, delay=2),),
        histories=(history,),
        timeline=Timeline(clip_length=3, receptive_field=3, delay=2, valid_from=2, warm_from=2, period=3),
        variants={"fp32": Variant(graphs=("graphs/fp32.onnx",), weights="weights/fp32.safetensors", tolerance=1e-5)},
        golden=Golden(member="golden.safetensors", steps=STEPS),
        costs=Costs(parameters=3, clip_macs=9, step_macs=3, state_bytes=36),
        members={},
        labels=("left", "right", "none"),
        provenance={"edgeco": "0.1.0"},
    )
    return msgspec.structs.replace(manifest, **changes)


def toy_graph(answers: tuple[str, ...] = ("score", "h000_new")) -> bytes:
    """The graph without its weight ``w``."""
    shape = ("rows", WIDTH)
    scaled = node("Mul", ["frame", "w"], ["h000_new"])
    summed = node("Sum", ["h000_new", "h000_1", "h000_2"], ["score"])
    taken = [value(name, shape) for name in ("frame", "h000_1", "h000_2")]
    return model(graph([scaled, summed], taken, [value(name, shape) for name in answers]))


def toy_members() -> dict[str, bytes]:
    frames = np.random.default_rng(0).normal(size=(STEPS, WIDTH)).astype(np.float32)
    scaled = np.concatenate([np.zeros((2, WIDTH), np.float32), frames * WEIGHT])
    answers = (scaled[2:] + scaled[1:-1] + scaled[:-2]).astype(np.float32)
    return {
        "graphs/fp32.onnx": toy_graph(),
        "weights/fp32.safetensors": save({"w": WEIGHT, "unused": np.zeros(2, np.int8)}),
        "golden.safetensors": save({"frame.frame": frames, "answer.score": answers}),
        "report.json": json.dumps({"drift": 0.0}).encode(),
    }


def toy_ranges(manifest: Manifest, members: dict[str, bytes]) -> bytes:
    """What a calibration of the toy might have found."""
    weights = {"w": WEIGHT, "unused": np.zeros(2, np.int8)}
    model = model_hash(Exact((members["graphs/fp32.onnx"],), (0,), weights))
    found = TensorRange(low=-2.0, high=3.0, amax=2.5, method="mse", count=9, limit=4.0, histogram=(4, 3, 1, 1))
    histories = {"h000": msgspec.structs.replace(found, border=0.0)}
    tensors = {"frame": found} | dict.fromkeys(("h000_new", "h000_1", "h000_2"), histories["h000"])
    return Ranges(
        model=model, data="0" * 64, frames=9, streams=1, reset=None, method="mse", tensors=tensors, histories=histories
    ).to_json()


class Exact(NamedTuple):
    """Graphs as a bundle has them."""

    graphs: tuple[bytes, ...]
    schedule: tuple[int | None, ...]
    weights: dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Toy:
    """The toy network as a file and as its parts."""

    path: Path
    manifest: Manifest
    members: dict[str, bytes]

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()


def write_toy(path: Path) -> Toy:
    """The toy bundle, written."""
    manifest, members = toy_manifest(), toy_members()
    write_bundle(path, manifest, members)
    return Toy(path, manifest, members)
