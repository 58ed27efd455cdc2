"""A bundle, written and opened."""

from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from toy_bundle import STEPS, WEIGHT, Toy, toy_graph, toy_manifest, toy_members, toy_ranges

from edgeco.bundle import Manifest, archive, contents, open_bundle, write_bundle
from edgeco.bundle.manifest import Member
from edgeco.bundle.ranges import RANGES, Ranges
from edgeco.errors import BundleError, SpecError, WriteError


def test_everything_comes_back(toy: Toy) -> None:
    bundle = open_bundle(toy.path)
    assert bundle.path == toy.path
    for name, data in toy.members.items():
        assert bundle.read(name) == data
        assert bundle.manifest.members[name] == Member(size=len(data), sha256=hashlib.sha256(data).hexdigest())
    assert msgspec.structs.replace(bundle.manifest, members={}) == toy.manifest
    assert bundle.report() == {"drift": 0.0}
    assert bundle.sha256 == hashlib.sha256(bundle.read("manifest.json")).hexdigest()
    assert "toy" in repr(bundle)


def test_ranges_are_a_member_that_need_not_be_there(toy: Toy, tmp_path: Path) -> None:
    assert open_bundle(toy.path).ranges() is None
    data = toy_ranges(toy.manifest, toy.members)
    write_bundle(tmp_path / "calibrated", toy.manifest, toy.members | {RANGES: data})
    found = open_bundle(tmp_path / "calibrated").ranges()
    assert found == Ranges.from_json(data) and found.of("h000_1").border == 0.0
    other = toy.members | {RANGES: data.replace(found.model.encode(), b"0" * 64)}
    with pytest.raises(BundleError, match="of another network, or of other weights"):
        write_bundle(tmp_path / "foreign", toy.manifest, other)
    assert not (tmp_path / "foreign").exists()


def test_any_zip_reader_agrees(toy: Toy) -> None:
    with zipfile.ZipFile(toy.path) as other:
        assert other.testzip() is None
        assert other.namelist() == ["manifest.json", *sorted(toy.members)]
        assert {name: other.read(name) for name in toy.members} == toy.members
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in other.infolist())


def test_equal_contents_give_equal_bytes(toy: Toy, tmp_path: Path) -> None:
    backwards = dict(reversed(toy.members.items()))
    provenance = {"b": 1, "a": {"d": 2, "c": 3}}
    swapped = {"a": {"c": 3, "d": 2}, "b": 1}
    write_bundle(tmp_path / "one", toy_manifest(provenance=provenance), toy.members)
    write_bundle(tmp_path / "two", toy_manifest(provenance=swapped), backwards)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_identity_covers_every_member(toy: Toy, tmp_path: Path) -> None:
    write_bundle(tmp_path / "other", toy.manifest, toy.members | {"report.json": b"{}"})
    assert open_bundle(tmp_path / "other").sha256 != open_bundle(toy.path).sha256


def test_golden_frames(toy: Toy) -> None:
    frames, answers = open_bundle(toy.path).golden()
    assert set(frames) == {"frame"} and set(answers) == {"score"}
    scaled = frames["frame"] * WEIGHT
    np.testing.assert_allclose(answers["score"][2:], scaled[2:] + scaled[1:-1] + scaled[:-2], rtol=1e-6)
    frames["frame"][:] = 0
    assert open_bundle(toy.path).golden()[0]["frame"].any(), "arrays are the caller's own"


def test_a_bundle_without_a_report(toy: Toy, tmp_path: Path) -> None:
    members = {name: data for name, data in toy.members.items() if name != "report.json"}
    write_bundle(tmp_path / "plain", toy.manifest, members)
    assert open_bundle(tmp_path / "plain").report() is None


def test_the_model_runs_and_gives_the_golden_answers(toy: Toy) -> None:
    runtime = pytest.importorskip("onnxruntime")
    bundle = open_bundle(toy.path)
    session = runtime.InferenceSession(bundle.onnx("fp32", phase=5), providers=["CPUExecutionProvider"])
    frames, answers = bundle.golden()
    past = [np.zeros((1, 3), np.float32)] * 2
    for step in range(STEPS):
        feed = {"frame": frames["frame"][step][None], "h000_1": past[-1], "h000_2": past[-2]}
        score, new = session.run(["score", "h000_new"], feed)
        np.testing.assert_allclose(score[0], answers["score"][step], rtol=1e-6)
        past.append(new)


