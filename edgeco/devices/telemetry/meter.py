"""A meter of energy: a thread that reads the sensors while the work is done."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from edgeco.devices.telemetry.reading import Clock, Reading
from edgeco.devices.telemetry.report import ClockRange, Ledger, TelemetryReport
from edgeco.errors import SpecError

if TYPE_CHECKING:
    from edgeco.devices.telemetry.telemetry import Telemetry

HERTZ = 10.0
"""Readings of power a second: the monitors of Jetsons average over less, and a reading costs a millisecond."""
SLOW = 1.0
"""Seconds between readings of everything else; temperatures do not change faster."""


class EnergyMeter:
    """Measures a ``with`` block; the report can be asked for during it too, and after it as often as needed.

    The first and the last reading are taken at the block's ends, so that a short block is measured as well.

    Args:
        telemetry: the sensors.
        hertz: readings of power a second.

    Example::

        with open_telemetry().meter() as meter:
            for frame in frames:
                stream.step(frame)
        meter.report(frames=len(frames)).sensors
    """

    def __init__(self, telemetry: Telemetry, hertz: float = HERTZ) -> None:
        if not 0 < hertz <= 1000:
            raise SpecError(f"a meter reads more than 0 and at most 1000 times a second, not {hertz}")
        self._telemetry, self._hertz = telemetry, hertz
        self._ledgers = {sensor.name: Ledger() for sensor in telemetry.sensors}
        self._rest = _Rest()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._start = self._end = telemetry.clock()

    def __enter__(self) -> EnergyMeter:
        self._start = self._end = self._telemetry.clock()
        self.read_power()
        self.read_rest()
        self._thread = threading.Thread(target=self._watch, name="edgeco-energy", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.read_power()
        self.read_rest()

    def read_power(self) -> None:
        """Take one reading of every power sensor now; the thread does it by itself."""
        with self._lock:
            for sensor in self._telemetry.sensors:
                joules = sensor.joules()
                # A counter is exact without it; only where there is none does the power have to be integrated.
                watts = sensor.watts() if joules is None else None
                self._end = self._telemetry.clock()
                self._ledgers[sensor.name].add(self._end, watts, joules)
            self._end = self._telemetry.clock()

    def read_rest(self) -> None:
        """Take one reading of everything else now."""
        reading = self._telemetry.sample()
        with self._lock:
            self._rest.add(reading)

    def _watch(self) -> None:
        clock = self._telemetry.clock
        period, slow = 1 / self._hertz, clock() + SLOW
        due = clock() + period
        while not self._stop.wait(max(due - clock(), 0.0)):
            self.read_power()
            if clock() >= slow:
                self.read_rest()
                slow = clock() + SLOW
            due = max(due + period, clock())  # readings that come too late are left out, not made up for

    def report(self, frames: int | None = None, idle: Mapping[str, float] | None = None) -> TelemetryReport:
        """What was measured so far.

        Args:
            frames: how many frames were processed, for the energy of one; None or 0 if not known.
            idle: watts by sensor before the work, from ``idle_power``.
        """
        telemetry = self._telemetry
        with self._lock:
            sensors = tuple(
                self._ledgers[sensor.name].energy(sensor.name, sensor.covers, frames, idle)
                for sensor in telemetry.sensors
            )
            missing = self._rest.unavailable
            missing.pop("power", None)  # a counter may give energy without giving power yet
            if telemetry.why_no_power is not None:
                missing["power"] = telemetry.why_no_power
            return TelemetryReport(
                seconds=self._end - self._start,
                frames=frames,
                hertz=self._hertz,
                sensors=sensors,
                temperatures=dict(self._rest.hottest),
                clocks=self._rest.clocks(),
                throttling=self._rest.throttling(),
                mode=telemetry.mode.name or str(telemetry.mode.number) if telemetry.mode is not None else None,
                unavailable=missing,
            )


class _Rest:
    """What is kept of readings besides energy, in constant memory."""

    def __init__(self) -> None:
        self.hottest: dict[str, float] = {}
        self._missing: dict[str, str] | None = None
        self._clocks: dict[str, tuple[float, float, float, int, float | None]] = {}
        self._before: dict[str, int] = {}
        self._events: dict[str, int] = {}
        self._in_force: dict[str, int] = {}

    def add(self, reading: Reading) -> None:
        for zone, degrees in reading.temperatures.items():
            self.hottest[zone] = max(self.hottest.get(zone, degrees), degrees)
        for name, clock in reading.clocks.items():
            self._clocks[name] = _widened(self._clocks.get(name), clock)
        for cause, count in reading.events.items():
            self._events[cause] = self._events.get(cause, 0) + max(count - self._before.get(cause, count), 0)
            self._before[cause] = count
        for cause in reading.throttled:
            self._in_force[cause] = self._in_force.get(cause, 0) + 1
        before = reading.unavailable if self._missing is None else self._missing
        self._missing = {kind: why for kind, why in before.items() if kind in reading.unavailable}

    @property
    def unavailable(self) -> dict[str, str]:
        """What no reading had."""
        return dict(self._missing or {})

    def clocks(self) -> dict[str, ClockRange]:
        return {
            name: ClockRange(least, total / count, most, load / count if load is not None else None)
            for name, (least, total, most, count, load) in self._clocks.items()
        }

    def throttling(self) -> dict[str, int]:
        return {cause: count for cause, count in {**self._events, **self._in_force}.items() if count}


def _widened(
    known: tuple[float, float, float, int, float | None] | None, clock: Clock
) -> tuple[float, float, float, int, float | None]:
    if known is None:
        return clock.now, clock.now, clock.now, 1, clock.load
    least, total, most, count, load = known
    loads = load + clock.load if load is not None and clock.load is not None else None
    return min(least, clock.now), total + clock.now, max(most, clock.now), count + 1, loads


def idle_power(telemetry: Telemetry, seconds: float) -> dict[str, float]:
    """Mean watts by sensor while this thread sleeps; empty, and at once, where there is no sensor."""
    if not telemetry.sensors or seconds <= 0:
        return {}
    with telemetry.meter() as meter:
        threading.Event().wait(seconds)
    return {sensor.sensor: sensor.watts for sensor in meter.report().sensors if sensor.watts is not None}
