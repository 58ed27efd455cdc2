"""What each JetPack installs, and which one a board's Linux belongs to."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import msgspec

from edgeco.devices.profile import Record, VersionText, version

LEAST_PYTHON = (3, 10)
"""The oldest Python that edgeco runs on; JetPack 6 has it."""


class Release(Record, frozen=True):
    """One JetPack: the release of its Linux (L4T), its TensorRT, CUDA and the system's Python."""

    jetpack: VersionText
    l4t: VersionText
    tensorrt: VersionText
    cuda: VersionText
    python: VersionText
    boards: str

    @property
    def supported(self) -> bool:
        """Whether edgeco runs on its Python."""
        return version(self.python) >= LEAST_PYTHON


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    release: tuple[Release, ...]


@cache
def releases() -> tuple[Release, ...]:
    """All known releases, oldest first."""
    return msgspec.toml.decode(files("edgeco.devices").joinpath("jetpack.toml").read_bytes(), type=_File).release


def release_of(l4t: str) -> Release | None:
    """The last known release at or before a board's L4T, of the same major version; None where there is none."""
    given = version(l4t)
    fits = [entry for entry in releases() if version(entry.l4t) <= given and version(entry.l4t)[0] == given[0]]
    return fits[-1] if fits else None
