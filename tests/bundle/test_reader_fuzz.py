"""Whatever bytes come in, a reader ends with a bundle or with BundleError."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from corpus import members_of, pack
from toy_bundle import Toy

from edgeco.bundle import open_bundle
from edgeco.errors import BundleError

FUZZ = hypothesis.settings(
    max_examples=300, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)


def opens(toy: Toy, data: bytes) -> bool:
    """Whether a bundle can be opened and used; anything but BundleError is the test's failure."""
    path = toy.path.with_name("mutant.edgeco")
    path.write_bytes(data)
    try:
        bundle = open_bundle(path)
        bundle.golden()
        bundle.report()
        for variant in bundle.manifest.variants:
            bundle.onnx(variant)
    except BundleError as error:
        assert str(error).isprintable()
        return False
    return True


def mutate(draw: Any, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(changed) - 1, 0)))
        kind = draw(st.sampled_from(["set", "insert", "delete", "repeat"]))
        if kind == "set":
            changed[place : place + 1] = draw(st.binary(min_size=1, max_size=4))
        elif kind == "insert":
            changed[place:place] = draw(st.binary(min_size=1, max_size=16))
        else:
            length = draw(st.integers(1, 64))
            changed[place : place + length] = changed[place : place + length] * (2 if kind == "repeat" else 0)
    return bytes(changed)


@FUZZ
@hypothesis.given(st.data())
def test_mutated_files(toy: Toy, data: st.DataObject) -> None:
    opens(toy, mutate(data.draw, toy.data))


@FUZZ
@hypothesis.given(st.data())
def test_mutated_members_with_right_hashes(toy: Toy, data: st.DataObject) -> None:
    """What parses the members is reached only behind the hashes, so these are made right again."""
    files = members_of(toy)
    name = data.draw(st.sampled_from(sorted(toy.members)))
    files[name] = mutate(data.draw, files[name])
    manifest = json.loads(files["manifest.json"])
    manifest["members"][name] = {"size": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}
    opens(toy, pack(files | {"manifest.json": json.dumps(manifest).encode()}))


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just([]) | st.just({})


@FUZZ
@hypothesis.given(st.data())
def test_mutated_manifests(toy: Toy, data: st.DataObject) -> None:
    files = members_of(toy)
    manifest = json.loads(files["manifest.json"])
    for _ in range(data.draw(st.integers(1, 3))):
        target: Any = manifest
        while True:
            keys = sorted(target) if isinstance(target, dict) else list(range(len(target)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if not isinstance(target[key], (dict, list)) or data.draw(st.integers(0, 4)) == 0:
                target[key] = data.draw(LEAVES | st.sampled_from([1, 2, 3, 6, 2**31, "ring", "carry", "frame", "w"]))
                break
            target = target[key]
    opens(toy, pack(files | {"manifest.json": json.dumps(manifest).encode()}))


@hypothesis.given(st.binary(max_size=200))
def test_random_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.edgeco"
    path.write_bytes(data)
    with pytest.raises(BundleError):
        open_bundle(path)


def test_a_flipped_byte_is_refused_or_changes_nothing(toy: Toy) -> None:
    """Only what no reader looks at, the dates and version numbers of the archive, may differ."""
    good, spared = toy.data, 0
    want = {name: open_bundle(toy.path).read(name) for name in members_of(toy)}
    for place in range(0, len(good), 3):
        flipped = bytearray(good)
        flipped[place] ^= 0xFF
        if opens(toy, bytes(flipped)):
            spared += 1
            bundle = open_bundle(toy.path.with_name("mutant.edgeco"))
            assert {name: bundle.read(name) for name in want} == want
    assert spared < 10 * len(want)


def test_a_cut_is_refused(toy: Toy) -> None:
    good = toy.data
    assert not any(opens(toy, good[:length]) for length in range(0, len(good), 7))
