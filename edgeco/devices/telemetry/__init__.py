"""Power, energy, temperatures, clocks and throttling of this device, as far as it has sensors for them.

Example::

    telemetry = open_telemetry()
    with telemetry.meter() as meter:
        work()
    print(meter.report(frames=100).sensors)  # empty, with the reason in ``unavailable``, where there is no sensor
"""

from edgeco.devices.telemetry.meter import EnergyMeter, idle_power
from edgeco.devices.telemetry.reading import Clock, Reading
from edgeco.devices.telemetry.report import SensorEnergy, TelemetryReport, not_measured
from edgeco.devices.telemetry.telemetry import Telemetry, open_telemetry

__all__ = [
    "Clock",
    "EnergyMeter",
    "Reading",
    "SensorEnergy",
    "Telemetry",
    "TelemetryReport",
    "idle_power",
    "not_measured",
    "open_telemetry",
]
