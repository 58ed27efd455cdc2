"""What is installed on this device, whether it works together, and what to do where it does not."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeco.devices import libraries, system
from edgeco.devices.child import Outcome, Probe, run_probe
from edgeco.devices.detect import ROOT, Device, detect
from edgeco.devices.finding import Finding
from edgeco.devices.jetpack import release_of
from edgeco.errors import EngineError
from edgeco.files import CACHE, cache_folder

ASKED = ("numpy", "onnxruntime", "cv2", "tensorrt", "cuda", "cuda.bindings", "pycuda")
SCARCE = 2 * 2**30
"""Bytes of free memory below which compiling for a GPU is likely to be ended by the system."""


@dataclass(frozen=True)
class Examination:
    """All findings of one device."""

    device: Device
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong; notes do not count."""
        return all(finding.state != "wrong" for finding in self.findings)

    def check(self) -> None:
        """Raises EngineError, naming what is wrong, unless nothing is."""
        wrong = [finding.subject for finding in self.findings if finding.state == "wrong"]
        if wrong:
            raise EngineError(f"something is wrong with {', '.join(wrong)}; each finding above says what to do")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        findings = [asdict(finding) for finding in self.findings]
        return {"passed": self.passed, "device": self.device.to_json(), "findings": findings}


def examine(root: Path | None = None, probe: Probe | None = None) -> Examination:
    """Look at everything edgeco rests on; each library is asked in a process of its own.

    Args:
        root: where the system's files lie; another folder stands for another machine.
        probe: how a library is asked.
    """
    where, ask = root or ROOT, probe or run_probe
    device = detect(root, probe)
    with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 2)) as pool:
        told = dict(zip(ASKED, pool.map(ask, ASKED), strict=True))
    return Examination(device, tuple(_findings(device, told, where)))


def _findings(device: Device, told: dict[str, Outcome], root: Path) -> Iterator[Finding]:
    yield _device(device)
    yield libraries.numpy(told["numpy"])
    yield libraries.onnxruntime(told["onnxruntime"])
    yield from libraries.opencv(told["cv2"], device, told["numpy"])
    yield libraries.cuda_driver(told["cuda"], device)
    yield libraries.tensorrt(told["tensorrt"], device)
    yield libraries.cuda_python(told["cuda.bindings"], told["pycuda"], device)
    if device.is_jetson:
        yield _power(root)
    yield _memory(device)
    yield _cache()


def _device(device: Device) -> Finding:
    title = device.title + (f", JetPack {device.jetpack} (L4T {device.l4t})" if device.jetpack else "")
    if device.profile is None:
        remedy = "nothing; estimates and 'build --device' need a profile of the device they are for"
        return Finding("device", "note", f"{title}: {device.why}", remedy)
    if device.profile.unsupported is not None:
        reason = f"{title} is not supported: {device.profile.unsupported}"
        return Finding("device", "wrong", reason, "use an Orin, a Thor or a desktop GPU; 'edgeco devices' lists them")
    release = release_of(device.l4t) if device.l4t is not None else None
    if release is not None and not release.supported:
        reason = f"{title} has Python {release.python}; edgeco and TensorRT's Python package need 3.10 there"
        return Finding("device", "wrong", reason, "flash JetPack 6 or newer")
    return Finding("device", "well", f"{title}, profile {device.profile.name}")


def _power(root: Path) -> Finding:
    mode, clock = system.power_mode(root), system.gpu_clock(root)
    if mode is None:
        text = "sudo apt install nvidia-l4t-nvpmodel; in a container, mount /var/lib/nvpmodel and /etc/nvpmodel.conf"
        return Finding("power mode", "note", "not told: there is no /var/lib/nvpmodel/status", text)
    found = f"{mode.name or 'unnamed'} (mode {mode.number})"
    if clock is not None:
        found += f", GPU at {clock[0] / 1e6:.0f} of {clock[1] / 1e6:.0f} MHz"
    if mode.fastest is not None and mode.number != mode.fastest:
        remedy = f"sudo nvpmodel -m {mode.fastest} for {mode.modes[mode.fastest]}, where power and cooling allow"
        return Finding("power mode", "note", found, remedy)
    if clock is not None and clock[0] < clock[1]:
        remedy = "sudo jetson_clocks, for measurements: at few frames a second the clocks fall"
        return Finding("power mode", "note", found, remedy)
    return Finding("power mode", "well", found)


def _memory(device: Device) -> Finding:
    memory = device.memory
    if memory is None:
        return Finding("memory", "note", "not told: /proc/meminfo cannot be read")
    found = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    if memory.available >= SCARCE:
        return Finding("memory", "well", found)
    remedy = "end other programs before compiling for a GPU, or add swap"
    if device.is_jetson:
        remedy += "; the desktop alone takes about 1 GB: sudo systemctl isolate multi-user.target"
    return Finding("memory", "note", found, remedy)


def _cache() -> Finding:
    """A file is written and removed again in the nearest folder that is there."""
    folder = cache_folder()
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".edgeco-"):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = f"name a folder you may write to: export {CACHE}=/path/to/folder"
        return Finding("cache", "wrong", f"{folder} cannot be written ({reason.lower()})", remedy)
    return Finding("cache", "well", str(folder) + ("" if folder.exists() else ", made when it is needed"))