def test_unknown_names_are_answered_with_the_known_ones(toy: Toy) -> None:
    bundle = open_bundle(toy.path)
    with pytest.raises(SpecError, match="no variant 'int8'; it has fp32"):
        bundle.onnx("int8")
    with pytest.raises(SpecError, match=r"no member 'labels.txt'; it has golden.safetensors"):
        bundle.read("labels.txt")


def test_phases_take_turns(toy: Toy, tmp_path: Path) -> None:
    timeline = msgspec.structs.replace(toy.manifest.timeline, stride=2, period=6)
    variant = msgspec.structs.replace(toy.manifest.variants["fp32"], graphs=("graphs/fp32.onnx", "graphs/b.onnx"))
    manifest = toy_manifest(timeline=timeline, variants={"fp32": variant})
    # A metadata entry makes the second graph another one.
    members = toy.members | {"graphs/b.onnx": toy.members["graphs/fp32.onnx"] + b"\x72\x06\x0a\x01k\x12\x01v"}
    write_bundle(tmp_path / "strided", manifest, members)
    bundle = open_bundle(tmp_path / "strided")
    models = [bundle.onnx("fp32", phase) for phase in range(4)]
    assert models[0] == models[2] and models[1] == models[3] and models[0] != models[1]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"absent\.edgeco does not exist"):
        open_bundle(tmp_path / "absent.edgeco")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is a folder"):
        open_bundle(tmp_path)


