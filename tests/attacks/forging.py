"""What attacks are made with: archives packed by hand, manifests edited, hashes made right again."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

from toy_bundle import Toy

Files = dict[str, bytes]


class Attack(NamedTuple):
    name: str
    data: bytes
    sentence: str
    """A pattern that the refusal matches."""


def members_of(toy: Toy) -> Files:
    with zipfile.ZipFile(io.BytesIO(toy.data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(files: Files, change: Callable[[zipfile.ZipInfo], None] | None = None, victim: str = "") -> bytes:
    """A zip of these files in the form of a bundle; ``change`` edits the entry of the victim."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o644 << 16
            if name == victim and change:
                change(entry)
            archive.writestr(entry, data)
    return stream.getvalue()


def forge(toy: Toy, members: Files | None = None, edit: Callable[[dict[str, Any]], None] | None = None) -> bytes:
    """A bundle with members replaced and the manifest edited, its sizes and hashes all as they should be."""
    files = members_of(toy) | (members or {})
    manifest = json.loads(files.pop("manifest.json"))
    manifest["members"] = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()
    }
    if edit:
        edit(manifest)
    return pack({"manifest.json": json.dumps(manifest).encode(), **files})


def patched(data: bytes, signature: bytes, offset: int, form: str, value: int, occurrence: int = 0) -> bytes:
    """Overwrite a number in the archive's own structures."""
    place = -1
    for _ in range(occurrence + 1):
        place = data.index(signature, place + 1)
    changed = bytearray(data)
    struct.pack_into(form, changed, place + offset, value)
    return bytes(changed)
