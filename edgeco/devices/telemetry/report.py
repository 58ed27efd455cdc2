"""What a meter found: energy by sensor, the highest temperatures, clocks, what throttled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class SensorEnergy:
    """The energy that one sensor saw.

    Args:
        sensor: its name; ``covers`` is what its figure covers.
        method: "counter", the hardware's own count, or "integral" of the power that was read.
        readings: how many there were.
        joules, watts: energy of the whole block, and its mean power; None with the reason in ``why``.
        per_frame: joules of one frame; None where nothing was counted.
        idle_watts: power before the work; None if it was not measured.
        above_idle_per_frame: joules of one frame without what the device takes idle.
    """

    sensor: str
    covers: str
    method: str
    readings: int
    joules: float | None
    watts: float | None
    per_frame: float | None = None
    idle_watts: float | None = None
    above_idle_per_frame: float | None = None
    why: str | None = None


@dataclass(frozen=True)
class ClockRange:
    """Least, mean and greatest clock in Hz, mean load from 0 to 1 or None."""

    least: float
    mean: float
    greatest: float
    load: float | None


@dataclass(frozen=True)
class TelemetryReport:
    """What a device did in a block of time. What is not there is in ``unavailable`` with the reason, never 0.

    Args:
        seconds: length of the block; ``frames`` what was done in it, None if not told.
        hertz: readings a second that were asked for.
        sensors: energy; none if there is no sensor.
        temperatures: the highest, in degrees Celsius by zone.
        clocks: by what they drive.
        throttling: how often each cause occurred, or in how many readings it was in force; what never occurred is
            not named. Empty and not in ``unavailable`` means that nothing throttled.
        mode: a Jetson's power mode.
    """

    seconds: float
    frames: int | None
    hertz: float
    sensors: tuple[SensorEnergy, ...] = ()
    temperatures: dict[str, float] = field(default_factory=dict)
    clocks: dict[str, ClockRange] = field(default_factory=dict)
    throttling: dict[str, int] = field(default_factory=dict)
    mode: str | None = None
    unavailable: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def not_measured(why: str) -> TelemetryReport:
    """A report without figures, and why."""
    return TelemetryReport(0.0, None, 0.0, unavailable={"telemetry": why})


class Ledger:
    """Adds up the energy that one sensor sees. Feed it in the order of time.

    A hardware counter is believed before an integral. Power is integrated by trapezoids between readings; where a
    reading fails the gap counts as not covered, and too much of that makes the energy unavailable.
    """

    LEAST_COVERED = 0.9

    def __init__(self) -> None:
        self.readings = 0
        self._first: tuple[float, float] | None = None
        self._last: tuple[float, float] | None = None
        self._power: tuple[float, float] | None = None
        self._went_back = False
        self._integral = 0.0
        self._covered = 0.0
        self._start: float | None = None
        self._end = 0.0

    def add(self, at: float, watts: float | None, joules: float | None) -> None:
        """One reading at ``at`` seconds; what could not be read is None."""
        self._start = at if self._start is None else self._start
        self._end = at
        self.readings += watts is not None or joules is not None
        if joules is not None:
            self._first = self._first or (at, joules)
            self._went_back |= self._last is not None and joules < self._last[1]
            self._last = (at, joules)
        if watts is not None and self._power is not None:
            span = at - self._power[0]
            self._integral += span * (watts + self._power[1]) / 2
            self._covered += span
        self._power = None if watts is None else (at, watts)

    def energy(self, sensor: str, covers: str, frames: int | None, idle: Mapping[str, float] | None) -> SensorEnergy:
        """What was found; ``idle`` is the power before the work by sensor."""
        method, joules, span, why = self._joules()
        watts = joules / span if joules is not None else None
        before = (idle or {}).get(sensor)
        per_frame = above = None
        if joules is not None and frames:
            per_frame = joules / frames
            above = (joules - before * span) / frames if before is not None else None
        return SensorEnergy(sensor, covers, method, self.readings, joules, watts, per_frame, before, above, why)

    def _joules(self) -> tuple[str, float | None, float, str | None]:
        if self._first is not None and self._last is not None and not self._went_back:
            span = self._last[0] - self._first[0]
            moved = self._last[1] - self._first[1]
            if span > 0 and moved > 0:
                return "counter", moved, span, None
        whole = self._end - (self._start if self._start is not None else self._end)
        if self._covered <= 0:
            return ("counter" if self._first else "integral"), None, 0.0, self._nothing()
        if self._covered < self.LEAST_COVERED * whole:
            return "integral", None, 0.0, f"the sensor could be read for only {self._covered / whole:.0%} of the time"
        # What is missing is taken to be as the rest was.
        return "integral", self._integral * whole / self._covered, whole, None

    def _nothing(self) -> str:
        if self._first is None:
            return "the sensor could not be read"
        if self._went_back:
            return "the counter was set back meanwhile"
        return "the counter did not move in so short a time"
