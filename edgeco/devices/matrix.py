"""The tables of docs/devices.md, from the profiles: print them with ``python -m edgeco.devices.matrix``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgeco.devices.catalogue import profiles
from edgeco.devices.jetpack import releases
from edgeco.devices.profile import Figure, Profile, Range, within
from edgeco.devices.target import STRONG, target_of

_DAGGERS = {"vendor": "", "derived": " ¹", "bound": " ²", "unchecked": " ³"}


def device_table() -> str:
    """A row per device that can be served."""
    columns = ("name", "CC", "GB", "GB/s", "FP16", "INT8", "JetPack", "TensorRT", "precisions", "path")
    return _table(columns, (_row(profile) for profile in profiles() if profile.unsupported is None))


def _row(profile: Profile) -> tuple[str, ...]:
    return (
        f"`{profile.name}`",
        profile.compute_capability or "",
        _figure(profile.memory),
        _figure(profile.bandwidth),
        _figure(profile.rates.get("fp16")),
        _figure(profile.rates.get("int8")),
        _range(profile.jetpack),
        _range(profile.tensorrt),
        ", ".join(profile.precisions),
        " / ".join(target_of(profile).typings),
    )


def unsupported_table() -> str:
    """A row per board that cannot be served, and why."""
    rows = ((f"`{p.name}`", p.compute_capability or "", p.unsupported) for p in profiles() if p.unsupported is not None)
    return _table(("name", "CC", "why not"), rows)


def jetpack_table() -> str:
    """A row per JetPack, and the path its TensorRT takes."""
    columns = ("JetPack", "L4T", "boards", "TensorRT", "CUDA", "Python", "edgeco")
    limits = Range(last=f"{STRONG[0]}.{STRONG[1] - 1}")
    rows = []
    for entry in releases():
        path = ("weak" if within(entry.tensorrt, limits) else "strong") if entry.supported else "no: Python below 3.10"
        rows.append((entry.jetpack, entry.l4t, entry.boards, entry.tensorrt, entry.cuda, entry.python, path))
    return _table(columns, rows)


def _figure(figure: Figure | None) -> str:
    return "" if figure is None else f"{figure.value:g}{_DAGGERS[figure.basis]}"


def _range(limits: Range | None) -> str:
    return "" if limits is None else f"{limits.first or '…'} – {limits.last or '…'}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str | None]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell or "" for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(device_table(), unsupported_table(), jetpack_table(), sep="\n", end="")  # noqa: T201
