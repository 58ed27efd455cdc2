"""How many processor threads a step network should compute with, unless told."""

from __future__ import annotations

import os
from pathlib import Path

MOST = 8
"""A step network's layers are small: more threads wait for each other longer than they compute."""


def default_threads() -> int:
    """Physical cores this process may use: its affinity and its container's quota count, sibling threads do not."""
    allowed = _allowed()
    cores = min(_cores(allowed), _quota(len(allowed)))
    return max(1, min(cores, MOST))


def _allowed() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def _cores(allowed: frozenset[int], root: Path = Path("/sys/devices/system/cpu")) -> int:
    siblings = set()
    for cpu in allowed:
        try:
            siblings.add((root / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip())
        except OSError:
            siblings.add(str(cpu))
    return len(siblings)


def _quota(otherwise: int, path: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    try:
        quota, period = path.read_text().split()[:2]
        return max(1, int(quota) // int(period))
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return otherwise
