"""Energy as it is printed: a figure with its sensor, or "unavailable" with the reason, never 0."""

from __future__ import annotations

from edgeco.devices.telemetry import SensorEnergy, TelemetryReport, not_measured
from edgeco.devices.telemetry.report import ClockRange
from edgeco.show.telemetry import telemetry_facts


def test_a_board() -> None:
    sensor = SensorEnergy("VDD_IN (ina3221 at 1-0040)", "module", "integral", 30, 18.0, 6.0, 0.02, 4.5, 0.005)
    clocks = {"cpu0": ClockRange(1e9, 1e9, 1e9, None), "gpu": ClockRange(306e6, 800e6, 1020e6, 0.4)}
    temperatures = {"cpu-thermal": 51.2, "gpu-thermal": 64.0}
    report = TelemetryReport(3.0, 900, 10.0, (sensor,), temperatures, clocks, {"over-current oc3": 2}, "25W")
    assert telemetry_facts(report) == {
        "energy": "20 mJ a frame, 5 mJ above idle; 6 W, idle 4.5 W (VDD_IN (ina3221 at 1-0040): module)",
        "power mode": "25W",
        "hottest": "64.0 °C (gpu-thermal)",
        "clock": "gpu 306 to 1020, mean 800 MHz, 40% busy",
        "throttling": "over-current oc3 2×",
    }


def test_what_is_not_there() -> None:
    dead = SensorEnergy("RAPL package-0", "processor", "counter", 2, None, None, why="the counter did not move")
    assert telemetry_facts(TelemetryReport(1.0, 1, 10.0, (dead,))) == {
        "energy": "unavailable (RAPL package-0: processor): the counter did not move",
        "throttling": "none",
    }
    none = TelemetryReport(1.0, 1, 10.0, unavailable={"power": "no sensor", "throttling": "nothing tells of it"})
    assert telemetry_facts(none) == {"energy": "unavailable: no sensor"}
    assert telemetry_facts(not_measured("it was not asked for")) == {"energy": "unavailable: it was not asked for"}


def test_several_sensors_are_told_apart() -> None:
    card = SensorEnergy("NVML gpu (card)", "GPU", "counter", 9, 60.0, 20.0)
    host = SensorEnergy("RAPL package-0", "processor", "counter", 9, 30.0, 10.0, 0.3)
    lines = telemetry_facts(TelemetryReport(3.0, 100, 10.0, (card, host)))
    assert lines["energy, GPU"] == "20 W (NVML gpu (card): GPU)"
    assert lines["energy, processor"] == "300 mJ a frame; 10 W (RAPL package-0: processor)"
