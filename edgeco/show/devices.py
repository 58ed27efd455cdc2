"""Devices, and what the doctor found on this one."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from edgeco.devices.detect import Device
from edgeco.devices.doctor import Examination
from edgeco.devices.profile import BASES, FAMILIES, Figure, Profile, Range
from edgeco.show.console import bytes_text, facts, plain, table

_COLOURS = {"well": "green", "note": "yellow", "wrong": "bold red"}


def show_devices(device: Device, profiles: Sequence[Profile], console: Console) -> None:
    """Print this device and all there are profiles of."""
    console.print(facts("This device", _this(device)))
    columns = ("name", "CC", "GB", "GB/s", "FP16", "INT8", "JetPack", "TensorRT", "")
    made = table("Devices", *columns, right=(2, 3, 4, 5))
    for profile in profiles:
        here = device.profile is not None and device.profile.name == profile.name
        state = "not supported" if profile.unsupported else "this one" if here else ""
        made.add_row(
            plain(profile.name, "bold" if here else ""),
            profile.compute_capability or "",
            number(profile.memory),
            number(profile.bandwidth),
            number(profile.rates.get("fp16")),
            number(profile.rates.get("int8")),
            range_text(profile.jetpack),
            range_text(profile.tensorrt),
            plain(state, "red" if profile.unsupported else "green"),
        )
    console.print(made)
    text = "FP16 and INT8 are dense 10^12 operations a second. What is empty is not known. One in full: edgeco devices"
    console.print(plain(f"{text} NAME"))


def _this(device: Device) -> dict[str, object]:
    memory = device.memory
    values: dict[str, object] = {
        "device": device.title,
        "profile": device.profile.name if device.profile is not None else "none",
        "told by": device.why,
        "processor": f"{device.processor}, {device.threads} threads",
    }
    if device.profile is not None and device.profile.unsupported is not None:
        values["not supported"] = device.profile.unsupported
    if memory is not None:
        values["memory"] = f"{bytes_text(memory.total)}, {bytes_text(memory.available)} free"
    for place, gpu in enumerate(device.gpus):
        size = f", {bytes_text(gpu.memory)}" if gpu.memory else ""
        label = f"GPU {place}" if len(device.gpus) > 1 else "GPU"
        values[label] = f"{gpu.name}, compute capability {gpu.compute_capability or 'not told'}{size}"
    if device.l4t is not None:
        values["JetPack"] = f"{device.jetpack or 'not known'} (L4T {device.l4t})"
    return values


def show_profile(profile: Profile, console: Console) -> None:
    """Print all that is known of a device, and on what it rests."""
    values: dict[str, object] = {"name": profile.name, "family": FAMILIES[profile.family]}
    if profile.aliases:
        values["also called"] = ", ".join(profile.aliases)
    if profile.unsupported is not None:
        values["not supported"] = profile.unsupported
    values["compute capability"] = profile.compute_capability or "none"
    values["precisions"] = ", ".join(profile.precisions)
    values["memory"] = _figure(profile.memory, "GB", ", shared with the processor" if profile.shared_memory else "")
    values["bandwidth"] = _figure(profile.bandwidth, "GB/s")
    for precision in profile.precisions:
        values[precision] = _figure(profile.rates.get(precision), "x 10^12 operations a second, dense")
    if profile.family == "jetson":
        values["DLAs"] = f"{profile.dla}, not used" if profile.dla else "none"
        values["JetPack"] = range_text(profile.jetpack) or "not known"
    values["TensorRT"] = range_text(profile.tensorrt) or "none"
    if profile.workspace is not None:
        values["compiling"] = f"{profile.workspace} MiB of workspace, optimisation level {profile.optimisation_level}"
    for place, note in enumerate(profile.notes):
        values["notes" if not place else " " * place] = note
    console.print(facts(profile.title, values))


def _figure(figure: Figure | None, unit: str, rest: str = "") -> str:
    if figure is None:
        return "not known"
    note = f": {figure.note}" if figure.note else ""
    return f"{figure.value:g} {unit}{rest} ({BASES[figure.basis]}{note})"


def number(figure: Figure | None) -> str:
    """A figure's value, an upper bound marked as one; empty where it is not known."""
    if figure is None:
        return ""
    return ("≤ " if figure.basis == "bound" else "") + f"{figure.value:g}"


def range_text(limits: Range | None) -> str:
    """A range of versions as text.

    Example:
        >>> range_text(Range(first="8.6", last="10.16")), range_text(Range(last="11.4"))
        ('8.6 – 10.16', '… – 11.4')
    """
    return "" if limits is None else f"{limits.first or '…'} – {limits.last or '…'}"


def show_examination(examination: Examination, console: Console) -> None:
    """Print every finding, and under each that has one its remedy."""
    made = table("Findings", "", "", "found, and what to do")
    for finding in examination.findings:
        made.add_row(plain(finding.state, _COLOURS[finding.state]), plain(finding.subject), plain(finding.found))
        if finding.remedy is not None:
            made.add_row("", "", plain(f"→ {finding.remedy}", "bold" if finding.state == "wrong" else ""))
    console.print(made)
