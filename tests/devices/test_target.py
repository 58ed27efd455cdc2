"""What a build for a device aims at, and what it refuses."""

from __future__ import annotations

import msgspec
import pytest

from edgeco.bundle.manifest import Costs, Golden, Manifest, Timeline
from edgeco.devices.catalogue import find_profile, profiles
from edgeco.devices.profile import Profile, version
from edgeco.devices.target import check_fits, target_of
from edgeco.errors import SpecError


@pytest.mark.parametrize(
    ("name", "precision", "typings", "opset"),
    [
        ("jetson-orin-nano", "fp16", ("weak", "strong"), 17),
        ("jetson-orin-nano-super", "fp16", ("weak", "strong"), 20),
        ("jetson-thor", "fp16", ("strong",), 20),
        ("rtx-4090", "fp16", ("weak", "strong"), 17),
        ("rtx-5090", "fp16", ("strong",), 20),
        ("cpu", "fp32", ("cpu",), 20),
    ],
)
def test_what_suits_a_device(name: str, precision: str, typings: tuple[str, ...], opset: int) -> None:
    target = target_of(find_profile(name))
    assert (target.precision, target.typings, target.opset) == (precision, typings, opset)


@pytest.mark.parametrize("profile", profiles(), ids=lambda profile: profile.name)
def test_every_device_has_a_target_or_a_reason(profile: Profile) -> None:
    if profile.unsupported is not None:
        with pytest.raises(SpecError, match="Nothing can be built for"):
            target_of(profile)
        return
    target = target_of(profile, profile.precisions)
    assert target.precision in profile.precisions and target.typings
    assert msgspec.json.decode(msgspec.json.encode(target))["device"] == profile.name


@pytest.mark.parametrize("profile", profiles(), ids=lambda profile: profile.name)
def test_int8_is_made_in_the_typings_that_a_device_takes(profile: Profile) -> None:
    pytest.importorskip("onnx", reason="forms are made with it")
    from edgeco.calibration.variants import targets_for

    if profile.unsupported is not None:
        with pytest.raises(SpecError, match=f"Nothing can be built for {profile.title}: its last JetPack"):
            target_of(profile, ["int8"])
        return
    found = targets_for(target_of(profile, ["fp32", "int8"]).typings, tensorrt=True)
    if profile.family == "cpu":
        assert found == ("cpu",)
        return
    assert profile.tensorrt is not None and "cpu" not in found
    oldest = profile.tensorrt.first
    assert ("trt-weak" in found) == (oldest is not None and version(oldest) < (10, 12))
    assert "trt-strong" in found  # every supported board has a JetPack with 10.12 or newer by now


@pytest.mark.parametrize(
    ("name", "asked", "said"),
    [
        ("jetson-orin-nano", "fp8", "does not compute in fp8, which takes compute capability 8.9 and it has 8.7"),
        ("rtx-4090", "fp4", "compute capability 10.0 and it has 8.9; choose among fp32, fp16, int8, fp8"),
        ("cpu", "fp16", "A processor does not compute in fp16; choose among fp32"),
        ("h100", "int3", "does not compute in int3; choose among"),
        ("jetson-tx2", "fp32", "Nothing can be built for Jetson TX2: its last JetPack is 4.6"),
    ],
)
def test_what_a_device_cannot_do_is_refused(name: str, asked: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        target_of(find_profile(name), ["fp32", asked])


def test_a_network_larger_than_the_memory() -> None:
    made = Manifest(
        schema_version=1,
        name="giant",
        inputs=(),
        outputs=(),
        histories=(),
        timeline=Timeline(clip_length=1, receptive_field=1, delay=0, valid_from=0, warm_from=0),
        variants={},
        golden=Golden(member="g", steps=1),
        costs=Costs(parameters=1_000_000_000, clip_macs=0, step_macs=0, state_bytes=500_000_000),
        members={},
    )
    check_fits(find_profile("orin-nano"), made)
    with pytest.raises(SpecError, match=r"giant needs 4\.5 GB .* and Jetson Orin Nano 4 GB has 4 GB"):
        check_fits(find_profile("orin-nano-4gb"), made)
    check_fits(find_profile("cpu"), made)  # the size of its memory is not known
