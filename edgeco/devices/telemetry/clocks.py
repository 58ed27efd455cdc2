"""Clocks of the GPU and the processor as Linux keeps them, with the load of a Jetson's GPU."""

from __future__ import annotations

from pathlib import Path

from edgeco.devices.system import gpu_folders, read_number
from edgeco.devices.telemetry.reading import Clock, Draft


class Clocks:
    """devfreq of a Jetson's GPU (Hz, load in thousandths) and cpufreq (kHz) of each group of cores."""

    def __init__(self, root: Path) -> None:
        self._gpus = gpu_folders(root)
        self._cores = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy[0-9]*"), key=_policy)

    def __len__(self) -> int:
        return len(self._gpus) + len(self._cores)

    def read(self, draft: Draft) -> None:
        for index, folder in enumerate(self._gpus):
            now = read_number(folder / "cur_freq")
            if now is None:
                continue
            load = read_number(folder / "device/load")
            share = None if load is None else min(max(load / 1000, 0.0), 1.0)
            most = read_number(folder / "max_freq")
            draft.clocks["gpu" if index == 0 else folder.name] = Clock(float(now), _float(most, 1.0), share)
        for folder in self._cores:
            kilohertz = read_number(folder / "scaling_cur_freq")
            if kilohertz is not None:
                most = read_number(folder / "scaling_max_freq")
                draft.clocks[f"cpu{_policy(folder)}"] = Clock(kilohertz * 1e3, _float(most, 1e3))


def _float(value: int | None, unit: float) -> float | None:
    return None if value is None else value * unit


def _policy(folder: Path) -> int:
    return int(folder.name.removeprefix("policy"))
