"""Ask a library what it is, in a process of its own: a crash or a hang there is a finding, not an end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

TIMEOUT = 60.0
"""Seconds a library may take; a first import from a memory card can take many."""


@dataclass(frozen=True)
class Outcome:
    """What a probe said (``facts``), how its process ended if not well (``failure``), and the end of its messages."""

    facts: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None
    messages: str = ""

    @property
    def present(self) -> bool:
        """Whether the library is there, working or not."""
        return bool(self.facts.get("present"))

    @property
    def error(self) -> str | None:
        """What is wrong with it, None if it works or is not there."""
        said = self.facts.get("error")
        return self.failure or (str(said) if said and self.present else None)


Probe = Callable[[str], Outcome]


def run_probe(name: str, timeout: float = TIMEOUT) -> Outcome:
    """Run one of ``probe.PROBES`` in a child of this interpreter that imports from where this one does.

    Args:
        name: which.
        timeout: seconds until the child is ended.
    """
    program = files("edgeco.devices").joinpath("probe.py").read_text(encoding="utf-8")
    command = [sys.executable, "-c", program, json.dumps(sys.path), name]
    try:
        ran = subprocess.run(command, capture_output=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as late:
        facts = _facts(late.stdout or b"")
        return Outcome(facts, f"it gave no answer within {timeout:g} s", _text(late.stderr or b""))
    return Outcome(_facts(ran.stdout), _ending(ran.returncode, ran.stderr), _text(ran.stderr))


def _facts(output: bytes) -> dict[str, Any]:
    """All facts together; the last line may have been cut off by a crash."""
    found: dict[str, Any] = {}
    for line in output.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict):
            found |= said
    return found


def _ending(code: int, messages: bytes) -> str | None:
    if code == 0:
        return None
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"it crashes ({name})"
    last = _text(messages).splitlines()
    return last[-1] if last else f"its process ended with {code}"


def _text(messages: bytes) -> str:
    return messages.decode(errors="replace").strip()[-2000:]
