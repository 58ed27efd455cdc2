"""All sensors of this device, opened once and read together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from edgeco.devices.child import run_probe
from edgeco.devices.system import PowerMode, l4t, power_mode
from edgeco.devices.telemetry.clocks import Clocks
from edgeco.devices.telemetry.meter import HERTZ, EnergyMeter
from edgeco.devices.telemetry.nvml import open_nvml
from edgeco.devices.telemetry.rails import BoardPower, Rails, find_rails
from edgeco.devices.telemetry.rapl import open_rapl
from edgeco.devices.telemetry.reading import KINDS, Draft, Part, PowerSensor, Reading
from edgeco.devices.telemetry.thermal import Thermometers, Throttling

_DEFAULT_MISSING = {
    "power": "this device has no power sensor that edgeco knows",
    "temperatures": "Linux shows no temperatures here",
    "clocks": "Linux shows no clocks here",
    "throttling": "nothing here tells of throttling",
}


class Telemetry:
    """The sensors of a device. Readings may be taken from any thread; ``close`` ends what had to be opened.

    Args:
        sensors: of power or energy; no two overlap.
        parts: what gives the other figures.
        missing: why there are none, by kind.
        mode: a Jetson's power mode.
    """

    def __init__(
        self,
        sensors: Sequence[PowerSensor],
        parts: Sequence[Part] = (),
        missing: dict[str, str] | None = None,
        mode: PowerMode | None = None,
        *,
        close: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sensors = tuple(sensors)
        self.mode = mode
        self.clock = clock
        self._parts = tuple(parts)
        self._missing = {**_DEFAULT_MISSING, **(missing or {})}
        self._close = close

    @property
    def why_no_power(self) -> str | None:
        """Why power is unavailable; None if there is a sensor."""
        return None if self.sensors else self._missing["power"]

    def sample(self) -> Reading:
        """Read every sensor once: some milliseconds on a Jetson, whose sensors lie behind slow buses."""
        draft = Draft()
        for part in self._parts:
            part.read(draft)
        power = {sensor.name: watts for sensor in self.sensors if (watts := sensor.watts()) is not None}
        known = {
            "power": bool(power),
            "temperatures": bool(draft.temperatures),
            "clocks": bool(draft.clocks),
            "throttling": draft.says_throttling,
        }
        missing = {**self._missing, "power": "its sensors give no figure now"} if self.sensors else self._missing
        return Reading(
            at=self.clock(),
            power=power,
            rails=draft.rails,
            temperatures=draft.temperatures,
            clocks=draft.clocks,
            events=draft.events,
            throttled=tuple(draft.throttled),
            unavailable={kind: missing[kind] for kind in KINDS if not known[kind]},
        )

    def meter(self, hertz: float = HERTZ) -> EnergyMeter:
        """A meter of energy over a ``with`` block, that looks ``hertz`` times a second."""
        return EnergyMeter(self, hertz)

    def close(self) -> None:
        """Release the driver's library; readings after this have no figures of it."""
        if self._close is not None:
            self._close()
            self._close = None

    def __enter__(self) -> Telemetry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_telemetry(root: Path | str = "/", *, nvml: Any = None) -> Telemetry:
    """Find the sensors of this device. Never fails: what is not there is said in each reading's ``unavailable``.

    Args:
        root: where the system's files lie; another folder stands for another machine, whose GPUs are not asked.
        nvml: a stand-in for the driver's library.
    """
    root = Path(root)
    rails = find_rails(root)
    board = BoardPower.of(rails)
    if board is not None or l4t(root) is not None:
        # NVML is there on newer boards and supports nothing but the name.
        why = "no INA3221 or INA238 under /sys/bus/i2c: the board has none, or a container hides it"
        sensors: list[PowerSensor] = [board] if board is not None else []
        return Telemetry(sensors, _parts(root, Rails(rails)), {"power": why}, power_mode(root))
    rapl, no_rapl = open_rapl(root)
    library, no_nvml = _open_nvml(root, nvml)
    cards = library.cards() if library is not None else ()
    sensors = [card for card in cards if card.watts() is not None or card.joules() is not None]
    if rapl is not None:
        sensors.append(rapl)
    if cards and not sensors:
        no_nvml = "the driver does not tell the card's power"
    why = "; ".join(dict.fromkeys(reason for reason in (no_nvml, no_rapl) if reason))
    close = library.close if library is not None else None
    return Telemetry(sensors, [*cards, *_parts(root)], {"power": why} if why else None, close=close)


def _parts(root: Path, *first: Part) -> list[Part]:
    return [*first, Thermometers(root), Clocks(root), Throttling(root)]


def _open_nvml(root: Path, library: Any) -> tuple[Any, str]:
    """NVML where a driver is loaded, after another process has seen it answer: a broken one ends the process."""
    if library is not None:
        return open_nvml(library)
    if not any((root / name).exists() for name in ("dev/nvidiactl", "dev/dxg")):
        return None, "no driver of NVIDIA is loaded"
    if root != Path("/"):
        return None, "another machine's driver cannot be asked"
    told = run_probe("nvml")
    if told.error or not told.facts.get("gpus"):
        return None, f"NVML gives no card ({told.error or 'it names none'})"
    return open_nvml()