def test_unreadable_file(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(BundleError, match="cannot be read: permission denied"):
        open_bundle(toy.path)


def test_path_with_a_null_character() -> None:
    with pytest.raises(BundleError, match="not a usable path"):
        open_bundle("a\0b")


def test_full_disk_leaves_the_good_bundle(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = toy.data
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(WriteError, match="disk is full"):
            write_bundle(toy.path, toy.manifest, toy.members | {"report.json": b"{}"})
    assert toy.data == before
    assert [entry.name for entry in toy.path.parent.iterdir()] == [toy.path.name]


def test_what_would_not_open_is_not_written(toy: Toy, tmp_path: Path) -> None:
    broken: list[tuple[Manifest, dict[str, bytes]]] = [
        (toy_manifest(schema_version=2), toy.members),
        (toy_manifest(name=""), toy.members),
        (toy_manifest(name=3), toy.members),
        (toy_manifest(provenance={"seed": float("nan")}), toy.members),
        (toy_manifest(provenance={"when": object()}), toy.members),
        (toy.manifest, toy.members | {"../x": b""}),
        (toy.manifest, toy.members | {"GOLDEN.safetensors": b""}),
        (toy.manifest, toy.members | {"manifest.json": b"{}"}),
        (toy.manifest, toy.members | {"report.json": b"[]"}),
    ]
    for manifest, members in broken:
        with pytest.raises(BundleError, match=r"out\.edgeco: "):
            write_bundle(tmp_path / "out.edgeco", manifest, members)
    assert not (tmp_path / "out.edgeco").exists()


@pytest.mark.parametrize(
    ("place", "limit", "sentence"),
    [
        ("archive.MAX_BUNDLE", 2000, "a bundle has at most 2000 bytes"),
        ("reader.MAX_BUNDLE", 2000, "a bundle has at most 2000"),
        ("archive.MAX_MEMBERS", 4, "at most .*4"),
        ("codec.MAX_MANIFEST", 1000, "manifest.json has .* bytes; the limit is 1000"),
        ("contents.MAX_REPORT", 5, "report.json has 14 bytes; the limit is 5"),
        ("graph.MAX_GRAPH", 10, "graphs/fp32.onnx has .* bytes"),
        ("tensors.MAX_TENSOR_HEADER", 10, "has a header of .* bytes; the limit is 10"),
    ],
    ids=lambda value: value if isinstance(value, str) and "MAX" in value else "",
)
def test_limits(toy: Toy, monkeypatch: pytest.MonkeyPatch, place: str, limit: int, sentence: str) -> None:
    monkeypatch.setattr(f"edgeco.bundle.{place}", limit)
    if place != "archive.MAX_BUNDLE":  # which only the writer uses
        with pytest.raises(BundleError, match=sentence):
            open_bundle(toy.path)
    if place != "reader.MAX_BUNDLE":
        with pytest.raises(BundleError, match=sentence):
            write_bundle(toy.path, toy.manifest, toy.members)


def test_a_phase_does_what_the_manifest_says(toy: Toy) -> None:
    """Of two phases one writes the history: its rate is 2, and four buffers turn once in eight steps."""
    variant = msgspec.structs.replace(toy.manifest.variants["fp32"], graphs=("graphs/fp32.onnx", "graphs/idle.onnx"))
    members = toy.members | {"graphs/idle.onnx": toy_graph(("score",))}
    cases = {
        (8, 2, 0): None,
        (4, 2, 0): "4 buffers, which does not divide the period 4 at rate 2",
        (8, 1, 0): "does not give 'h000_new' in phase 1",
        (8, 2, 1): "gives 'h000_new' in phase 0",
        (8, 3, 0): "has rate 3 and phase 0, in a stride of 2",
        (8, 2, 2): "has rate 2 and phase 2",
    }
    for (period, rate, phase), refused in cases.items():
        timeline = msgspec.structs.replace(toy.manifest.timeline, stride=2, period=period)
        history = msgspec.structs.replace(toy.manifest.histories[0], buffers=4, rate=rate, phase=phase)
        manifest = toy_manifest(timeline=timeline, variants={"fp32": variant}, histories=(history,))
        if refused is None:
            write_bundle(toy.path, manifest, members)
            continue
        with pytest.raises(BundleError, match=refused):
            write_bundle(toy.path, manifest, members)


def test_a_phase_may_have_nothing_to_do(toy: Toy) -> None:
    timeline = msgspec.structs.replace(toy.manifest.timeline, stride=2, period=8)
    variant = msgspec.structs.replace(toy.manifest.variants["fp32"], graphs=("graphs/fp32.onnx", ""))
    history = msgspec.structs.replace(toy.manifest.histories[0], buffers=4, rate=2)
    answer = msgspec.structs.replace(toy.manifest.outputs[0], rate=2)
    manifest = toy_manifest(timeline=timeline, variants={"fp32": variant}, histories=(history,), outputs=(answer,))
    write_bundle(toy.path, manifest, toy.members)
    bundle = open_bundle(toy.path)
    assert [model is None for model in bundle.phases("fp32")] == [False, True]
    with pytest.raises(SpecError, match="no graph for phase 3, in which 'fp32' has nothing to do"):
        bundle.onnx("fp32", 3)
    nothing = msgspec.structs.replace(variant, graphs=("", ""))
    with pytest.raises(BundleError, match="names no graph"):
        write_bundle(toy.path, msgspec.structs.replace(manifest, variants={"fp32": nothing}), toy.members)


def test_order_of_the_checks(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is hashed before names and sizes fit; nothing is parsed before its hash fits."""
    order: list[str] = []

    def noted(name: str, call: Any) -> Any:
        return lambda *given: order.append(name) or call(*given)

    monkeypatch.setattr(archive, "_check_local", noted("size", archive._check_local))
    monkeypatch.setattr(archive.zlib, "crc32", noted("checksum", archive.zlib.crc32))
    monkeypatch.setattr(contents.hashlib, "sha256", noted("hash", contents.hashlib.sha256))
    monkeypatch.setattr(contents, "read_graph", noted("parse", contents.read_graph))
    monkeypatch.setattr(contents, "read_tensors", noted("parse", contents.read_tensors))
    open_bundle(toy.path)
    stages = list(dict.fromkeys(order))
    assert stages == ["size", "checksum", "hash", "parse"]
    assert order == sorted(order, key=stages.index), "no stage begins before the one before it ends"
    assert order.count("hash") == len(toy.members), "each member is hashed once"


def test_importing_stays_light() -> None:
    heavy = "{'torch', 'onnx', 'cv2', 'onnxruntime'}"
    code = f"import sys, edgeco.bundle; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_members_of_the_toy_are_reproducible() -> None:
    assert toy_members() == toy_members()
