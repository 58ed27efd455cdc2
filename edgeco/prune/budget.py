"""What a pruned network may cost."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeco.errors import SpecError

KINDS = ("macs", "parameters", "state", "latency")
_UNITS = {"": 1.0, "%": 0.01, "k": 1e3, "M": 1e6, "G": 1e9, "KiB": 1024.0, "MiB": 1024.0**2, "B": 1.0}
_TIMES = {"": 1.0, "%": 0.01, "s": 1.0, "ms": 1e-3, "us": 1e-6}


@dataclass(frozen=True)
class Budget:
    """A limit on one figure of the network.

    Attributes:
        kind: "macs" (multiply-accumulates of the clip network for one clip), "parameters", "state" (bytes that a stream
            of the step network keeps) or "latency" (measured median seconds of a step on this machine).
        limit: the most it may be.
        relative: whether the limit is a share of what the network has before.
    """

    kind: str
    limit: float
    relative: bool

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SpecError(f"A budget of {self.kind!r} is not known; give one of {', '.join(KINDS)}.")
        if not self.limit > 0 or (self.relative and self.limit > 1):
            raise SpecError(f"The budget {self} cannot be used; give a share of at most 100 %, or a number above 0.")

    def __str__(self) -> str:
        return f"{self.kind}={100 * self.limit:.3g}%" if self.relative else f"{self.kind}={self.limit:g}"

    def allowed(self, before: float) -> float:
        """The most the figure may be, where it is `before` in the whole network."""
        return self.limit * before if self.relative else self.limit

    @classmethod
    def of(cls, given: Budget | float | str) -> Budget:
        """A budget from a share of the multiply-accumulates (0.5) or text: "macs=50%", "parameters=1.2M",
        "state=64KiB", "latency=5ms".

        Raises:
            SpecError: it cannot be read.
        """
        if isinstance(given, Budget):
            return given
        if not isinstance(given, str):
            return cls("macs", float(given), True)
        if re.fullmatch(r"0?\.[0-9]+", given.strip()):
            return cls("macs", float(given), True)
        kind, separator, text = given.partition("=")
        kind = {"params": "parameters"}.get(kind.strip(), kind.strip())
        if not separator:
            kind, text = "macs", given
        units = _TIMES if kind == "latency" else _UNITS
        found = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?\d+)?)\s*([A-Za-z%]*)\s*", text)
        if found is None or found[2] not in units:
            raise SpecError(
                f"The budget {given!r} cannot be read; write it as macs=50%, parameters=1.2M, state=64KiB, latency=5ms."
            )
        return cls(kind, float(found[1]) * units[found[2]], found[2] == "%")
