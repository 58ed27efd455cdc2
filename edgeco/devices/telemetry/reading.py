"""What the sensors of a device say at one moment, and what a source of such figures must be able to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

KINDS = ("power", "temperatures", "clocks", "throttling")
"""What a reading holds; each is either there or named in ``unavailable`` with the reason."""


@dataclass(frozen=True)
class Clock:
    """A clock in Hz: as it is, the most it may be at present, and how busy what it drives is, from 0 to 1.

    ``most`` and ``load`` are None where the system does not say.
    """

    now: float
    most: float | None = None
    load: float | None = None


@dataclass(frozen=True)
class Reading:
    """All sensors at one moment.

    Args:
        at: ``time.monotonic()`` of the reading, in seconds.
        power: watts by sensor. No two sensors overlap on a Jetson; elsewhere GPU and processor are apart.
        rails: watts by rail of a board's power monitors. They overlap: a rail may feed another.
        temperatures: degrees Celsius by zone.
        clocks: by the name of what they drive.
        events: how often something throttled since the system started, by cause; only differences mean anything.
        throttled: causes that throttle just now.
        unavailable: why there is no figure, by kind; never is a missing figure 0.
    """

    at: float
    power: dict[str, float] = field(default_factory=dict)
    rails: dict[str, float] = field(default_factory=dict)
    temperatures: dict[str, float] = field(default_factory=dict)
    clocks: dict[str, Clock] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    throttled: tuple[str, ...] = ()
    unavailable: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass
class Draft:
    """A reading in the making: every part of the telemetry adds its figures."""

    rails: dict[str, float] = field(default_factory=dict)
    temperatures: dict[str, float] = field(default_factory=dict)
    clocks: dict[str, Clock] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    throttled: list[str] = field(default_factory=list)
    says_throttling: bool = False
    """Whether anything could tell of throttling, also if it told of none."""


class Part(Protocol):
    """A source of figures other than power."""

    def read(self, draft: Draft) -> None:
        """Add what can be read now; never raises for a sensor that is gone."""
        ...


class PowerSensor(Protocol):
    """A source of power or energy.

    ``name`` says which sensor it is, ``covers`` what its figure covers: "module", "GPU", "processor".
    """

    @property
    def name(self) -> str: ...

    @property
    def covers(self) -> str: ...

    def watts(self) -> float | None:
        """Power now; None if it cannot be told."""
        ...

    def joules(self) -> float | None:
        """Energy counted by the hardware itself since some time before; None if it has no such counter."""
        ...
