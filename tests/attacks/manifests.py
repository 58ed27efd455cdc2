"""Members that are not those of the manifest, and manifests that are not strict, not true or not to be believed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from forging import Attack, forge, members_of, pack
from toy_bundle import Toy


def listing_attacks(toy: Toy) -> Iterator[Attack]:
    files = members_of(toy)
    yield Attack("unlisted member", pack({**files, "x": b""}), "'x' is not listed in manifest.json")
    for name in toy.members:
        rest = {key: data for key, data in files.items() if key != name}
        yield Attack(f"without {name}", pack(rest), f"'{name}' is listed in manifest.json and missing")
        longer = pack(files | {name: files[name] + b"\0"})
        yield Attack(f"{name} longer", longer, f"'{name}' has .* bytes; manifest.json says")
    for name, data in files.items():
        flipped = bytearray(toy.data)
        flipped[toy.data.index(data) + len(data) // 2] ^= 0x10
        yield Attack(f"{name} flipped", bytes(flipped), f"'{name}' is damaged")
        if name != "manifest.json":
            other = bytearray(data)
            other[len(data) // 2] ^= 0x10
            repacked = pack(files | {name: bytes(other)})
            yield Attack(f"{name} exchanged", repacked, f"'{name}' is not the one the bundle was built with")


def manifest_attacks(toy: Toy) -> Iterator[Attack]:
    files = members_of(toy)
    text = files["manifest.json"].decode()

    def written(title: str, data: str | bytes, sentence: str) -> Attack:
        raw = data if isinstance(data, bytes) else data.encode()
        return Attack(title, pack(files | {"manifest.json": raw}), sentence)

    def edited(title: str, place: str, value: Any, sentence: str) -> Attack:
        def edit(manifest: dict[str, Any]) -> None:
            *way, last = (int(step) if step.isdigit() else step for step in place.split("."))
            target: Any = manifest
            for step in way:
                target = target[step]
            target[last] = value

        return Attack(title, forge(toy, edit=edit), sentence)

    yield edited("newer schema", "schema_version", 2, "schema version 2 and this edgeco reads up to 1; upgrade")
    newer = text.replace('"schema_version": 1', '"schema_version": 7, "unheard": {}')
    yield written("newer schema with new fields", newer, "schema version 7 and this edgeco reads up to 1; upgrade")
    for version in (0, -1, True, "1", None, 1.0):
        yield edited(f"schema {version!r}", "schema_version", version, "names no schema version")
    yield written("huge manifest", text + " " * (4 << 20), "the limit is 4194304")
    yield written("deep lists", "[" * 100_000, "nested deeper than 32")
    yield written("deep objects", '{"a":' * 100_000, "nested deeper than 32")
    yield edited("deep provenance", "provenance", json.loads('{"a":' * 40 + "1" + "}" * 40), "nested deeper than 32")
    for value in ("NaN", "Infinity", "-Infinity", "1e999"):
        data = re.sub('"tolerance": [^}]*', f'"tolerance": {value}', text)
        assert data != text
        yield written(f"tolerance {value}", data, f"holds {value}, which is not a finite number")
    yield written("endless integer", text.replace('"parameters": 3', '"parameters": ' + "9" * 10**6), "beyond 64 bits")
    yield edited("integer of 65 bits", "provenance", {"seed": 2**64}, "integer beyond 64 bits")
    yield written("key twice", text.replace('"name": "toy"', '"name": "toy", "name": "other"'), "key 'name' twice")
    yield written("not JSON", text[:-5], "is not JSON")
    yield written("not UTF-8", b"\xff\xfe" + files["manifest.json"], "not UTF-8")
    yield written("not an object", "[]", "not a JSON object")
    yield edited("half a character", "name", "\ud800", "not Unicode")
    yield edited("unknown field", "extra", 1, "does not follow schema version 1: Object contains unknown field `extra`")
    yield edited("unknown type", "histories.0.dtype", "float64", "Invalid enum value 'float64'")
    yield edited("unknown storage", "histories.0.storage", "heap", "Invalid enum value 'heap'")
    yield edited("negative size", "inputs.0.shape.0", -3, "Expected `int` >= 1")
    yield edited("number as text", "histories.0.depth", "2", "Expected `int`, got `str`")
    yield edited("read older than kept", "histories.0.reads.0.age", 9, "keeps 2 elements and is read at age 9")
    yield edited("buffers beside the period", "histories.0.buffers", 4, "does not divide the period 3")
    yield edited("too few buffers", "histories.0.buffers", 1, "2 elements and the new one need 3")
    yield edited("tensor named twice", "outputs.0.name", "h000_new", "'h000_new' is given to two things")
    yield edited("graph not there", "variants.fp32.graphs.0", "graphs/x.onnx", "names member 'graphs/x.onnx'")
    stored = {"dtype": "uint8", "border": 128.0, "scale": 0.1, "zero_point": 128}
    for title, name, change, sentence in (
        ("stores what is not there", "h999", {}, "stores a history 'h999', which there is not"),
        ("border that is no code", "h000", {"border": 256.0}, "border 256.0, which uint8 cannot hold"),
        ("border between codes", "h000", {"border": 0.5}, "border 0.5, which uint8 cannot hold"),
        ("codes without a scale", "h000", {"scale": None}, "has a scale if and only if"),
        ("scale without codes", "h000", {"dtype": "float16", "zero_point": 0}, "has a scale if and only if"),
        ("scale of zero", "h000", {"scale": 0.0}, "Expected `float` > 0.0"),
        ("zero beyond the codes", "h000", {"zero_point": 256}, "zero point 256, which is no code of uint8"),
    ):
        yield edited(title, "variants.fp32.histories", {name: {**stored, **change}}, sentence)
    yield edited("weights not there", "variants.fp32.weights", "../w", r"names member '\.\./w'")
    yield edited("golden not there", "golden.member", "/etc/passwd", "golden frames are in member '/etc/passwd'")
    yield edited("manifest as a graph", "variants.fp32.graphs.0", "manifest.json", "names member 'manifest.json'")
    yield edited("report as a graph", "variants.fp32.graphs.0", "report.json", "report.json is not a usable ONNX model")
    yield edited("report as weights", "variants.fp32.weights", "report.json", "report.json is cut short")
    yield edited("more steps than frames", "golden.steps", 7, "golden tensor 'frame.frame' is float32")
    yield edited("unknown graph input", "inputs.0.name", "image", "takes 'frame', which manifest.json does not")
    yield edited("unknown graph output", "histories.0.write", "w1", "gives 'h000_new', which manifest.json does not")
    whole = {"name": "more", "shape": [3], "dtype": "float32", "kind": "array"}
    yield Attack(
        "input no graph has",
        forge(toy, edit=lambda manifest: manifest["inputs"].append(whole)),
        "does not have 'more', which manifest.json describes",
    )
