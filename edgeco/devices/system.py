"""What Linux says of the machine it runs on, read from its files; a root other than ``/`` stands for another one."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

_L4T = re.compile(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)")
_MODE = re.compile(r"POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>")


@dataclass(frozen=True)
class Memory:
    """Bytes of memory, and of what a new program could have of it."""

    total: int
    available: int


@dataclass(frozen=True)
class PowerMode:
    """A Jetson's power mode; ``modes`` are all it knows, name by number."""

    number: int
    name: str | None
    modes: dict[int, str]

    @property
    def fastest(self) -> int | None:
        """The mode without a limit, None where the board names none."""
        unlimited = [number for number, name in self.modes.items() if name.upper().startswith("MAXN")]
        return unlimited[0] if unlimited else None


def read_text(path: Path) -> str | None:
    """A small file of the system, None if it cannot be read; device-tree texts end with a zero byte."""
    try:
        return path.read_bytes()[:1_000_000].decode("utf-8", "replace").rstrip("\0\n ")
    except OSError:
        return None


def read_number(path: Path) -> int | None:
    """A whole number in a file of the system; None if it cannot be read or is none."""
    text = read_text(path)
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def device_tree(root: Path, name: str) -> list[str]:
    """The texts of a property of the device tree's root: ``model``, ``compatible``."""
    text = read_text(root / "proc/device-tree" / name) or read_text(root / "sys/firmware/devicetree/base" / name)
    return text.split("\0") if text else []


def l4t(root: Path) -> str | None:
    """Release of a Jetson's Linux, as "36.4.3"."""
    found = _L4T.search(read_text(root / "etc/nv_tegra_release") or "")
    return f"{found[1]}.{found[2]}" if found else None


def processor(root: Path) -> tuple[str, int]:
    """The processor's name as far as it is told, and how many threads it runs at once."""
    text = read_text(root / "proc/cpuinfo") or ""
    fields = [line.split(":", 1) for line in text.splitlines() if ":" in line]
    told = {key.strip().lower(): value.strip() for key, value in fields}
    count = sum(key.strip().lower() == "processor" and value.strip().isdigit() for key, value in fields)
    name = told.get("model name") or told.get("hardware") or _arm_core(told.get("cpu part"))
    return name or f"{platform.machine()} processor", count


_ARM_CORES = {
    "0xd03": "Arm Cortex-A53",
    "0xd08": "Arm Cortex-A72",
    "0xd0b": "Arm Cortex-A76",
    "0xd42": "Arm Cortex-A78AE",
}


def _arm_core(part: str | None) -> str | None:
    return _ARM_CORES.get(part or "", f"Arm core {part}" if part else None)


def memory(root: Path) -> Memory | None:
    """The system's memory."""
    text = read_text(root / "proc/meminfo") or ""
    sizes = {m[1]: int(m[2]) * 1024 for m in re.finditer(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    if "MemTotal" not in sizes:
        return None
    return Memory(sizes["MemTotal"], sizes.get("MemAvailable", sizes.get("MemFree", 0)))


def power_mode(root: Path) -> PowerMode | None:
    """A Jetson's power mode, as its service keeps it; None elsewhere."""
    status = re.search(r"pmode:0*(\d+)", read_text(root / "var/lib/nvpmodel/status") or "")
    if status is None:
        return None
    modes = {int(m[1]): m[2] for m in _MODE.finditer(read_text(root / "etc/nvpmodel.conf") or "")}
    return PowerMode(int(status[1]), modes.get(int(status[1])), modes)


def gpu_clock(root: Path) -> tuple[int, int] | None:
    """Present and greatest clock of a Jetson's GPU in Hz."""
    for folder in gpu_folders(root):
        now, most = (read_number(folder / name) for name in ("cur_freq", "max_freq"))
        if now is not None and most is not None:
            return now, most
    return None


_GPUS = re.compile(r"gpu|g[mpv]\d\d[a-z]|ga10b")


def gpu_folders(root: Path) -> list[Path]:
    """Where Linux keeps the clocks of a Jetson's GPU: ``17000000.gpu``, before JetPack 6 ``17000000.ga10b``.

    Thor has one for its graphics clusters and one for video, ``gpu-gpc-0`` and ``gpu-nvd-0``, in this order.
    """
    folder = root / "sys/class/devfreq"
    return sorted(path for path in folder.glob("*") if _GPUS.search(path.name)) if folder.is_dir() else []


def containered(root: Path) -> bool:
    """Whether this is a container, which sees the board's files only where they are mounted."""
    return (root / ".dockerenv").exists() or (root / "run/.containerenv").exists()
