"""Snapshots: exact continuation at every phase, and refusal of everything else."""

from __future__ import annotations

import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save
from stepnets import StepNet, mixed, write_stepnet

from edgeco.errors import BundleError, SpecError
from edgeco.runtime.model import Model, load
from edgeco.runtime.snapshot import KEY
from edgeco.runtime.stream import Stream

NET = mixed(valid_from=3, receptive_field=6)
PERIOD = math.lcm(12, 5, 3)  # of the slots, and of the cursors of mirror and ring


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(write_stepnet(tmp_path_factory.mktemp("bundle") / "net.edgeco", NET), threads=1)


def answers(stream: Stream, frames: np.ndarray) -> dict[str, np.ndarray]:
    results = [stream.step(frame) for frame in frames]
    return {name: np.stack([result.outputs[name] for result in results]) for name in results[0].outputs}


def check(given: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, values in expected.items():
        np.testing.assert_array_equal(given[name], values, err_msg=name)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_restored_stream_continues_at_every_phase(model: Model, rows: int) -> None:
    frames = NET.frames(PERIOD + 40, rows)
    expected = NET.oracle(frames, rows)
    with model.stream(rows) as first, model.stream(rows) as second:
        for cut in range(PERIOD + 5):
            data = first.snapshot()
            second.restore(data)
            assert (second.steps, second.valid, second.warm) == (cut, cut > 3, cut > 5)
            assert second.snapshot() == data
            tail = {name: values[cut : cut + 13] for name, values in expected.items()}
            check(answers(second, frames[cut : cut + 13]), tail)
            first.step(frames[cut])


def test_it_continues_bit_by_bit_with_any_numbers(model: Model) -> None:
    frames = np.random.default_rng(3).normal(size=(60, NET.features)).astype(np.float32)
    with model.stream() as first, model.stream() as second:
        answers(second, frames[:5])
        answers(first, frames[:23])
        second.restore(first.snapshot())
        check(answers(second, frames[23:]), answers(first, frames[23:]))
        assert first.snapshot() == second.snapshot()


def test_a_snapshot_is_canonical_safetensors(model: Model) -> None:
    frames = NET.frames(PERIOD + 7)
    with model.stream() as stream:
        answers(stream, frames)
        tensors = load_tensors(stream.snapshot())
    assert sorted(tensors) == [record.name for record in NET.manifest.histories]
    assert tensors["h000_slots"].shape == (2, 1, 2)
    np.testing.assert_array_equal(tensors["h002_ring"][:, 0], 3 * frames[-3:] + 2)
    np.testing.assert_array_equal(tensors["h003_mirror"][:, 0], (3 * frames[-5:] + 3).astype(np.float16))


def taken(model: Model) -> bytes:
    with model.stream() as stream:
        answers(stream, NET.frames(17))
        return stream.snapshot()


def refused(model: Model, data: object, message: str, rows: int = 1) -> None:
    frames = NET.frames(30, rows, seed=4)
    with model.stream(rows) as stream:
        answers(stream, frames[:11])
        with pytest.raises(BundleError, match=message) as caught:
            stream.restore(data)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
        assert stream.steps == 11
        rest = {name: values[11:] for name, values in NET.oracle(frames, rows).items()}
        check(answers(stream, frames[11:]), rest)


def test_another_network_is_refused(model: Model, tmp_path_factory: pytest.TempPathFactory) -> None:
    renamed = StepNet(msgspec.structs.replace(NET.manifest, name="other"), NET.model)
    other = load(write_stepnet(tmp_path_factory.mktemp("bundle") / "other.edgeco", renamed), threads=1)
    refused(model, taken(other), "another network")


def test_another_variant_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    variants = {**NET.manifest.variants, "again": NET.manifest.variants["fp32"]}
    both = StepNet(msgspec.structs.replace(NET.manifest, variants=variants), NET.model)
    path = write_stepnet(tmp_path_factory.mktemp("bundle") / "both.edgeco", both)
    refused(load(path, threads=1), taken(load(path, threads=1, variant="again")), "another variant: again")


def test_another_number_of_rows_is_refused(model: Model) -> None:
    refused(model, taken(model), "another number of rows: 1, where this stream has 3", rows=3)


FOREIGN = [b"", b"no", b"\0" * 64, b"\xff" * 64, save({"a": np.zeros(3)}), b"\x02" + bytes(7) + b"[]"]
FOREIGN += [save({"a": np.zeros(3)}, metadata={KEY: text}) for text in ("", "[]", "{")]


@pytest.mark.parametrize("data", FOREIGN)
def test_what_is_no_snapshot_is_refused(model: Model, data: bytes) -> None:
    refused(model, data, "no snapshot")


def test_something_else_than_bytes_is_refused(model: Model) -> None:
    with model.stream() as stream, pytest.raises(SpecError, match="not str"):
        stream.restore("text")  # type: ignore[arg-type]
    with model.stream() as stream:
        stream.restore(bytearray(taken(model)))
        assert stream.steps == 17
        stream.restore(memoryview(taken(model)))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_flipped_bit_is_noticed(model: Model, data: st.DataObject) -> None:
    snapshot = bytearray(whole := taken(model))
    at = data.draw(st.integers(0, len(snapshot) - 1))
    snapshot[at] ^= 1 << data.draw(st.integers(0, 7))
    with model.stream() as stream:
        answers(stream, NET.frames(4))
        before = stream.snapshot()
        try:
            stream.restore(bytes(snapshot))
        except BundleError:
            assert stream.snapshot() == before
        else:  # a bit of JSON's own freedom, such as the blanks that pad the header
            assert stream.snapshot() == whole


@pytest.mark.parametrize("length", [7, 8, 100, -1, -100])
def test_a_cut_snapshot_is_noticed(model: Model, length: int) -> None:
    refused(model, taken(model)[:length], "snapshot")


def altered(data: bytes, **record: object) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"][KEY] = json.dumps({**json.loads(header["__metadata__"][KEY]), **record})
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def test_altered_metadata_are_noticed(model: Model) -> None:
    data = taken(model)
    refused(model, altered(data, steps=18), "digest")
    refused(model, altered(data, version=2), "of version 2, and this release reads 1")
    refused(model, altered(data, bundle="0" * 64), "digest")
    refused(model, altered(data, digest=""), "digest")
