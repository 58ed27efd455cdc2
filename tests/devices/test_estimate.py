"""The floor of a step, held against sums done by hand, and what every floor must obey."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest

from edgeco.bundle.manifest import (
    Costs,
    Golden,
    History,
    Input,
    Layer,
    Manifest,
    Output,
    Read,
    Stored,
    Timeline,
    Variant,
)
from edgeco.devices.catalogue import find_profile, profiles
from edgeco.devices.estimate import LAUNCH, SIZES, doublings, estimate
from edgeco.devices.profile import Figure, Profile
from edgeco.errors import SpecError

CARD = Profile(
    name="card",
    title="A card",
    family="desktop",
    compute_capability="8.6",
    precisions=("fp32", "fp16", "int8"),
    memory=Figure(value=1, basis="vendor"),
    bandwidth=Figure(value=100, basis="vendor"),
    rates={"fp16": Figure(value=10, basis="vendor"), "int8": Figure(value=20, basis="derived", note="twice FP16")},
)
HEAVY = Layer(op="conv2d", macs=50_000_000, reads=1000, writes=1000, weights=500)
WIDE = Layer(op="conv2d", macs=1000, reads=1_000_000, writes=500_000, weights=100)
SMALL = Layer(op="linear", macs=10, reads=10, writes=1, weights=11)


def history(storage: Any, **changes: Any) -> History:
    record = History(
        name=f"h_{storage}",
        storage=storage,
        shape=(100, 100),
        dtype="float32",
        depth=3,
        reads=(Read(name="r", age=None),),
        write="w",
        buffers={"slots": 4, "ring": 3, "mirror": 6, "carry": 2}[storage],
    )
    return msgspec.structs.replace(record, **changes)


def manifest(*layers: Layer, histories: tuple[History, ...] = (), stride: int = 1) -> Manifest:
    return Manifest(
        schema_version=1,
        name="net",
        inputs=(Input(name="frame", shape=(3,), dtype="float32", kind="array"),),
        outputs=(Output(name="y", shape=(3,), dtype="float32", valid_from=0, delay=0),),
        histories=histories,
        timeline=Timeline(
            clip_length=1, receptive_field=1, delay=0, valid_from=0, warm_from=0, stride=stride, period=stride
        ),
        variants={},
        golden=Golden(member="g", steps=1),
        costs=Costs(parameters=0, clip_macs=0, step_macs=0, state_bytes=0, layers=layers),
        members={},
    )


def floor_of(made: Any, precision: str, streams: int) -> Any:
    (found,) = [f for f in made.floors if (f.precision, f.streams) == (precision, streams)]
    return found


def test_each_kernel_takes_the_greatest_of_three_floors() -> None:
    made = estimate(manifest(HEAVY, WIDE, SMALL), CARD)
    heavy, wide, small = made.kernels["fp16"]
    assert (heavy.bound, heavy.floor) == ("compute", pytest.approx(2 * 50e6 / 10e12))
    assert (wide.bound, wide.floor) == ("memory", pytest.approx(2 * 1_500_100 / 100e9))
    assert (small.bound, small.floor) == ("launch", LAUNCH)
    assert wide.bytes == 2 * 1_500_100
    floor = floor_of(made, "fp16", 1)
    assert floor.mean == floor.worst == pytest.approx(heavy.floor + wide.floor + small.floor)
    assert floor.fps == pytest.approx(1 / floor.mean)
    assert sum(floor.shares.values()) == pytest.approx(1)


def test_streams_share_weights_and_launches() -> None:
    weights = Layer(op="linear", macs=0, reads=0, writes=0, weights=1_000_000)
    made = estimate(manifest(weights, SMALL, WIDE), CARD, (1, 8))
    one, eight = floor_of(made, "fp16", 1), floor_of(made, "fp16", 8)
    assert eight.mean - one.mean == pytest.approx(7 * 2 * 1_500_000 / 100e9)
    assert eight.fps > one.fps
    assert eight.memory == one.memory == 2 * (1_000_000 + 11 + 100)


def test_precisions_have_their_rates_and_sizes() -> None:
    made = estimate(manifest(HEAVY, WIDE), CARD)
    assert list(made.kernels) == ["fp32", "fp16", "int8"]
    heavy = {name: kernels[0].compute for name, kernels in made.kernels.items()}
    assert heavy["int8"] == pytest.approx(heavy["fp16"] / 2)
    assert heavy["fp32"] == heavy["fp16"]  # no rate of its own: no faster than FP16
    assert made.kernels["fp32"][1].bytes == 2 * made.kernels["fp16"][1].bytes == 4 * made.kernels["int8"][1].bytes
    assert any("rate in fp32 is not known; that of fp16 bounds it" in text for text in made.assumptions)
    assert any("twice FP16" in text for text in made.assumptions)


def test_int8_counts_the_states_that_its_form_keeps_in_fp16() -> None:
    kept = (history("slots"), history("ring"))
    plain = manifest(SMALL, histories=kept)
    made = estimate(plain, CARD)
    assert floor_of(made, "int8", 1).memory == (4 + 3) * 10_000 + 11
    assert any("no such form yet: edgeco build --precision int8" in text for text in made.assumptions)
    stored = {"h_slots": Stored(dtype="int8", scale=0.1)}
    for name in ("trt-int8", "trt-int8-typed"):
        form = Variant(graphs=("g",), weights="w", tolerance=0.01, histories=stored)
        made = estimate(msgspec.structs.replace(plain, variants={name: form}), CARD, (1, 2))
        assert floor_of(made, "int8", 2).memory == 2 * (4 * 10_000 + 2 * 3 * 10_000) + 11
        assert floor_of(made, "fp16", 1).memory == 2 * (7 * 10_000 + 11)
        assert any("1 of 2 histories of the form are FP16" in text for text in made.assumptions)


def test_a_layer_of_the_shipped_kind_by_hand() -> None:
    """A linear layer from 256 to 1024 numbers on an Orin Nano: 68 GB/s, 10 and 20 x 10^12 operations a second."""
    layer = Layer(op="linear", macs=256 * 1024, reads=256, writes=1024, weights=256 * 1024 + 1024)
    made = estimate(manifest(layer), find_profile("jetson-orin-nano"), (1, 64))
    half, eight = made.kernels["fp16"][0], made.kernels["int8"][0]
    assert (half.bytes, eight.bytes) == (528_896, 264_448)
    assert half.memory == pytest.approx(7.7779e-6, rel=1e-4) and eight.memory == pytest.approx(3.8889e-6, rel=1e-4)
    assert half.compute == pytest.approx(5.243e-8, rel=1e-3) and eight.compute == pytest.approx(2.621e-8, rel=1e-3)
    assert half.bound == eight.bound == "memory"
    assert floor_of(made, "int8", 64).mean == pytest.approx((263_168 + 64 * 1280) / 68e9)


def test_a_precision_that_nothing_bounds_is_left_out() -> None:
    card = msgspec.structs.replace(CARD, rates={"fp16": CARD.rates["fp16"]})
    assert list(estimate(manifest(HEAVY), card).kernels) == ["fp32", "fp16"]


def test_rings_and_mirrors_are_copied_and_slots_are_not() -> None:
    kept = (history("slots"), history("ring"), history("mirror"), history("carry"))
    made = estimate(manifest(SMALL, histories=kept), CARD)
    _, ring, mirror = made.kernels["fp32"]
    assert (ring.op, ring.bytes) == ("copy to ring", 4 * 2 * 10_000)
    assert (mirror.op, mirror.bytes) == ("copy to mirror", 4 * 3 * 10_000)
    assert floor_of(made, "fp32", 1).memory == 4 * ((4 + 3 + 6 + 2) * 10_000 + 11)


def test_what_is_not_due_in_a_step_costs_nothing_in_it() -> None:
    often, seldom = (msgspec.structs.replace(HEAVY, steps=steps) for steps in ((0, 1, 2, 3), (2,)))
    ring = history("ring", rate=2, phase=1)
    made = estimate(manifest(often, seldom, histories=(ring,), stride=4), CARD)
    floor, each = floor_of(made, "fp16", 1), made.kernels["fp16"][0].floor
    assert [kernel.steps for kernel in made.kernels["fp16"]] == [4, 1, 2]
    assert floor.mean == pytest.approx((5 * each + 2 * LAUNCH) / 4)
    assert floor.worst == pytest.approx(2 * each)


def test_what_does_not_fit_is_said() -> None:
    large = history("ring", shape=(1000, 1000, 10))
    made = estimate(manifest(SMALL, histories=(large,)), CARD, (1, 16))
    assert floor_of(made, "fp32", 1).fits is True and floor_of(made, "fp32", 16).fits is False
    unknown = msgspec.structs.replace(CARD, memory=None)
    assert floor_of(estimate(manifest(SMALL), unknown), "fp32", 1).fits is None


def test_a_measured_launch_takes_the_place_of_the_assumed_one() -> None:
    made = estimate(manifest(SMALL), CARD, launch=5e-6)
    assert floor_of(made, "fp16", 1).mean == 5e-6
    assert any("5 µs (as given)" in text for text in made.assumptions)
    assert any("2 µs (not measured on this device)" in t for t in estimate(manifest(SMALL), CARD).assumptions)
    none = estimate(manifest(Layer(op="x", macs=0, reads=0, writes=0, weights=0)), CARD, launch=0)
    assert none.floors[0].fps == math.inf


@pytest.mark.parametrize("profile", profiles(), ids=lambda profile: profile.name)
def test_every_device_gives_a_floor_or_one_sentence(profile: Profile) -> None:
    net = manifest(HEAVY, WIDE, SMALL, histories=(history("ring"),))
    try:
        made = estimate(net, profile, (1, 2, 64))
    except SpecError as error:
        assert "\n" not in str(error)
        assert profile.unsupported or profile.family == "cpu" or profile.bandwidth is None
        return
    assert set(made.kernels) <= set(SIZES) and made.floors
    for precision in made.kernels:
        times = [floor_of(made, precision, count).mean for count in (1, 2, 64)]
        assert times == sorted(times) and all(t >= 4 * LAUNCH for t in times)
    assert json.loads(json.dumps(made.to_json()))["device"] == profile.name


class TestRefused:
    def test_a_bundle_without_costs_per_layer(self) -> None:
        with pytest.raises(SpecError, match="build it again: edgeco build"):
            estimate(manifest(), CARD)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("jetson-nano", "is not supported: its last JetPack"),
            ("cpu", "measure on one"),
            ("jetson-orin-nano-4gb", "bandwidth of Jetson Orin Nano 4 GB is not known"),
        ],
    )
    def test_devices(self, name: str, said: str) -> None:
        with pytest.raises(SpecError, match=said):
            estimate(manifest(SMALL), find_profile(name))

    def test_a_device_without_a_rate(self) -> None:
        with pytest.raises(SpecError, match="rate of arithmetic of A card is not known"):
            estimate(manifest(SMALL), msgspec.structs.replace(CARD, rates={}))

    @pytest.mark.parametrize("streams", [(), (0,), (1, 5000)])
    def test_streams(self, streams: tuple[int, ...]) -> None:
        with pytest.raises(SpecError, match="Streams are from 1 to 4096"):
            estimate(manifest(SMALL), CARD, streams)

    @pytest.mark.parametrize("launch", [-1e-6, math.nan, math.inf])
    def test_launch(self, launch: float) -> None:
        with pytest.raises(SpecError, match="--launch"):
            estimate(manifest(SMALL), CARD, launch=launch)


def test_doublings() -> None:
    assert [doublings(n) for n in (1, 2, 3, 64)] == [(1,), (1, 2), (1, 2, 3), (1, 2, 4, 8, 16, 32, 64)]
