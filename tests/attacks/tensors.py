"""Weights and golden frames that are not the tensors they say, all with right hashes."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from forging import Attack, forge
from safetensors.numpy import save
from toy_bundle import STEPS, WIDTH, Toy


def tensor_attacks(toy: Toy) -> Iterator[Attack]:
    name = "weights/fp32.safetensors"
    record = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}

    def weights(title: str, header: Any, sentence: str, data: bytes = bytes(12)) -> Attack:
        raw = header if isinstance(header, bytes) else json.dumps(header).encode()
        return Attack(title, forge(toy, {name: struct.pack("<Q", len(raw)) + raw + data}), sentence)

    yield weights("weight of doubles", {"w": record | {"dtype": "F64"}}, "is of type 'F64'; a bundle takes F32")
    yield weights("weight of another kind", {"w": record | {"dtype": []}}, "is of type")
    yield weights("weight out of the file", {"w": record | {"data_offsets": [4, 16]}}, "does not fit")
    yield weights("weight beyond its place", {"w": record | {"shape": [2**40]}}, "does not fit its shape")
    yield weights("weight of negative size", {"w": record | {"shape": [-3]}}, "not whole numbers")
    yield weights("weight ending before it begins", {"w": record | {"data_offsets": [12, 0]}}, "does not fit")
    yield weights("weights overlap", {"w": record, "v": record}, "a gap or an overlap")
    yield weights("bytes of no weight", {"w": record}, "bytes that belong to no tensor", bytes(13))
    yield weights("weight of many axes", {"w": record | {"shape": [3] + [1] * 8}}, "more than 8 axes")
    yield weights("weight without shape", {"w": {"dtype": "F32"}}, "not described as safetensors")
    yield weights("deep header", b"[" * 10_000, "nested deeper")
    yield weights("weight given twice", b'{"w": 1, "w": 2}', "key 'w' twice")
    yield Attack("header beyond the member", forge(toy, {name: b"\xff" * 16}), "no whole safetensors header")
    yield Attack("pickle as weights", forge(toy, {name: b"\x80\x04]."}), "no whole safetensors header")
    yield weights("weight the graph lacks", {"v": record}, "reads 'w', which is neither made in it nor held by")
    shadow = {"w": record, "frame": record | {"data_offsets": [12, 24]}}
    yield weights("weight named as an input", shadow, "makes 'frame' itself", bytes(24))
    frames = np.zeros((STEPS, WIDTH), np.float32)
    for title, golden, sentence in (
        ("no golden answers", {"frame.frame": frames}, r"lacks the golden tensor 'answer\.score'"),
        ("golden of halves", {"frame.frame": frames, "answer.score": frames.astype(np.float16)}, "is float16"),
        ("golden too many", {"frame.frame": frames, "answer.score": frames, "x": frames}, "holds 'x', which is no"),
    ):
        yield Attack(title, forge(toy, {"golden.safetensors": save(golden)}), sentence)
    yield Attack("report of lists", forge(toy, {"report.json": b"[]"}), "report.json is not a JSON object")
