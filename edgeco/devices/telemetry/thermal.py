"""Temperatures, and what Linux itself says of throttling on a Jetson and on x86."""

from __future__ import annotations

import re
from pathlib import Path

from edgeco.devices.system import read_number, read_text
from edgeco.devices.telemetry.reading import Draft

COLDEST, HOTTEST = -60.0, 200.0
"""Degrees that a board may have. A zone that is switched off says -256."""


class Thermometers:
    """The thermal zones: ``cpu-thermal``, ``gpu-thermal``, ``tj-thermal``, …"""

    def __init__(self, root: Path) -> None:
        folder = root / "sys/class/thermal"
        if not any(folder.glob("thermal_zone*")):
            folder = root / "sys/devices/virtual/thermal"
        self._zones: list[tuple[str, Path]] = []
        names: set[str] = set()
        for zone in sorted(folder.glob("thermal_zone*"), key=_number):
            name = read_text(zone / "type") or zone.name
            # x86 has several zones of one type, such as acpitz.
            name = f"{name} {_number(zone)}" if name in names else name
            names.add(name)
            self._zones.append((name, zone / "temp"))

    def __len__(self) -> int:
        return len(self._zones)

    def read(self, draft: Draft) -> None:
        for name, path in self._zones:
            thousandths = read_number(path)
            if thousandths is not None and COLDEST <= thousandths / 1000 <= HOTTEST:
                draft.temperatures[name] = thousandths / 1000


class Throttling:
    """Over-current counters and throttle alerts of Jetson boards, thermal counters of x86 processors."""

    def __init__(self, root: Path) -> None:
        self._counters: list[tuple[str, Path]] = []
        for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
            if read_text(folder / "name") == "soctherm_oc":
                for path in sorted(folder.glob("oc*_event_cnt")):
                    # A limit that is only watched says nothing of how fast the board runs.
                    if read_number(folder / path.name.replace("_event_cnt", "_throt_en")) != 0:
                        self._counters.append((f"over-current {path.name.split('_')[0]}", path))
        for path in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/package_throttle_count"):
            package = read_number(path.parents[1] / "topology/physical_package_id") or 0
            name = f"processor {package} too hot"
            if name not in dict(self._counters):  # every core repeats its package's count
                self._counters.append((name, path))
        self._alerts = [
            (str(read_text(folder / "type")), folder / "cur_state")
            for folder in sorted((root / "sys/class/thermal").glob("cooling_device*"), key=_number)
            if (read_text(folder / "type") or "").endswith("throttle-alert")
        ]

    def __len__(self) -> int:
        return len(self._counters) + len(self._alerts)

    def read(self, draft: Draft) -> None:
        for name, path in self._counters:
            count = read_number(path)
            if count is not None:
                draft.events[name] = count
                draft.says_throttling = True
        for name, path in self._alerts:
            state = read_number(path)
            if state is not None:
                draft.says_throttling = True
                if state > 0:
                    draft.throttled.append(name)


def _number(path: Path) -> int:
    found = re.search(r"\d+$", path.name)
    return int(found[0]) if found else -1
