"""The power monitors of Jetson boards: INA3221 and INA238, by hwmon since JetPack 5, by iio before.

A rail that feeds others is the whole; where there is one, the others are not added to it. Names as NVIDIA's device
trees have them: https://docs.nvidia.com/jetson/archives/r36.3/DeveloperGuide (Platform Power and Performance).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeco.devices.system import read_number, read_text
from edgeco.devices.telemetry.reading import Draft

TOTALS = ("VIN", "VDD_IN", "POM_5V_IN", "5V_IN")
"""Rails that feed all others, in the order in which they are believed: Thor's carrier, modules, the Nano."""
FED_BY = {"VDDQ_VDD2_1V8AO": "VIN_SYS_5V0"}
"""Rails whose power another one measures too. AGX Orin's memory is fed from the 5 V rail, at whose voltage it is
measured."""
UNCONNECTED = "NC"


@dataclass(frozen=True)
class Rail:
    """One channel of a power monitor. Files hold mV and mA, or one of them the power itself in ``unit`` of a watt."""

    name: str
    chip: str
    power: Path | None
    unit: float
    voltage: Path
    current: Path

    def watts(self) -> float | None:
        """Power now; None if it cannot be read."""
        if self.power is not None and (power := read_number(self.power)) is not None:
            return power * self.unit
        millivolts, milliamperes = read_number(self.voltage), read_number(self.current)
        if millivolts is None or milliamperes is None:
            return None
        return millivolts * milliamperes * 1e-6


def find_rails(root: Path) -> tuple[Rail, ...]:
    """All connected rails, of all monitors of the board."""
    devices = root / "sys/bus/i2c/devices"
    found: list[Rail] = []
    for device in sorted(devices.glob("*")) if devices.is_dir() else ():
        chip = re.match(r"ina(3221|238)", (read_text(device / "name") or "").lower())
        if chip is None:
            continue
        place = f"{chip[0]} at {device.name}"
        for folder in sorted(device.glob("hwmon/hwmon*")):
            found += _hwmon(folder, place) if chip[0] == "ina3221" else _ina238(folder, place)
        for folder in sorted(device.glob("iio:device*")):
            found += _iio(folder, place)
    return tuple(found)


def _hwmon(folder: Path, chip: str) -> Iterator[Rail]:
    """Channels 1 to 3 are rails; 4 to 6 are the voltages over their shunts, 7 the sum of those."""
    for number in (1, 2, 3):
        name = read_text(folder / f"in{number}_label") or ""
        if not name or UNCONNECTED in name.split() or read_number(folder / f"in{number}_enable") == 0:
            continue
        power = folder / f"power{number}_input"
        files = (folder / f"in{number}_input", folder / f"curr{number}_input")
        yield Rail(name, chip, power if power.exists() else None, 1e-6, *files)


def _ina238(folder: Path, chip: str) -> Iterator[Rail]:
    """One channel: ``in0`` is the voltage over the shunt, ``in1`` the rail's; Thor's carrier measures its input."""
    name = read_text(folder / "in1_label") or read_text(folder / "power1_label") or "VIN"
    if UNCONNECTED not in name.split():
        yield Rail(name, chip, folder / "power1_input", 1e-6, folder / "in1_input", folder / "curr1_input")


def _iio(folder: Path, chip: str) -> Iterator[Rail]:
    for number in (0, 1, 2):
        name = read_text(folder / f"rail_name_{number}") or ""
        if not name or UNCONNECTED in name.split():
            continue
        voltage, current = folder / f"in_voltage{number}_input", folder / f"in_current{number}_input"
        yield Rail(name, chip, folder / f"in_power{number}_input", 1e-3, voltage, current)


class BoardPower:
    """The power of a Jetson: its input rail where one is measured, else the sum of rails that do not overlap.

    Example:
        >>> BoardPower.of(()) is None
        True
    """

    covers = "module"

    def __init__(self, rails: tuple[Rail, ...]) -> None:
        self.counted = rails
        chips = ", ".join(dict.fromkeys(rail.chip for rail in rails))
        self.name = f"{' + '.join(rail.name for rail in rails)} ({chips})"
        if rails[0].name == "VIN":
            self.covers = "board"

    @staticmethod
    def of(rails: tuple[Rail, ...]) -> BoardPower | None:
        """Which of the rails make up the whole; None if there are none."""
        names = {rail.name for rail in rails}
        for total in TOTALS:
            if total in names:
                return BoardPower(tuple(rail for rail in rails if rail.name == total)[:1])
        whole = tuple(rail for rail in rails if FED_BY.get(rail.name) not in names)
        return BoardPower(whole) if whole else None

    def watts(self) -> float | None:
        """Watts now; None unless every rail that counts can be read."""
        power = [rail.watts() for rail in self.counted]
        known = [watts for watts in power if watts is not None]
        return sum(known) if len(known) == len(power) else None

    def joules(self) -> None:
        """These monitors measure power; nothing counts the energy."""


class Rails:
    """Every rail by itself."""

    def __init__(self, rails: tuple[Rail, ...]) -> None:
        self._rails = rails

    def read(self, draft: Draft) -> None:
        for rail in self._rails:
            watts = rail.watts()
            if watts is not None:
                draft.rails[rail.name] = watts
