"""Energy: integrals and counters against figures worked out by hand, and the thread that reads."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from boards import DESKTOP, plant
from sensors import ORIN_NANO_6, rapl

from edgeco.devices.telemetry import Telemetry, idle_power, not_measured, open_telemetry
from edgeco.devices.telemetry.report import Ledger
from edgeco.errors import SpecError


class Sensor:
    """A sensor by hand: watts, and joules where it has a counter."""

    name, covers = "hand", "bench"

    def __init__(self, watts: float | None = None, joules: float | None = None) -> None:
        self.now, self.counted = watts, joules

    def watts(self) -> float | None:
        return self.now

    def joules(self) -> float | None:
        return self.counted


class TestLedger:
    def test_power_is_integrated_by_trapezoids_over_the_true_times(self) -> None:
        ledger = Ledger()
        for at, watts in ((0.0, 10.0), (1.0, 20.0), (1.5, 20.0), (3.5, 0.0)):
            ledger.add(at, watts, None)
        found = ledger.energy("s", "c", frames=10, idle={"s": 4.0})
        assert (found.method, found.readings) == ("integral", 4)
        assert found.joules == pytest.approx(15 + 10 + 20) and found.watts == pytest.approx(45 / 3.5)
        assert found.per_frame == pytest.approx(4.5)
        assert found.above_idle_per_frame == pytest.approx((45 - 14) / 10)

    def test_the_shortest_block_is_not_0(self) -> None:
        """A block shorter than the sensor's period has two readings, at its ends."""
        ledger = Ledger()
        ledger.add(0.0, 6.0, None)
        ledger.add(0.01, 6.0, None)
        assert ledger.energy("s", "c", 1, None).per_frame == pytest.approx(0.06)

    def test_a_counter_is_believed(self) -> None:
        ledger = Ledger()
        for at, joules in ((0.0, 100.0), (2.0, 130.0)):
            ledger.add(at, None, joules)
        found = ledger.energy("s", "c", 3, {})
        assert (found.method, found.joules, found.watts, found.per_frame) == ("counter", 30.0, 15.0, 10.0)
        assert found.idle_watts is None and found.above_idle_per_frame is None

    @pytest.mark.parametrize(
        ("readings", "why"),
        [
            ([(0.0, None, 5.0), (0.001, None, 5.0)], "did not move"),
            ([(0.0, None, 5.0), (1.0, None, 2.0)], "set back"),
            ([(0.0, None, None), (1.0, None, None)], "could not be read"),
            ([(0.0, 5.0, None), (1.0, 5.0, None), (2.0, None, None), (4.0, 5.0, None)], "only 25% of the time"),
            ([(0.0, 5.0, None)], "could not be read"),
        ],
    )
    def test_what_is_not_known_is_unavailable_and_never_0(
        self, readings: list[tuple[float, float | None, float | None]], why: str
    ) -> None:
        ledger = Ledger()
        for reading in readings:
            ledger.add(*reading)
        found = ledger.energy("s", "c", 10, {"s": 1.0})
        assert (found.joules, found.watts, found.per_frame, found.above_idle_per_frame) == (None,) * 4
        assert found.why is not None and why in found.why

    def test_a_reading_that_fails_once_leaves_a_gap_that_is_filled(self) -> None:
        ledger = Ledger()
        for second in range(101):
            ledger.add(float(second), None if second == 50 else 8.0, None)
        assert ledger.energy("s", "c", None, None).joules == pytest.approx(800.0)


class TestMeter:
    def test_a_block_of_work(self) -> None:
        sensor = Sensor(watts=12.0)
        before = threading.active_count()
        with Telemetry([sensor]).meter(hertz=200) as meter:
            time.sleep(0.1)
            assert meter.report().seconds > 0, "it can be asked in between"
        report = meter.report(frames=6, idle={"hand": 2.0})
        (found,) = report.sensors
        assert threading.active_count() == before
        assert found.readings >= 3 and found.watts == pytest.approx(12.0)
        assert found.joules is not None and 0.5 < found.joules <= 12.0 * report.seconds
        assert found.above_idle_per_frame == pytest.approx(found.joules / 6 * 10 / 12)
        assert meter.report(frames=6) == meter.report(frames=6)

    def test_a_counter_is_not_integrated(self, tmp_path: Path) -> None:
        telemetry = open_telemetry(plant(tmp_path, {**DESKTOP, **rapl(0, 999_000_000, span=1_000_000_000)}))
        with telemetry.meter(hertz=1) as meter:
            (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("4000000\n")
        (found,) = meter.report(frames=5).sensors
        assert (found.sensor, found.method) == ("RAPL package-0", "counter")
        assert found.joules == pytest.approx(5.0) and found.per_frame == pytest.approx(1.0)

    def test_the_rest_of_a_board(self, tmp_path: Path) -> None:
        telemetry = open_telemetry(plant(tmp_path, ORIN_NANO_6))
        with telemetry.meter() as meter:
            (tmp_path / "sys/class/thermal/thermal_zone1/temp").write_text("71000\n")
            (tmp_path / "sys/class/hwmon/hwmon3/oc3_event_cnt").write_text("40\n")
            (tmp_path / "sys/class/devfreq/17000000.gpu/cur_freq").write_text("1020000000\n")
            meter.read_rest()
            (tmp_path / "sys/class/thermal/thermal_zone1/temp").write_text("60000\n")
        report = meter.report(frames=1)
        assert report.temperatures["gpu-thermal"] == 71.0
        assert report.throttling == {"over-current oc3": 3}, "since the block began"
        assert (report.clocks["gpu"].least, report.clocks["gpu"].greatest) == (306e6, 1020e6)
        assert (report.mode, report.unavailable) == ("25W", {})
        assert report.sensors[0].watts == pytest.approx(6.0)
        assert json.loads(json.dumps(report.to_json()))["sensors"][0]["covers"] == "module"

    def test_a_sensor_that_goes_away_in_the_middle(self, tmp_path: Path) -> None:
        with open_telemetry(plant(tmp_path, ORIN_NANO_6)).meter(hertz=100) as meter:
            (tmp_path / "sys/bus/i2c/devices/1-0040/hwmon/hwmon1/curr1_input").unlink()
            time.sleep(0.05)
        (found,) = meter.report(frames=1).sensors
        assert found.joules is None and found.why is not None

    def test_no_sensor_is_unavailable(self, tmp_path: Path) -> None:
        telemetry = open_telemetry(plant(tmp_path, DESKTOP))
        with telemetry.meter() as meter:
            pass
        report = meter.report(frames=100)
        assert report.sensors == () and "RAPL" in report.unavailable["power"]
        start = time.monotonic()
        assert idle_power(telemetry, 30.0) == {} and time.monotonic() - start < 10

    def test_idle_power(self) -> None:
        assert idle_power(Telemetry([Sensor(watts=3.5)]), 0.02) == {"hand": pytest.approx(3.5)}

    def test_a_rate_that_makes_no_sense(self) -> None:
        with pytest.raises(SpecError, match="at most 1000"):
            Telemetry([]).meter(hertz=0)

    def test_an_exception_of_the_work_passes_and_ends_the_thread(self) -> None:
        before = threading.active_count()
        with pytest.raises(KeyError), Telemetry([Sensor(1.0)]).meter():
            raise KeyError
        assert threading.active_count() == before


def test_a_report_of_nothing() -> None:
    assert not_measured("it was not asked for").to_json()["unavailable"] == {"telemetry": "it was not asked for"}
