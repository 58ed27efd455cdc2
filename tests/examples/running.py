"""Runs an example as a reader of its README would: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
NETWORK = ROOT / "edgeco" / "models" / "bundles" / "camera-motion.edgeco"
MOTION = "pattern://motion?size=64x48&fps=12.5&script=still:20,pan-left:20,zoom-in:20"
"""Pictures of the network's own size, which need no OpenCV."""


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def start(example: str, *arguments: str, **more: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    return subprocess.Popen(command, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(example: str, *arguments: str, **more: str) -> str:
    """What an example that must succeed printed."""
    process = start(example, *arguments, **more)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, f"{output}\n{errors}"
    return output
