"""One thing the doctor looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["well", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, and what to do about it.

    ``note`` is worth knowing, or would make something possible; ``wrong`` keeps something from working that should.
    """

    subject: str
    state: State
    found: str
    remedy: str | None = None
