"""Ranges are written and read strictly, and belong to one network with its weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from builders import one_sentence
from calibrated import network, streams
from rated_nets import NETS

from edgeco.bundle.manifest import Manifest
from edgeco.calibration.ranges import (
    Ranges,
    TensorRange,
    check_ranges,
    load_ranges,
    model_hash,
    read_ranges,
    save_ranges,
    tensor_key,
)
from edgeco.calibration.recordings import recorded
from edgeco.calibration.rollout import observe
from edgeco.errors import BundleError, CalibrationError
from edgeco.export.exported import Exported


@pytest.fixture(scope="module")
def built() -> tuple[Exported, Manifest]:
    make, clip, _ = NETS["rate 2"]
    return network(make(), clip)


@pytest.fixture(scope="module")
def ranges(built: tuple[Exported, Manifest]) -> Ranges:
    exported, manifest = built
    return observe(exported, manifest, recorded(manifest, streams(manifest, 40)), method="percentile", percentile=99.9)


def test_they_come_back_as_they_went(ranges: Ranges, tmp_path: Path) -> None:
    save_ranges(ranges, tmp_path / "ranges.json")
    assert load_ranges(tmp_path / "ranges.json") == ranges == Ranges.from_json(ranges.to_json())
    assert ranges.percentile == 99.9
    told = json.loads(ranges.to_json())
    assert set(told) == {field.name for field in msgspec.structs.fields(Ranges)}


def test_they_are_of_one_network_with_its_weights(built: tuple[Exported, Manifest], ranges: Ranges) -> None:
    exported, _ = built
    ranges.check_model(exported)
    name, array = next(iter(exported.weights.items()))
    nudged = array.copy()
    nudged.flat[0] = np.nextafter(nudged.flat[0], np.float32(9), dtype=np.float32)
    others = [
        Exported(exported.graphs, exported.schedule, exported.weights | {name: nudged}),
        Exported(exported.graphs[::-1], exported.schedule, exported.weights),
        Exported(exported.graphs, exported.schedule, {**exported.weights, "more": array}),
    ]
    for other in others:
        with pytest.raises(CalibrationError, match="ranges are of another network") as error:
            ranges.check_model(other)
        one_sentence(error.value)
    renumbered = Exported(exported.graphs[::-1], tuple(1 - n for n in exported.schedule), exported.weights)
    assert model_hash(renumbered) == ranges.model, "numbers of graphs are names, what is due in each step is not"


def test_the_hash_of_the_model_is_the_one_that_the_documentation_describes(built: tuple[Exported, Manifest]) -> None:
    exported, _ = built
    told = hashlib.sha256(b"edgeco model\0")
    for number in exported.schedule:
        told.update(hashlib.sha256(exported.graphs[number] if number is not None else b"").digest())
    for name in sorted(exported.weights):
        array = exported.weights[name]
        head = b"\0".join([b"", name.encode(), array.dtype.name.encode(), str(array.shape).encode(), b""])
        told.update(head + array.tobytes())
    assert told.hexdigest() == model_hash(exported)


def test_a_tensor_that_was_not_observed_is_told(ranges: Ranges) -> None:
    with pytest.raises(CalibrationError, match="nothing of the tensor 'none' of graph 1"):
        ranges.of("none", 1)
    assert tensor_key("a") == "a" and tensor_key("a", 2) == "a@2"


def changed(ranges: Ranges, **fields: object) -> bytes:
    return json.dumps({**json.loads(ranges.to_json()), **fields}).encode()


def test_whatever_does_not_hold_together_is_refused(ranges: Ranges) -> None:
    good = TensorRange(low=-1, high=2, amax=2, method="max", count=9)
    wrong = {
        "its least number": {"low": 3.0},
        "above every number seen": {"amax": 2.5},
        "histogram ends at": {"histogram": [1, 1], "limit": 2.0},
        "counts more numbers": {"histogram": [9, 1], "limit": 4.0},
        "below its `ge`|>= 0": {"count": -1},
        "Expected `float`|float": {"low": "x"},
        "unknown field": {"scale": 1.0},
        "Invalid enum": {"method": "minmax"},
    }
    for said, fields in wrong.items():
        found = {**msgspec.to_builtins(good), **fields}
        with pytest.raises(BundleError, match=said):
            read_ranges(changed(ranges, tensors={"t": found}), "r.json")
    for said, fields in {
        "no sha256": {"model": "abc"},
        "reads version 1; upgrade edgeco": {"version": 2},
        "missing required": {"tensors": {"t": {}}},
        "names a tensor ''": {"tensors": {"": msgspec.to_builtins(good)}},
        "unknown field": {"more": 1},
    }.items():
        with pytest.raises(BundleError, match=said):
            read_ranges(changed(ranges, **fields), "r.json")
    for data, said in ((b"[]", "not a JSON object"), (b"{", "not JSON"), (b'{"a": NaN}', "not a finite number")):
        with pytest.raises(BundleError, match=said):
            read_ranges(data, "r.json")


def test_a_file_that_holds_none_is_told_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"absent\.json cannot be read .*check the path"):
        load_ranges(tmp_path / "absent.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(CalibrationError, match=r"bad\.json is no list of ranges"):
        load_ranges(tmp_path / "bad.json")


def test_ranges_that_were_edited_are_refused(ranges: Ranges, built: tuple[Exported, Manifest]) -> None:
    exported, manifest = built
    check_ranges(ranges, exported, manifest)
    found = json.loads(ranges.to_json())
    name, history = next(iter(found["tensors"])), next(iter(found["histories"]))
    for key, kept in (("tensors", name), ("histories", history)):
        less = {at: one for at, one in found[key].items() if at != kept}
        with pytest.raises(CalibrationError, match=f"say nothing of '{kept}'"):
            check_ranges(read_ranges(changed(ranges, **{key: less})), exported, manifest)
    half = {
        **found["histories"],
        history: {**found["histories"][history], "amax": 0.5 * ranges.histories[history].amax},
    }
    with pytest.raises(CalibrationError, match=f"different things of '{history}'"):
        check_ranges(read_ranges(changed(ranges, histories=half)), exported, manifest)
    huge = {**found["tensors"], name: {**found["tensors"][name], "high": 1e300, "limit": 1e301}}
    with pytest.raises(BundleError, match="beyond those of FP32"):
        read_ranges(changed(ranges, tensors=huge))
