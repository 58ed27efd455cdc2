"""All devices there are profiles of, by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files

import msgspec

from edgeco.devices.profile import Precision, Profile, version
from edgeco.errors import SpecError

FOLDER = "profiles"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    device: tuple[Profile, ...]


@cache
def profiles() -> tuple[Profile, ...]:
    """Every profile, by family and name; those that edgeco cannot serve too.

    Raises:
        SpecError: a file of the package is damaged.
    """
    found: list[Profile] = []
    for entry in sorted(files("edgeco.devices").joinpath(FOLDER).iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            found += read_profiles(entry.read_bytes(), entry.name)
    check_catalogue(found)
    order = ("jetson", "desktop", "cpu")
    key = [(p.unsupported is not None, order.index(p.family)) for p in found]
    return tuple(p for _, _, p in sorted(zip(key, range(len(found)), found, strict=True), key=lambda entry: entry[:2]))


def read_profiles(data: bytes, name: str) -> tuple[Profile, ...]:
    """The profiles of one TOML file, each checked by itself.

    Raises:
        SpecError: the file is no TOML, or a field is missing, unknown, of the wrong type or beside another.
    """
    try:
        found = msgspec.toml.decode(data, type=_File).device
    except ImportError as error:
        raise SpecError("Reading device profiles on Python 3.10 needs tomli: pip install tomli") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise SpecError(f"The device profiles of {name} cannot be read: {error}.") from error
    for profile in found:
        wrong = _wrong(profile)
        if wrong is not None:
            raise SpecError(f"The device profile {profile.name!r} of {name} does not hold together: {wrong}.")
    return found


def check_catalogue(found: Iterable[Profile]) -> None:
    """Raises SpecError where two devices share a name, an alias or a board."""
    seen: dict[str, str] = {}
    for profile in found:
        for label in (profile.name, *profile.aliases, *profile.compatible, *profile.gpu_names):
            if label in seen:
                raise SpecError(f"The device profiles {seen[label]!r} and {profile.name!r} are both called {label!r}.")
            seen[label] = profile.name


def _wrong(profile: Profile) -> str | None:
    beyond = [name for name in profile.rates if name not in profile.precisions]
    if beyond:
        return f"it has a rate of {beyond[0]}, which is not among its precisions"
    if "fp32" not in profile.precisions:
        return "every device computes in fp32"
    rates = [profile.rates[name].value for name in _WIDTHS if name in profile.rates]
    if rates != sorted(rates):
        return "a narrower precision is slower than a wider one"
    for what, limits in (("jetpack", profile.jetpack), ("tensorrt", profile.tensorrt)):
        ends = (limits.first, limits.last) if limits is not None else (None, None)
        if ends[0] is not None and ends[1] is not None and version(ends[0]) > version(ends[1]):
            return f"its {what} range ends before it begins"
    if (profile.family == "cpu") != (profile.compute_capability is None):
        return "a GPU has a compute capability, and nothing else has"
    if (profile.workspace is None) != (profile.optimisation_level is None):
        return "a workspace and an optimisation level are given together"
    if profile.family != "jetson" and (profile.jetpack is not None or profile.compatible or profile.dla):
        return "only a Jetson has a JetPack, a device tree and DLAs"
    return None


_WIDTHS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


def find_profile(name: str) -> Profile:
    """The profile of a name or alias; capitals, spaces and underscores do not matter.

    Raises:
        SpecError: there is none; the message names the nearest.
    """
    wanted = "-".join(name.lower().replace("_", " ").replace("-", " ").split())
    named = {label: profile for profile in profiles() for label in (profile.name, *profile.aliases)}
    if wanted in named:
        return named[wanted]
    near = difflib.get_close_matches(wanted, named, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise SpecError(f"There is no device {name!r}; {hint}'edgeco devices' lists all of them.")


def find_board(compatible: Iterable[str]) -> Profile | None:
    """The Jetson that a device tree's ``compatible`` entries name, the most specific entry first."""
    boards = {label: profile for profile in profiles() for label in profile.compatible}
    for entry in compatible:
        # A carrier board and its module are one entry: "nvidia,p3768-0000+p3767-0005-super".
        vendor, _, boards_named = entry.partition(",")
        for label in (entry, *(f"{vendor},{part}" for part in reversed(boards_named.split("+")))):
            if label in boards:
                return boards[label]
    return None


def find_gpu(name: str) -> Profile | None:
    """The card that a driver's name of a GPU means; a card of a series that has no profile of its own is the series."""
    fits = [(len(label), profile) for profile in profiles() for label in profile.gpu_names if fnmatchcase(name, label)]
    return max(fits, key=lambda fit: fit[0])[1] if fits else None
