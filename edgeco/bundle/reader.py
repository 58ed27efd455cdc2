"""Opening a bundle: read whole, checked whole, then used from memory, so that what was checked is what is used."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeco.bundle.archive import MANIFEST, read_archive
from edgeco.bundle.codec import decode_manifest
from edgeco.bundle.contents import REPORT, check_contents, check_listing, read_report
from edgeco.bundle.golden import ANSWER, FRAME
from edgeco.bundle.limits import MAX_BUNDLE
from edgeco.bundle.manifest import Manifest, Variant
from edgeco.bundle.ranges import RANGES, Ranges, read_ranges
from edgeco.bundle.tensors import read_tensors
from edgeco.bundle.text import shown
from edgeco.bundle.weights import inject_weights
from edgeco.errors import BundleError, SpecError


class Bundle:
    """An opened bundle: immutable, every member verified. Make one with ``open_bundle``.

    Attributes:
        path: where it was read from.
        manifest: everything that is known of the network.
        sha256: hex digest of manifest.json's bytes. The manifest holds the hash of every member, so this is the
            identity of the network and all that belongs to it.
    """

    __slots__ = ("_members", "_weights", "manifest", "path", "sha256")

    def __init__(self, path: Path, manifest: Manifest, members: Mapping[str, memoryview], digest: str) -> None:
        self.path = path
        self.manifest = manifest
        self.sha256 = digest
        self._members = MappingProxyType(dict(members))
        self._weights = check_contents(manifest, self._members)

    def __repr__(self) -> str:
        return f"<Bundle {self.manifest.name!r} from {str(self.path)!r}, {self.sha256[:12]}>"

    def read(self, member: str) -> bytes:
        """Bytes of one member.

        Raises:
            SpecError: there is no such member.
        """
        if member not in self._members:
            known = ", ".join(sorted(self._members))
            raise SpecError(f"{self.path} has no member {shown(member)}; it has {known}.")
        return bytes(self._members[member])

    def phases(self, variant: str) -> list[bytes | None]:
        """A complete ONNX model per phase, None where a phase has nothing to do. Raises as ``onnx``."""
        graphs = self.variant(variant).graphs
        made = {member: self.onnx(variant, graphs.index(member)) for member in dict.fromkeys(graphs) if member}
        return [made.get(member) for member in graphs]

    def variant(self, name: str) -> Variant:
        """What the manifest says of a variant. Raises SpecError if there is no such one."""
        if name not in self.manifest.variants:
            known = ", ".join(self.manifest.variants)
            raise SpecError(f"{self.path} has no variant {shown(name)}; it has {known}.")
        return self.manifest.variants[name]

    def onnx(self, variant: str, phase: int = 0) -> bytes:
        """A complete ONNX model, ready for any engine: the phase's graph with its weights.

        Args:
            variant: a key of ``manifest.variants``.
            phase: step from reset, counted from 0; a network of stride R has R graphs that take turns.

        Raises:
            SpecError: there is no such variant, or the phase has nothing to do.
            BundleError: graph and weights together are too large for ONNX.
        """
        chosen = self.variant(variant)
        member = chosen.graphs[phase % len(chosen.graphs)]
        if not member:
            raise SpecError(f"{self.path} has no graph for phase {phase}, in which {shown(variant)} has nothing to do.")
        tensors = read_tensors(self._members[chosen.weights], chosen.weights)
        return inject_weights(self._members[member], tensors, sorted(self._weights[member]))

    def golden(self) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """Frames by input name and answers by output name, each (steps, *shape), repeated frames repeated.

        The arrays are fresh.         Answers of steps before the output's ``valid_from`` are not to be compared.
        """
        tensors = read_tensors(self._members[self.manifest.golden.member], self.manifest.golden.member)
        golden = self.manifest.golden
        turn = np.arange(golden.steps) % (golden.frames or golden.steps)
        frames = {entry.name: tensors[FRAME + entry.name].array()[turn] for entry in self.manifest.inputs}
        answers = {entry.name: tensors[ANSWER + entry.name].array() for entry in self.manifest.outputs}
        return frames, answers

    def ranges(self) -> Ranges | None:
        """The ranges of a calibration, or None where the bundle was not calibrated."""
        return read_ranges(self._members[RANGES]) if RANGES in self._members else None

    def report(self) -> dict[str, Any] | None:
        """The build report, or None where the bundle carries none."""
        return read_report(self._members[REPORT]) if REPORT in self._members else None


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read and verify a bundle.

    Nothing is extracted, and nothing but memory is used. Checked in this order: the archive's names and sizes, its
    checksums, the manifest's version and fields, the members' names, sizes and hashes, and only then what they hold.

    Args:
        path: an ``.edgeco`` file.

    Raises:
        BundleError: the file is missing or unreadable, not a bundle, damaged, inconsistent, or of a newer schema.

    Example:
        >>> bundle = open_bundle("gesture.edgeco")            # doctest: +SKIP
        >>> bundle.manifest.timeline.receptive_field          # doctest: +SKIP
        13
    """
    data = _read_whole(path)
    try:
        members = read_archive(data)
        if MANIFEST not in members:
            raise BundleError(f"this is not an edgeco bundle: the archive has no {MANIFEST}.")
        header = members[MANIFEST]
        manifest = decode_manifest(header)
        check_listing(manifest, {name: member for name, member in members.items() if name != MANIFEST})
        return Bundle(Path(path), manifest, members, sha256(header).hexdigest())
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None


def _read_whole(path: str | os.PathLike[str]) -> bytes:
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise BundleError(f"{path} is a folder; a bundle is one file.")
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{path} is not a regular file; a bundle is one file.")
        if status.st_size > MAX_BUNDLE:
            raise BundleError(f"{path} has {status.st_size} bytes; a bundle has at most {MAX_BUNDLE}.")
        with open(path, "rb") as handle:
            return handle.read(status.st_size + 1)  # room for so much is taken at once, whatever is there
    except FileNotFoundError:
        raise BundleError(f"{path} does not exist; check the path, or make the bundle with `edgeco build`.") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}.") from None
    except ValueError:
        raise BundleError(f"{shown(os.fspath(path))} is not a usable path.") from None
