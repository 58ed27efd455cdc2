"""Energy counters of x86 processors (RAPL), as Linux's powercap gives them, for Intel and AMD.

Linux lets only root read them since 5.10 (CVE-2020-8694).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from edgeco.devices.system import read_number, read_text

LEAST_SPAN = 0.05
"""Seconds between two readings that a power is computed from; the counters move every millisecond."""


class Counter:
    """A counter of microjoules that starts again at ``span``."""

    def __init__(self, path: Path, span: int | None) -> None:
        self._path, self._span = path, span
        self._last: int | None = None
        self._total = 0

    def joules(self) -> float | None:
        """Energy since the first call; None if it cannot be read. Ask more often than it wraps (minutes)."""
        value = read_number(self._path)
        if value is None:
            return None
        if self._last is not None:
            moved = value - self._last
            if moved < 0:
                if self._span is None:
                    return None
                moved += self._span
            self._total += max(moved, 0)
        self._last = value
        return self._total * 1e-6


class Rapl:
    """All processor packages and their memory, where that has a counter of its own. Safe to ask from any thread."""

    covers = "processor"

    def __init__(self, counters: dict[str, Counter], clock: Callable[[], float] = time.monotonic) -> None:
        self.name = f"RAPL {' + '.join(counters)}"
        self._counters, self._clock = counters, clock
        self._lock = threading.Lock()
        self._before: tuple[float, float] | None = None
        self._watts: float | None = None
        self.watts()

    def joules(self) -> float | None:
        """Energy since the first reading; None unless every counter can be read."""
        with self._lock:
            return self._read()

    def watts(self) -> float | None:
        """Mean power since the call before, if that is long enough ago; None until there were two."""
        with self._lock:
            now, energy = self._clock(), self._read()
            if energy is None:
                return None
            if self._before is not None and now - self._before[0] >= LEAST_SPAN:
                self._watts = (energy - self._before[1]) / (now - self._before[0])
            if self._before is None or now - self._before[0] >= LEAST_SPAN:
                self._before = (now, energy)
            return self._watts

    def _read(self) -> float | None:
        read = [counter.joules() for counter in self._counters.values()]
        known = [joules for joules in read if joules is not None]
        return sum(known) if len(known) == len(read) else None


def open_rapl(root: Path) -> tuple[Rapl | None, str]:
    """The counters, or None and why there are none."""
    folder = root / "sys/class/powercap"
    counters: dict[str, Counter] = {}
    for zone in sorted(folder.glob("intel-rapl:*")) if folder.is_dir() else ():
        name = read_text(zone / "name") or ""
        inside = zone.name.count(":") > 1  # intel-rapl:0:2 is a part of intel-rapl:0
        # Of the parts only the memory is not in the package's own figure; "psys" holds the packages again.
        if not (name.startswith("package") and not inside) and not (name == "dram" and inside):
            continue
        if read_number(zone / "energy_uj") is None:
            path = f"/sys/class/powercap/{zone.name}/energy_uj"
            return None, f"RAPL is there, but Linux lets only root read it: sudo chmod a+r {path}, until the next start"
        label = f"{name} of {zone.name.split(':')[1]}" if name == "dram" else name
        counters[label] = Counter(zone / "energy_uj", read_number(zone / "max_energy_range_uj"))
    if not counters:
        return None, "the processor has no energy counters that Linux shows (RAPL)"
    return Rapl(counters), ""
