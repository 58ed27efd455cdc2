"""Writing a bundle: checked as a reader would check it, then written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping

import msgspec

from edgeco.bundle.archive import MANIFEST, write_archive
from edgeco.bundle.codec import decode_manifest, encode_manifest
from edgeco.bundle.contents import check_contents
from edgeco.bundle.manifest import Manifest, Member
from edgeco.errors import BundleError
from edgeco.files import replace_file


def write_bundle(path: str | os.PathLike[str], manifest: Manifest, members: Mapping[str, bytes]) -> None:
    """Write a bundle that ``open_bundle`` accepts; equal arguments give equal bytes.

    Args:
        path: the file to write or replace.
        manifest: the manifest; its ``members`` are filled in here, whatever they were.
        members: contents by name: graphs without weights, weights and golden frames as safetensors, ``report.json``.

    Raises:
        BundleError: manifest and members do not fit each other; nothing is written.
        WriteError: the file could not be written; what stood at ``path`` before is still there.
    """
    if MANIFEST in members:
        raise BundleError(f"{path}: {MANIFEST} is made from the manifest; leave it out of the members.")
    records = {
        name: Member(size=len(data), sha256=hashlib.sha256(data).hexdigest()) for name, data in sorted(members.items())
    }
    try:
        header = encode_manifest(msgspec.structs.replace(manifest, members=records))
        # Decoded again, because records made in Python are not checked against their types.
        check_contents(decode_manifest(header), {name: memoryview(data) for name, data in members.items()})
        with replace_file(path) as handle:
            write_archive(handle, {MANIFEST: header, **members})
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from None
