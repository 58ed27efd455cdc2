"""Which device this is: the board by its device tree, cards by their driver, the processor by what Linux says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeco.devices import system
from edgeco.devices.catalogue import find_board, find_gpu, find_profile
from edgeco.devices.child import Outcome, Probe, run_probe
from edgeco.devices.jetpack import release_of
from edgeco.devices.profile import Profile
from edgeco.errors import SpecError

ROOT = Path("/")


@dataclass(frozen=True)
class Gpu:
    """A GPU as its driver describes it; sizes in bytes, None where the driver does not say."""

    name: str
    compute_capability: str | None
    memory: int | None
    free: int | None


@dataclass(frozen=True)
class Device:
    """This device. ``why`` says in one sentence how it was told.

    ``profile`` is None where it is a board or a card that there is no profile of. ``jetpack`` is the last known release
    at or before the board's Linux.
    """

    title: str
    profile: Profile | None
    why: str
    processor: str
    threads: int
    memory: system.Memory | None
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    l4t: str | None = None
    jetpack: str | None = None
    container: bool = False

    @property
    def is_jetson(self) -> bool:
        """Whether it is a board of that family, with a profile or without."""
        return self.l4t is not None or (self.profile is not None and self.profile.family == "jetson")

    def to_json(self) -> dict[str, Any]:
        """Plain data; the profile by its name."""
        return {**asdict(self), "profile": self.profile.name if self.profile is not None else None}


def detect(root: Path | None = None, probe: Probe | None = None) -> Device:
    """Find out what this machine is.

    Args:
        root: where the system's files lie; another folder stands for another machine, whose GPUs are not asked.
        probe: how the driver of GPUs is asked; in a child process by default.
    """
    root, ask = root or ROOT, probe or (run_probe if root in (None, ROOT) else None)
    name, threads = system.processor(root)
    common: dict[str, Any] = {
        "processor": name,
        "threads": threads,
        "memory": system.memory(root),
        "container": system.containered(root),
    }
    linux = system.l4t(root)
    compatible = system.device_tree(root, "compatible")
    model = " ".join(system.device_tree(root, "model")[:1])
    if linux is not None or any("tegra" in entry for entry in compatible) or "Jetson" in model:
        return _jetson(model, compatible, linux, common)
    gpus, driver = _gpus(ask) if ask is not None else ((), None)
    if gpus:
        profile = find_gpu(gpus[0].name)
        known = "" if profile is not None else "; there is no profile of it"
        return Device(gpus[0].name, profile, f"the driver names it{known}", gpus=gpus, driver=driver, **common)
    why = "no board of the Jetson family and no NVIDIA GPU was found"
    return Device(name, find_profile("cpu"), why, **common)


def _jetson(model: str, compatible: list[str], linux: str | None, common: dict[str, Any]) -> Device:
    profile, why = find_board(compatible), "the device tree names its module"
    if profile is None:
        profile, why = _by_model(model, common["memory"])
    if not model and not compatible:
        why = "its Linux is a Jetson's; the device tree, which names the module, cannot be read (containers hide it)"
    release = release_of(linux) if linux is not None else None
    title = model or (profile.title if profile is not None else "Jetson")
    return Device(title, profile, why, l4t=linux, jetpack=release.jetpack if release else None, **common)


_MODELS: tuple[tuple[str, tuple[tuple[float, str], ...]], ...] = (
    ("orin nano", ((5, "jetson-orin-nano-4gb"), (99, "jetson-orin-nano-8gb"))),
    ("orin nx", ((9, "jetson-orin-nx-8gb"), (99, "jetson-orin-nx-16gb"))),
    ("agx orin", ((35, "jetson-agx-orin-32gb"), (99, "jetson-agx-orin-64gb"))),
    ("thor", ((70, "jetson-thor-t4000"), (999, "jetson-thor-t5000"))),
    ("xavier nx", ((99, "jetson-xavier-nx"),)),
    ("xavier", ((99, "jetson-agx-xavier"),)),
    ("tx2", ((99, "jetson-tx2"),)),
    ("jetson nano", ((99, "jetson-nano"),)),
)
"""Words of a model's name, and which of its modules it is by the most memory it can have, in GB."""


def _by_model(model: str, memory: system.Memory | None) -> tuple[Profile | None, str]:
    """A module that the device tree has another name for: its model's name, and how much memory there is."""
    for words, modules in _MODELS:
        if words not in model.lower():
            continue
        if len(modules) == 1:
            return find_profile(modules[0][1]), "the device tree's model names it"
        if memory is None:
            break
        fits = next((name for most, name in modules if memory.total / 1e9 <= most), None)
        if fits is not None:
            return find_profile(fits), "the device tree's model and the size of the memory name it"
    return None, "it is a Jetson that there is no profile of"


def _gpus(ask: Callable[[str], Any]) -> tuple[tuple[Gpu, ...], str | None]:
    for name in ("nvml", "nvidia-smi"):
        facts = ask(name).facts
        if facts.get("gpus"):
            return tuple(Gpu(**gpu) for gpu in facts["gpus"]), facts.get("version")
    return (), None


def profile_of_gpu(name: str, root: Path | None = None) -> Profile | None:
    """The profile of this machine's GPU, or of the board that it is part of; None where there is none.

    Args:
        name: what CUDA calls the GPU; boards of several sizes share one.
        root: as ``detect`` takes it.
    """
    device = detect(root, lambda _: Outcome())  # the driver has been asked already
    return device.profile if device.is_jetson else find_gpu(name)


def profile_of_this_device(device: Device | None = None) -> Profile:
    """The profile of this device.

    Raises:
        SpecError: there is none.
    """
    device = device or detect()
    if device.profile is None:
        raise SpecError(f"There is no profile of this device ({device.title}); name one of 'edgeco devices'.")
    return device.profile
