"""Folders that stand for the file systems of other machines, with what their Linux says of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

ORIN_NANO = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0",
    "proc/meminfo": "MemTotal:        7802928 kB\nMemFree:         2000000 kB\nMemAvailable:    5120000 kB\n",
    "proc/cpuinfo": "".join(f"processor\t: {i}\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n\n" for i in range(6)),
    "var/lib/nvpmodel/status": "pmode:0001 fmode:fanNull\n",
    "etc/nvpmodel.conf": (
        "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"
    ),
    "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
}
THOR = {
    "etc/nv_tegra_release": "# R38 (release), REVISION: 2.0, GCID: 41844464, BOARD: generic, EABI: aarch64\n",
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p4071-0000+p3834-0008\0nvidia,p3834-0008\0nvidia,tegra264\0",
    "proc/meminfo": "MemTotal:      128820000 kB\nMemAvailable:  120000000 kB\n",
    "proc/cpuinfo": "".join(f"processor\t: {i}\nCPU part\t: 0xd83\n\n" for i in range(14)),
}
XAVIER = {
    "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64\n",
    "proc/device-tree/model": "Jetson-AGX\0",
    "proc/device-tree/compatible": "nvidia,p2822-0000+p2888-0001\0nvidia,tegra194\0",
    "proc/meminfo": "MemTotal:       32000000 kB\nMemAvailable:   30000000 kB\n",
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 0 (v8l)\n",
}
DESKTOP = {
    "proc/meminfo": "MemTotal:       65000000 kB\nMemFree:        50000000 kB\n",
    "proc/cpuinfo": "".join(f"processor\t: {i}\nmodel name\t: A fast processor\n\n" for i in range(16)),
}


def plant(root: Path, files: dict[str, str], without: Sequence[str] = ()) -> Path:
    """Write a machine's files under `root`."""
    for name, text in files.items():
        if name not in without:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return root
