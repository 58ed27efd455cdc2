"""Which device this is, told from trees of files that stand for boards, and from drivers of GPUs that are not there."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
from boards import DESKTOP, ORIN_NANO, THOR, XAVIER, plant

from edgeco.devices import detect as library
from edgeco.devices.child import Outcome
from edgeco.devices.detect import detect, profile_of_this_device
from edgeco.devices.system import gpu_clock, power_mode
from edgeco.errors import SpecError

CARD = {"name": "NVIDIA GeForce RTX 4090", "compute_capability": "8.9", "memory": 25_757_220_864, "free": 20 * 2**30}


def driver(**answers: Outcome) -> library.Probe:
    """Stands for the probes of drivers; what is not named is not installed."""
    return lambda name: answers.get(name.replace("-", "_"), Outcome({"present": False}))


def no_driver(name: str) -> Outcome:
    raise AssertionError(f"{name} is asked though the board tells all")


def test_orin_nano_on_jetpack_6(tmp_path: Path) -> None:
    found = detect(plant(tmp_path, ORIN_NANO), no_driver)
    assert found.profile is not None and found.profile.name == "jetson-orin-nano-8gb-super"
    assert found.title == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert (found.l4t, found.jetpack, found.is_jetson) == ("36.4.3", "6.2", True)
    assert (found.processor, found.threads) == ("Arm Cortex-A78AE", 6)
    assert found.memory is not None and found.memory.available == 5_120_000 * 1024
    mode = power_mode(tmp_path)
    assert mode is not None and (mode.number, mode.name, mode.fastest) == (1, "25W", 2)
    assert gpu_clock(tmp_path) == (306_000_000, 1_020_000_000)


def test_thor_on_jetpack_7(tmp_path: Path) -> None:
    found = detect(plant(tmp_path, THOR), no_driver)
    assert found.profile is not None and found.profile.name == "jetson-thor-t5000"
    assert (found.l4t, found.jetpack, found.threads) == ("38.2.0", "7.0", 14)
    assert power_mode(tmp_path) is None and gpu_clock(tmp_path) is None


def test_an_unsupported_board_is_told_with_its_reason(tmp_path: Path) -> None:
    found = detect(plant(tmp_path, XAVIER), no_driver)
    assert found.profile is not None and found.profile.name == "jetson-agx-xavier"
    assert found.profile.unsupported is not None and "Python 3.8" in found.profile.unsupported
    assert found.jetpack == "5.1"


@pytest.mark.parametrize(
    ("model", "kilobytes", "name"),
    [
        ("Orin Nano on another carrier", 3_900_000, "jetson-orin-nano-4gb"),
        ("Orin Nano on another carrier", 7_800_000, "jetson-orin-nano-8gb"),
        ("NVIDIA Orin NX Developer Kit", 15_600_000, "jetson-orin-nx-16gb"),
        ("Jetson AGX Orin Developer Kit", 31_500_000, "jetson-agx-orin-32gb"),
        ("Jetson AGX Orin Developer Kit", 64_000_000, "jetson-agx-orin-64gb"),
        ("NVIDIA Jetson Thor T4000", 64_000_000, "jetson-thor-t4000"),
    ],
)
def test_a_carrier_of_another_maker_is_told_by_model_and_memory(
    tmp_path: Path, model: str, kilobytes: int, name: str
) -> None:
    files = {"proc/device-tree/model": model + "\0", "proc/device-tree/compatible": "maker,board\0nvidia,tegra234\0"}
    found = detect(plant(tmp_path, {**files, "proc/meminfo": f"MemTotal: {kilobytes} kB\n"}), no_driver)
    assert found.profile is not None and found.profile.name == name
    assert "model" in found.why and found.l4t is None and found.is_jetson


def test_a_jetson_without_a_profile(tmp_path: Path) -> None:
    files = {"proc/device-tree/model": "Jetson Next\0", "etc/nv_tegra_release": "# R50 (release), REVISION: 1.0\n"}
    found = detect(plant(tmp_path, files), no_driver)
    assert (found.profile, found.jetpack, found.l4t) == (None, None, "50.1.0")
    with pytest.raises(SpecError, match="no profile of this device"):
        profile_of_this_device(found)


def test_a_container_hides_the_device_tree(tmp_path: Path) -> None:
    files = {"etc/nv_tegra_release": ORIN_NANO["etc/nv_tegra_release"], ".dockerenv": ""}
    found = detect(plant(tmp_path, files), no_driver)
    assert (found.jetpack, found.profile, found.container, found.is_jetson) == ("6.2", None, True, True)
    assert "cannot be read" in found.why


class TestDesktop:
    def test_a_card_by_nvml(self, tmp_path: Path) -> None:
        probe = driver(nvml=Outcome({"present": True, "version": "570.1", "gpus": [CARD]}))
        found = detect(plant(tmp_path, DESKTOP), probe)
        assert found.profile is not None and found.profile.name == "rtx-4090"
        assert (found.driver, found.gpus[0].compute_capability, found.threads) == ("570.1", "8.9", 16)
        assert not found.is_jetson

    def test_a_card_by_nvidia_smi_where_nvml_crashes(self, tmp_path: Path) -> None:
        smi = Outcome({"present": True, "version": "570.1", "gpus": [CARD]})
        probe = driver(nvml=Outcome({"present": True}, failure="it crashes (SIGSEGV)"), nvidia_smi=smi)
        assert detect(plant(tmp_path, DESKTOP), probe).title == CARD["name"]

    def test_a_card_without_a_profile(self, tmp_path: Path) -> None:
        card = {**CARD, "name": "NVIDIA H100 PCIe", "compute_capability": "9.0"}
        found = detect(plant(tmp_path, DESKTOP), driver(nvml=Outcome({"present": True, "gpus": [card]})))
        assert found.profile is None and "no profile" in found.why and found.gpus[0].compute_capability == "9.0"

    def test_a_plain_processor(self, tmp_path: Path) -> None:
        found = detect(plant(tmp_path, DESKTOP), driver())
        assert found.profile is not None and found.profile.name == "cpu"
        assert (found.title, found.gpus) == ("A fast processor", ())
        assert found.memory is not None and found.memory.available == 50_000_000 * 1024

    def test_another_root_never_asks_this_machines_driver(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(library, "run_probe", no_driver)
        assert detect(plant(tmp_path, DESKTOP)).title == "A fast processor"

    def test_nothing_to_read_at_all(self, tmp_path: Path) -> None:
        found = detect(tmp_path, driver())
        assert found.title == f"{platform.machine()} processor"
        assert (found.memory, found.threads) == (None, 0)


def test_this_machine_as_json() -> None:
    facts = json.loads(json.dumps(detect().to_json()))
    assert facts["threads"] >= 1 and facts["memory"]["total"] >= facts["memory"]["available"] > 0
