"""Energy, temperatures, clocks and throttling as a person reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeco.devices.telemetry import SensorEnergy, TelemetryReport

UNAVAILABLE = "unavailable"


def telemetry_facts(report: TelemetryReport) -> dict[str, str]:
    """Lines for a table of facts: what there is, and of the rest why not."""
    if "telemetry" in report.unavailable:
        return {"energy": missing(report.unavailable["telemetry"])}
    lines = {}
    for sensor in report.sensors:
        lines["energy" if len(report.sensors) == 1 else f"energy, {sensor.covers}"] = energy_text(sensor)
    if not report.sensors:
        lines["energy"] = missing(report.unavailable.get("power", "no sensor"))
    if report.mode is not None:
        lines["power mode"] = report.mode
    if report.temperatures:
        hottest = max(report.temperatures, key=lambda zone: report.temperatures[zone])
        lines["hottest"] = f"{report.temperatures[hottest]:.1f} °C ({hottest})"
    if report.clocks:
        name = "gpu" if "gpu" in report.clocks else next(iter(report.clocks))
        clock = report.clocks[name]
        load = "" if clock.load is None else f", {clock.load:.0%} busy"
        span = f"{clock.least / 1e6:.0f} to {clock.greatest / 1e6:.0f}, mean {clock.mean / 1e6:.0f} MHz"
        lines["clock"] = f"{name} {span}{load}"
    if report.throttling:
        lines["throttling"] = ", ".join(f"{cause} {count}×" for cause, count in report.throttling.items())
    elif "throttling" not in report.unavailable:
        lines["throttling"] = "none"
    return lines


def energy_text(sensor: SensorEnergy) -> str:
    """The energy of one sensor.

    Example:
        >>> from edgeco.devices.telemetry import SensorEnergy
        >>> energy_text(SensorEnergy("VDD_IN", "module", "integral", 30, 18.0, 6.0, 0.02, 4.5, 0.005))
        '20 mJ a frame, 5 mJ above idle; 6 W, idle 4.5 W (VDD_IN: module)'
    """
    where = f"({sensor.sensor}: {sensor.covers})"
    if sensor.joules is None or sensor.watts is None:
        return f"{UNAVAILABLE} {where}: {sensor.why}"
    figures = []
    if sensor.per_frame is not None:
        above = sensor.above_idle_per_frame
        beyond = "" if above is None else f", {joules_text(above)} above idle"
        figures.append(f"{joules_text(sensor.per_frame)} a frame{beyond}")
    idle = "" if sensor.idle_watts is None else f", idle {sensor.idle_watts:.3g} W"
    figures.append(f"{sensor.watts:.3g} W{idle}")
    return f"{'; '.join(figures)} {where}"


def joules_text(joules: float) -> str:
    """Energy with a unit that suits it.

    Example:
        >>> joules_text(1.25), joules_text(0.0004), joules_text(-0.002)
        ('1.25 J', '400 µJ', '-2 mJ')
    """
    for unit, scale in (("J", 1.0), ("mJ", 1e-3)):
        if abs(joules) >= scale:
            return f"{joules / scale:.3g} {unit}"
    return f"{joules / 1e-6:.3g} µJ"


def missing(why: str) -> str:
    """What is not there, and why."""
    return f"{UNAVAILABLE}: {why}"
