"""NVIDIA's cards through NVML: energy, power, temperature, clocks and why they are held back.

The library comes with the driver; it is spoken to with ctypes, so nothing needs to be installed.
"""

from __future__ import annotations

import ctypes
from typing import Any

from edgeco.devices.telemetry.reading import Clock, Draft

_GRAPHICS, _MEMORY = 0, 2
_TEMPERATURE_OF_GPU = 0
REASONS = {
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x20: "too hot (driver)",
    0x40: "too hot (hardware)",
    0x80: "power brake",
}
"""Bits of the clocks' event reasons that mean throttling; being idle and clocks set by the user do not."""


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class Nvml:
    """The library, once initialised. Every question is answered or None: what a card does not support is no error.

    Args:
        library: what ``ctypes.CDLL`` gave, or a stand-in with the same functions.
    """

    def __init__(self, library: Any) -> None:
        self._library = library

    def call(self, name: str, *arguments: Any) -> bool:
        """Whether the library has this function and it went well."""
        try:
            function = getattr(self._library, name)
        except AttributeError:  # an older or newer driver
            return False
        return int(function(*arguments)) == 0

    def whole(self, name: str, handle: Any, kind: type[Any] = ctypes.c_uint, *given: Any) -> int | None:
        """A whole number that a function writes through its last argument."""
        value = kind()
        return int(value.value) if self.call(name, handle, *given, ctypes.byref(value)) else None

    def cards(self) -> tuple[Card, ...]:
        """All cards that the driver shows this process."""
        count = ctypes.c_uint()
        if not self.call("nvmlDeviceGetCount_v2", ctypes.byref(count)):
            return ()
        found = []
        for index in range(count.value):
            handle, text = ctypes.c_void_p(), ctypes.create_string_buffer(96)
            if not self.call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle)):
                continue
            named = self.call("nvmlDeviceGetName", handle, text, ctypes.c_uint(96))
            name = text.value.decode(errors="replace") if named else "GPU"
            found.append(Card(self, handle, name, "gpu" if count.value == 1 else f"gpu{index}"))
        return tuple(found)

    def close(self) -> None:
        self.call("nvmlShutdown")


class Card:
    """One card: a power sensor, and a part of every reading."""

    def __init__(self, nvml: Nvml, handle: Any, title: str, short: str) -> None:
        self._nvml, self._handle, self._short = nvml, handle, short
        self.name = f"NVML {short} ({title})"
        self.covers = short.replace("gpu", "GPU")

    def watts(self) -> float | None:
        """The whole card, memory and all, averaged by the driver over a time that depends on the card."""
        milliwatts = self._nvml.whole("nvmlDeviceGetPowerUsage", self._handle)
        return None if milliwatts is None else milliwatts * 1e-3

    def joules(self) -> float | None:
        """Since the driver was loaded; from Volta on."""
        counted = self._nvml.whole("nvmlDeviceGetTotalEnergyConsumption", self._handle, ctypes.c_ulonglong)
        return None if counted is None else counted * 1e-3

    def read(self, draft: Draft) -> None:
        degrees = self._nvml.whole(
            "nvmlDeviceGetTemperature", self._handle, ctypes.c_uint, ctypes.c_uint(_TEMPERATURE_OF_GPU)
        )
        if degrees is not None:
            draft.temperatures[self._short] = float(degrees)
        use = _Utilization()
        known = self._nvml.call("nvmlDeviceGetUtilizationRates", self._handle, ctypes.byref(use))
        self._clock(draft, self._short, _GRAPHICS, use.gpu / 100 if known else None)
        self._clock(draft, f"{self._short} memory", _MEMORY, use.memory / 100 if known else None)
        # The name changed with driver 535; older drivers have only the old one.
        names = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
        answers = (self._nvml.whole(name, self._handle, ctypes.c_ulonglong) for name in names)
        bits = next((answer for answer in answers if answer is not None), None)
        if bits is not None:
            draft.says_throttling = True
            draft.throttled += [f"{self._short} {reason}" for bit, reason in REASONS.items() if bits & bit]

    def _clock(self, draft: Draft, name: str, kind: int, load: float | None) -> None:
        now, most = (
            self._nvml.whole(function, self._handle, ctypes.c_uint, ctypes.c_uint(kind))
            for function in ("nvmlDeviceGetClockInfo", "nvmlDeviceGetMaxClockInfo")
        )
        if now is not None:
            draft.clocks[name] = Clock(now * 1e6, None if most is None else most * 1e6, load)


def open_nvml(library: Any = None) -> tuple[Nvml | None, str]:
    """NVML, initialised, or None and why it is not there.

    Args:
        library: a stand-in; None for the driver's own.
    """
    if library is None:
        try:
            library = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return None, "the driver's library, libnvidia-ml.so.1, is not found"
    nvml = Nvml(library)
    if not nvml.call("nvmlInit_v2"):
        return None, "the driver's library, NVML, cannot be initialised"
    return nvml, ""
