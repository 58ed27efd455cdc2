"""Bundles as an attacker, or a bad cable, would make them: each a name, the bytes, and what must be answered."""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save
from toy_bundle import STEPS, WIDTH, Toy

from edgeco.bundle.protobuf import head

Files = dict[str, bytes]


class Attack(NamedTuple):
    name: str
    data: bytes
    sentence: str
    """A pattern that the refusal matches."""


def members_of(toy: Toy) -> Files:
    with zipfile.ZipFile(io.BytesIO(toy.data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(files: Files, change: Callable[[zipfile.ZipInfo], None] | None = None, victim: str = "") -> bytes:
    """A zip of these files in the form of a bundle; ``change`` edits the entry of the victim."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            if name == victim and change:
                change(entry)
            archive.writestr(entry, data)
    return stream.getvalue()


def forge(toy: Toy, members: Files | None = None, edit: Callable[[dict[str, Any]], None] | None = None) -> bytes:
    """A bundle with members replaced and the manifest edited, its sizes and hashes all as they should be."""
    files = members_of(toy) | (members or {})
    manifest = json.loads(files.pop("manifest.json"))
    manifest["members"] = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
    }
    if edit:
        edit(manifest)
    return pack({"manifest.json": json.dumps(manifest).encode(), **files})


def patched(data: bytes, signature: bytes, offset: int, form: str, value: int, occurrence: int = 0) -> bytes:
    """Overwrite a number in the archive's own structures."""
    place = -1
    for _ in range(occurrence + 1):
        place = data.index(signature, place + 1)
    changed = bytearray(data)
    struct.pack_into(form, changed, place + offset, value)
    return bytes(changed)


def archive_attacks(toy: Toy) -> Iterator[Attack]:
    files, good = members_of(toy), toy.data
    for title, name, sentence in (
        ("climbing name", "../x", r"'\.\./x' has a name that climbs"),
        ("climbing inside", "graphs/../../x", "climbs out"),
        ("absolute name", "/etc/passwd", "absolute name"),
        ("drive letter", "C:x", "absolute name"),
        ("backslash", "graphs\\x", "backslash"),
        ("folder entry", "graphs/", "is a folder"),
        ("hidden name", ".bashrc", "not made of letters"),
        ("terminal code in a name", "a\x1b[2Jb", r"'a\\x1b\[2Jb' has a name that is not made of letters"),
        ("foreign letters", "gra\u0440hs", "not made of letters"),
        ("long name", "x" * 201, "more than 200 characters"),
        ("double slash", "graphs//x", "not made of letters"),
    ):
        yield Attack(title, pack({**files, name: b""}), sentence)

    def link(entry: zipfile.ZipInfo) -> None:
        entry.external_attr = 0o120777 << 16

    def device(entry: zipfile.ZipInfo) -> None:
        entry.external_attr = 0o060644 << 16

    def deflate(entry: zipfile.ZipInfo) -> None:
        entry.compress_type = zipfile.ZIP_DEFLATED

    def extra(entry: zipfile.ZipInfo) -> None:
        entry.extra = struct.pack("<HH", 0x7075, 0)

    def comment(entry: zipfile.ZipInfo) -> None:
        entry.comment = b"hello"

    yield Attack("link", pack({**files, "x": b"/etc/passwd"}, link, "x"), "'x' is a link")
    yield Attack("device node", pack({**files, "x": b""}, device, "x"), "'x' is not a regular file")
    yield Attack("zip bomb", pack({**files, "x": bytes(1 << 24)}, deflate, "x"), "'x' is compressed")
    yield Attack("second name in an extra field", pack(files, extra, "report.json"), "extra field or a comment")
    yield Attack("comment on a member", pack(files, comment, "report.json"), "extra field or a comment")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        stream = io.BytesIO(good)
        with zipfile.ZipFile(stream, "a") as archive:
            archive.writestr(zipfile.ZipInfo("report.json"), b"{}")
    yield Attack("duplicate member", stream.getvalue(), "'report.json' is there twice")
    yield Attack("name in another case", pack({**files, "REPORT.json": b"{}"}), "'REPORT.json' is there twice")
    many = {f"m{index}": b"" for index in range(1025)}
    yield Attack("many members", pack(many), "1025 members; a bundle has at most 1024")
    yield Attack("encrypted", patched(good, b"PK\1\2", 8, "<H", 1), "encrypted, streamed or patched")
    yield Attack("size lies in the directory", patched(good, b"PK\1\2", 24, "<L", 7), "gives two sizes")
    larger = patched(patched(good, b"PK\1\2", 20, "<L", 2**31), b"PK\1\2", 24, "<L", 2**31)
    yield Attack("size beyond the file", larger, "longer than the file holds")
    smaller = patched(patched(good, b"PK\1\2", 20, "<L", 9), b"PK\1\2", 24, "<L", 9)
    yield Attack("size lies in one header", smaller, "described in two ways")
    renamed = good.replace(b"manifest.json", b"manifesto.jso", 1)
    yield Attack("name differs in the local header", renamed, "described in two ways")
    yield Attack("overlapping members", patched(good, b"PK\1\2", 42, "<L", 0, occurrence=1), "a gap or an overlap")
    yield Attack(
        "count lies", patched(patched(good, b"PK\5\6", 8, "<H", 1), b"PK\5\6", 10, "<H", 1), "directory holds bytes"
    )
    count = len(files) + 1
    more = patched(patched(good, b"PK\5\6", 8, "<H", count), b"PK\5\6", 10, "<H", count)
    yield Attack("count lies upwards", more, "directory is damaged")
    last = len(files) - 1
    yield Attack("name beyond the directory", patched(good, b"PK\1\2", 28, "<H", 9999, last), "directory is damaged")
    directory = good.index(b"PK\1\2")
    room = patched(good[:directory] + b"room" + good[directory:], b"PK\5\6", 16, "<L", directory + 4)
    yield Attack("bytes before the directory", room, "the archive holds bytes that belong to no member")
    yield Attack("count differs", patched(good, b"PK\5\6", 8, "<H", 1), "directory does not fit the file")
    yield Attack("directory elsewhere", patched(good, b"PK\5\6", 16, "<L", 0), "directory does not fit the file")
    yield Attack("something before", b"#!/bin/sh\n" + good, "not an edgeco bundle")
    yield Attack("something after", good + b"\0", "cut short, or has something after")
    yield Attack("text file", b"hello\n", "not an edgeco bundle; make one with `edgeco build`")
    yield Attack("empty file", b"", "not an edgeco bundle")
    yield Attack("empty zip", pack({}), "not an edgeco bundle")
    yield Attack("another zip", pack({"x": b""}), "not an edgeco bundle: the archive has no manifest.json")
    for share in (0.01, 0.5, 0.99):
        yield Attack(f"cut at {share:.0%}", good[: int(len(good) * share)], "cut short")


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


def graph_attacks(toy: Toy) -> Iterator[Attack]:
    onnx = pytest.importorskip("onnx", reason="graphs for tests are made with the onnx package")
    from onnx import helper

    name = "graphs/fp32.onnx"
    outside = onnx.TensorProto(name="k", data_type=1, dims=[3], data_location=onnx.TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="/etc/passwd")
    unmarked = onnx.TensorProto(name="k", data_type=1, dims=[3])
    unmarked.external_data.add(key="location", value="../x")
    marked = onnx.TensorProto(name="k", data_type=1, dims=[3], data_location=onnx.TensorProto.EXTERNAL)
    sparse = onnx.SparseTensorProto(values=outside, indices=onnx.TensorProto(), dims=[3])
    inner = helper.make_graph([], "inner", [], [], [outside])

    def model(change: Callable[[Any], object]) -> bytes:
        loaded = onnx.load_from_string(toy.members[name])
        change(loaded)
        return bytes(loaded.SerializeToString())

    def attribute(**fields: Any) -> Callable[[Any], object]:
        made = onnx.AttributeProto(name="value", **fields)
        return lambda loaded: loaded.graph.node.add(op_type="Constant", output=["c"]).attribute.append(made)

    hidden = helper.make_node("If", ["frame"], ["c"], then_branch=inner, else_branch=inner)
    function = helper.make_function("d", "f", [], ["c"], [helper.make_node("Constant", [], ["c"], value=outside)], [])
    for title, change in {
        "initializer": lambda loaded: loaded.graph.initializer.append(outside),
        "place without mark": lambda loaded: loaded.graph.initializer.append(unmarked),
        "mark without place": lambda loaded: loaded.graph.initializer.append(marked),
        "constant": attribute(t=outside, type=4),
        "list of constants": attribute(tensors=[outside], type=9),
        "sparse constant": attribute(sparse_tensor=sparse, type=11),
        "list of sparse constants": attribute(sparse_tensors=[sparse], type=12),
        "inner graph": lambda loaded: loaded.graph.node.append(hidden),
        "list of inner graphs": attribute(graphs=[inner], type=10),
        "sparse initializer": lambda loaded: loaded.graph.sparse_initializer.append(sparse),
        "function": lambda loaded: loaded.functions.append(function),
        "training": lambda loaded: loaded.training_info.add().initialization.CopyFrom(inner),
    }.items():
        yield Attack(f"external data in a {title}", forge(toy, {name: model(change)}), "data lie in another file")
    good = toy.members[name]
    nested = b""
    for _ in range(40):
        for number in (6, 5, 1):  # a graph in an attribute in a node
            nested = head(number, len(nested)) + nested
    deep = good + head(7, len(nested)) + nested
    yield Attack("deep graphs", forge(toy, {name: deep}), "nested deeper than 32")
    for title, data, sentence in (
        ("empty graph", b"", "holds no node"),
        ("cut graph", good[:-1], "cut short"),
        ("group in a graph", good + b"\x0b\x0c", "structure is damaged"),
        ("field zero", good + b"\x00\x00", "structure is damaged"),
        ("endless number", good + b"\x08" + b"\xff" * 11, "cut short"),
        ("graph as a number", good + b"\x38\x01", "structure is damaged"),
        ("broken name", good + b"\x3a\x05\x0a\x03\x0a\x01\xff", "is not UTF-8"),
        ("text as a graph", b"graph toy { }\n", "not a usable ONNX model"),
    ):
        yield Attack(title, forge(toy, {name: data}), sentence)
    weight = helper.make_tensor("w", 1, [3], [0.0, 0.0, 0.0])
    shadow = model(lambda loaded: loaded.graph.initializer.append(weight))
    yield Attack("weight in the graph too", forge(toy, {name: shadow}), "makes 'w' itself")


GROUPS = (archive_attacks, listing_attacks, manifest_attacks, tensor_attacks, graph_attacks)
