"""A step network that takes pictures, made by hand: the mean colour of this frame and of the one before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from onnx_bytes import TYPES, constant, graph, model, operation, value
from safetensors.numpy import save

from edgeco.bundle import write_bundle
from edgeco.bundle.manifest import (
    Costs,
    Golden,
    History,
    Input,
    Manifest,
    Output,
    Preprocessing,
    Read,
    Timeline,
    Variant,
)

HEIGHT, WIDTH, STEPS = 8, 10, 5
LABELS = ("red", "green", "blue")


def picture_manifest(**changes: Any) -> Manifest:
    past = History(
        name="h000",
        storage="slots",
        shape=(3,),
        dtype="float32",
        depth=1,
        reads=(Read(name="h000_1", age=1),),
        write="h000_new",
        buffers=2,
    )
    manifest = Manifest(
        schema_version=1,
        name="mean colour",
        inputs=(Input(name="frame", shape=(HEIGHT, WIDTH, 3), dtype="uint8", kind="image"),),
        outputs=(Output(name="colour", shape=(3,), dtype="float32", valid_from=1, delay=0),),
        histories=(past,),
        timeline=Timeline(clip_length=2, receptive_field=2, delay=0, valid_from=1, warm_from=1, period=2, fps=10.0),
        variants={"fp32": Variant(graphs=("graphs/fp32.onnx",), weights="weights.safetensors", tolerance=1e-5)},
        golden=Golden(member="golden.safetensors", steps=STEPS),
        costs=Costs(parameters=1, clip_macs=288, step_macs=144, state_bytes=24),
        members={},
        preprocessing=Preprocessing(size=(HEIGHT, WIDTH), resize="stretch", interpolation="area"),
        labels=LABELS,
    )
    return msgspec.structs.replace(manifest, **changes)


def _graph() -> bytes:
    nodes = [
        operation("Cast", ["frame"], ["float"], to=TYPES["float32"]),
        operation("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
        operation("Mul", ["mean", "gain"], ["h000_new"]),
        operation("Add", ["h000_new", "h000_1"], ["colour"]),
    ]
    inputs = [value("frame", ("rows", HEIGHT, WIDTH, 3), "uint8"), value("h000_1", ("rows", 3))]
    outputs = [value("colour", ("rows", 3)), value("h000_new", ("rows", 3))]
    return model(graph(nodes, inputs, outputs, [constant("axes", np.array([1, 2]))], name="mean"))


def write_picturenet(path: Path, *, wrong: bool = False, **changes: Any) -> Path:
    """Write the bundle; ``wrong`` golden answers make its verification fail."""
    frames = np.random.default_rng(0).integers(0, 256, (STEPS, HEIGHT, WIDTH, 3), dtype=np.uint8)
    means = frames.mean(axis=(1, 2), dtype=np.float64)
    answers = (0.5 * (means + np.concatenate([np.zeros((1, 3)), means[:-1]])) + wrong).astype(np.float32)
    members = {
        "graphs/fp32.onnx": _graph(),
        "weights.safetensors": save({"gain": np.array(0.5, np.float32)}),
        "golden.safetensors": save({"frame.frame": frames, "answer.colour": answers}),
        "report.json": json.dumps({"lines": ["exact: mean at net.py:3"], "drift": 0.0}).encode(),
    }
    write_bundle(path, picture_manifest(**changes), members)
    return path
