"""What is read of sensors, on trees of files that stand for boards and on a stand-in for NVIDIA's library."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import pytest
from boards import DESKTOP, ORIN_NANO, plant
from fake_nvml import FakeNvml
from sensors import AGX_ORIN_5, NANO_4, ORIN_NANO_6, THOR_7, TX2_4, WORKSTATION, XAVIER_5, rapl

from edgeco.devices.telemetry import open_telemetry
from edgeco.devices.telemetry.nvml import open_nvml
from edgeco.devices.telemetry.rapl import open_rapl

CARD = {
    "nvmlDeviceGetPowerUsage": 250_500,
    "nvmlDeviceGetTotalEnergyConsumption": 7_000_000,
    "nvmlDeviceGetTemperature": 64,
    "nvmlDeviceGetClockInfo": 2520,
    "nvmlDeviceGetMaxClockInfo": 3105,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x04 | 0x20 | 0x01,
}
RAPL_FILE = "sys/class/powercap/intel-rapl:0/energy_uj"


class TestBoards:
    @pytest.mark.parametrize(
        ("tree", "name", "covers", "watts"),
        [
            (NANO_4, "POM_5V_IN (ina3221 at 6-0040)", "module", 3.0),
            (TX2_4, "VDD_IN (ina3221 at 0-0041)", "module", 3.8),
            (ORIN_NANO_6, "VDD_IN (ina3221 at 1-0040)", "module", 6.0),
            (THOR_7, "VIN (ina238 at 2-0044)", "board", 40.0),
            (
                XAVIER_5,
                "GPU + CPU + SOC + CV + VDDRQ + SYS5V (ina3221 at 1-0040, ina3221 at 1-0041)",
                "module",
                19 * 0.29 + 2.0,
            ),
            (
                AGX_ORIN_5,
                "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0 (ina3221 at 1-0040)",
                "module",
                18.792 * 0.14 + 18.784 * 0.02 + 4.968 * 0.98,
            ),
        ],
        ids=["nano-jp4", "tx2-jp4", "orin-nano-jp6", "thor-jp7", "xavier-jp5", "agx-orin-jp5"],
    )
    def test_the_whole_is_counted_once(
        self, tmp_path: Path, tree: dict[str, str], name: str, covers: str, watts: float
    ) -> None:
        telemetry = open_telemetry(plant(tmp_path, tree))
        (sensor,) = telemetry.sensors
        assert (sensor.name, sensor.covers, sensor.joules()) == (name, covers, None)
        assert telemetry.sample().power == {name: pytest.approx(watts)}

    def test_rails_are_those_with_a_label_and_a_connection(self, tmp_path: Path) -> None:
        rails = open_telemetry(plant(tmp_path, AGX_ORIN_5)).sample().rails
        assert list(rails) == ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"]
        assert rails["VDDQ_VDD2_1V8AO"] == pytest.approx(4.968 * 0.08)

    def test_a_channel_that_is_switched_off_is_none(self, tmp_path: Path) -> None:
        off = {"sys/bus/i2c/devices/1-0040/hwmon/hwmon1/in1_enable": "0\n"}
        telemetry = open_telemetry(plant(tmp_path, {**ORIN_NANO_6, **off}))
        assert telemetry.sensors[0].name.startswith("VDD_CPU_GPU_CV + VDD_SOC")

    def test_power_that_the_kernel_computes_is_believed(self, tmp_path: Path) -> None:
        given = {"sys/bus/i2c/devices/1-0040/hwmon/hwmon1/power1_input": "6250000\n"}
        assert open_telemetry(plant(tmp_path, {**ORIN_NANO_6, **given})).sensors[0].watts() == pytest.approx(6.25)

    def test_a_rail_that_cannot_be_read_makes_the_sum_unavailable_not_smaller(self, tmp_path: Path) -> None:
        telemetry = open_telemetry(plant(tmp_path, XAVIER_5))
        (tmp_path / "sys/bus/i2c/devices/1-0041/hwmon/hwmon4/curr2_input").write_text("")
        reading = telemetry.sample()
        assert reading.power == {} and reading.unavailable["power"] == "its sensors give no figure now"
        assert "VDDRQ" not in reading.rails and "GPU" in reading.rails

    def test_a_board_without_a_monitor(self, tmp_path: Path) -> None:
        telemetry = open_telemetry(plant(tmp_path, ORIN_NANO))
        assert telemetry.sensors == () and "INA3221" in telemetry.sample().unavailable["power"]
        assert telemetry.mode is not None and telemetry.mode.name == "25W"

    def test_other_chips_on_the_bus_are_left_alone(self, tmp_path: Path) -> None:
        others = {"sys/bus/i2c/devices/4-0008/name": "ucsi_ccg\n", "sys/bus/i2c/devices/4-0050/name": "24c02\n"}
        assert len(open_telemetry(plant(tmp_path, {**ORIN_NANO_6, **others})).sensors) == 1


def test_temperatures_clocks_and_throttling_of_a_board(tmp_path: Path) -> None:
    reading = open_telemetry(plant(tmp_path, ORIN_NANO_6)).sample()
    assert reading.temperatures == {"cpu-thermal": 51.187, "gpu-thermal": 50.218, "tj-thermal": 51.187}
    gpu = reading.clocks["gpu"]
    assert (gpu.now, gpu.most, gpu.load) == (306e6, 1.02e9, 0.425)
    assert reading.clocks["cpu0"].now == 1.5104e9 and reading.clocks["cpu4"].most is None
    assert reading.events == {"over-current oc1": 0, "over-current oc2": 2, "over-current oc3": 37}
    assert reading.throttled == () and reading.unavailable == {}
    (tmp_path / "sys/class/thermal/cooling_device1/cur_state").write_text("1\n")
    (tmp_path / "sys/class/hwmon/hwmon3/oc1_throt_en").write_text("0\n")
    again = open_telemetry(tmp_path).sample()
    assert again.throttled == ("gpu-throttle-alert",) and "over-current oc1" not in again.events
    assert json.loads(json.dumps(again.to_json()))["clocks"]["gpu"]["load"] == 0.425


def test_clocks_by_the_names_of_each_jetpack(tmp_path: Path) -> None:
    orin, thor = (
        open_telemetry(plant(tmp_path / name, tree)).sample().clocks
        for name, tree in (("orin", AGX_ORIN_5), ("thor", THOR_7))
    )
    assert orin["gpu"].most == 1.3005e9
    assert thor["gpu"].now == 1.575e9 and thor["gpu-nvd-0"].now == 1.692e9


def test_nothing_at_all_is_unavailable_with_reasons(tmp_path: Path) -> None:
    telemetry = open_telemetry(plant(tmp_path, DESKTOP))
    reading = telemetry.sample()
    assert (reading.power, reading.temperatures, reading.clocks, reading.events) == ({}, {}, {}, {})
    assert set(reading.unavailable) == {"power", "temperatures", "clocks", "throttling"}
    assert "no driver of NVIDIA" in reading.unavailable["power"] and "RAPL" in reading.unavailable["power"]
    assert telemetry.why_no_power == reading.unavailable["power"]


class TestRapl:
    def test_packages_once_and_without_what_counts_them_again(self, tmp_path: Path) -> None:
        telemetry = open_telemetry(plant(tmp_path, WORKSTATION))
        (sensor,) = telemetry.sensors
        assert (sensor.name, sensor.covers, sensor.joules()) == ("RAPL package-0", "processor", 0.0)
        (tmp_path / RAPL_FILE).write_text("7500000\n")
        assert sensor.joules() == pytest.approx(2.5)
        reading = telemetry.sample()
        assert reading.temperatures == {"acpitz": 27.8, "acpitz 1": 29.8, "x86_pkg_temp": 61.0}
        assert reading.events == {"processor 0 too hot": 4}

    def test_memory_has_its_own_counter_on_servers(self, tmp_path: Path) -> None:
        found, _ = open_rapl(plant(tmp_path, {**rapl(0, 0, dram=0), **rapl(1, 0)}))
        assert found is not None and found.name == "RAPL package-0 + dram of 0 + package-1"

    def test_the_counter_starts_again(self, tmp_path: Path) -> None:
        found, _ = open_rapl(plant(tmp_path, rapl(0, 9_000_000, span=10_000_000)))
        assert found is not None
        for value, joules in ((9_500_000, 0.5), (500_000, 1.5), (700_000, 1.7), (9_900_000, 10.9), (100_000, 11.1)):
            (tmp_path / RAPL_FILE).write_text(f"{value}\n")
            assert found.joules() == pytest.approx(joules)

    def test_power_is_the_mean_since_the_call_before(self, tmp_path: Path) -> None:
        opened, _ = open_rapl(plant(tmp_path, rapl(0, 0)))
        assert opened is not None
        times = iter([10.0, 12.0, 12.01])
        found = type(opened)(opened._counters, clock=lambda: next(times))
        (tmp_path / RAPL_FILE).write_text("30000000\n")
        assert found.watts() == pytest.approx(15.0)
        assert found.watts() == pytest.approx(15.0), "too soon for another one"

    def test_root_only_is_said_so_and_how_to_change_it(self, tmp_path: Path) -> None:
        plant(tmp_path, WORKSTATION)
        (tmp_path / RAPL_FILE).unlink()  # the tests may run as root, whom no mode keeps out
        telemetry = open_telemetry(tmp_path)
        assert telemetry.sensors == ()
        why = telemetry.sample().unavailable["power"]
        assert "only root" in why and "chmod a+r /sys/class/powercap/intel-rapl:0/energy_uj" in why


class TestNvml:
    def test_a_card(self, tmp_path: Path) -> None:
        library = FakeNvml(**CARD)
        with open_telemetry(plant(tmp_path, DESKTOP), nvml=library) as telemetry:
            (card,) = telemetry.sensors
            assert (card.name, card.covers) == ("NVML gpu (NVIDIA RTX 4090)", "GPU")
            assert (card.watts(), card.joules()) == (250.5, 7000.0)
            reading = telemetry.sample()
        assert reading.temperatures == {"gpu": 64.0}
        assert reading.clocks["gpu"].now == 2.52e9 and reading.clocks["gpu"].load == 0.75
        assert reading.throttled == ("gpu power limit", "gpu too hot (driver)")
        assert "throttling" not in reading.unavailable and library.closed

    def test_an_older_driver_has_the_older_name(self, tmp_path: Path) -> None:
        answers = dict(CARD)
        answers["nvmlDeviceGetCurrentClocksThrottleReasons"] = answers.pop("nvmlDeviceGetCurrentClocksEventReasons")
        reading = open_telemetry(plant(tmp_path, DESKTOP), nvml=FakeNvml(**answers)).sample()
        assert reading.throttled == ("gpu power limit", "gpu too hot (driver)")

    def test_what_a_card_does_not_support_is_not_0(self, tmp_path: Path) -> None:
        answers: dict[str, int | None] = dict.fromkeys(CARD)
        telemetry = open_telemetry(plant(tmp_path, DESKTOP), nvml=FakeNvml(**answers))
        reading = telemetry.sample()
        assert telemetry.sensors == () and reading.power == {} and reading.temperatures == {}
        assert "does not tell the card's power" in reading.unavailable["power"]
        assert "throttling" in reading.unavailable

    def test_several_cards_and_a_processor_are_apart(self, tmp_path: Path) -> None:
        telemetry = open_telemetry(plant(tmp_path, WORKSTATION), nvml=FakeNvml(cards=2, **CARD))
        assert [sensor.covers for sensor in telemetry.sensors] == ["GPU0", "GPU1", "processor"]

    def test_no_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> None:
            raise OSError(f"{name}: cannot open shared object file")

        monkeypatch.setattr(ctypes, "CDLL", missing)
        assert open_nvml() == (None, "the driver's library, libnvidia-ml.so.1, is not found")

    def test_a_library_without_a_driver(self) -> None:
        library = FakeNvml()
        library.nvmlInit_v2 = lambda: 9  # type: ignore[method-assign]
        assert open_nvml(library)[0] is None


def test_this_machine() -> None:
    """Whatever it has: figures or reasons, and nothing raises."""
    with open_telemetry() as telemetry:
        reading = telemetry.sample()
    assert set(reading.unavailable) >= {
        kind for kind in ("power", "temperatures", "clocks") if not getattr(reading, kind)
    }
