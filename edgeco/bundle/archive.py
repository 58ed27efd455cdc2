"""The archive around the members: a zip of one canonical form, read strictly and written reproducibly.

Nothing is ever extracted, and general zip readers are too forgiving for a strict one: they skip leading bytes, ignore
gaps, and trust one of two headers. So the few structures of a stored zip are read here, and both headers must agree.
"""

from __future__ import annotations

import re
import stat
import struct
import zlib
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

from edgeco.bundle.limits import MAX_BUNDLE, MAX_MEMBERS, MAX_NAME
from edgeco.bundle.text import shown
from edgeco.errors import BundleError

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_VERSION = 20
_DATE = 0x0021  # 1 January 1980: the same members always give the same bytes.
_UTF8_FLAG = 0x0800
_FOLDER_BIT = 0x10
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
MANIFEST = "manifest.json"


class _Entry(NamedTuple):
    raw_name: bytes
    name: str
    flags: int
    crc: int
    size: int
    offset: int


def check_name(name: str) -> None:
    """Refuse a member name that could mean anything but a file inside the bundle.

    Raises:
        BundleError: absolute, climbing, with backslashes, a folder, too long, or with unusual characters.
    """
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise BundleError(f"member {shown(name)} has an absolute name.")
    if "\\" in name:
        raise BundleError(f"member {shown(name)} has a backslash in its name.")
    if any(part in ("..", ".") for part in name.split("/")):
        raise BundleError(f"member {shown(name)} has a name that climbs out of its folder.")
    if name.endswith("/"):
        raise BundleError(f"member {shown(name)} is a folder; a bundle holds files only.")
    if len(name) > MAX_NAME:
        raise BundleError(f"member {shown(name)} has a name of more than {MAX_NAME} characters.")
    if not _NAME.fullmatch(name):
        raise BundleError(f"member {shown(name)} has a name that is not made of letters, digits, dots and dashes.")


def read_archive(data: bytes) -> dict[str, memoryview]:
    """Members by name, as views of ``data``: structure checked first, then every checksum.

    Args:
        data: the whole file.

    Raises:
        BundleError: not a zip, cut short, damaged, or not of the one form described in docs/bundle.md.
    """
    if data[:4] != b"PK\3\4":
        raise BundleError("this is not an edgeco bundle; make one with `edgeco build`.")
    entries, start = _read_directory(data)
    members: dict[str, memoryview] = {}
    position = 0
    for entry in sorted(entries, key=lambda entry: entry.offset):
        if entry.offset != position:
            raise BundleError(f"the archive has a gap or an overlap before member {shown(entry.name)}.")
        position = _check_local(data, entry, start)
        members[entry.name] = memoryview(data)[position - entry.size : position]
    if position != start:
        raise BundleError("the archive holds bytes that belong to no member.")
    for entry in entries:
        if zlib.crc32(members[entry.name]) != entry.crc:
            raise BundleError(f"member {shown(entry.name)} is damaged (checksum); copy or build the bundle again.")
    return members


def _read_directory(data: bytes) -> tuple[list[_Entry], int]:
    """The central directory's entries and where it starts."""
    if len(data) < _END.size or data[-_END.size :][:4] != b"PK\5\6":
        raise BundleError("the file is cut short, or has something after its end; copy the bundle again.")
    _, disk, first_disk, here, count, size, start, comment = _END.unpack(data[-_END.size :])
    end = len(data) - _END.size
    if disk or first_disk or here != count or comment or start + size != end:
        raise BundleError("the archive's directory does not fit the file; copy the bundle again.")
    if count > MAX_MEMBERS:
        raise BundleError(f"the archive has {count} members; a bundle has at most {MAX_MEMBERS}.")
    entries: list[_Entry] = []
    names: set[str] = set()
    position = start
    for _ in range(count):
        entry, position = _read_entry(data, position, end)
        if entry.name.lower() in names:
            raise BundleError(f"member {shown(entry.name)} is there twice.")
        names.add(entry.name.lower())
        entries.append(entry)
    if position != end:
        raise BundleError("the archive's directory holds bytes that belong to no member.")
    return entries, start


def _read_entry(data: bytes, position: int, end: int) -> tuple[_Entry, int]:
    """One entry of the central directory, with all that can be judged from it alone, and where it stops."""
    if position + _CENTRAL.size > end or data[position : position + 4] != b"PK\1\2":
        raise BundleError("the archive's directory is damaged; copy the bundle again.")
    fields = _CENTRAL.unpack_from(data, position)
    _, _, _, flags, method, _, _, crc, packed, size, name_length, extra, comment, disk, _, attributes, offset = fields
    position += _CENTRAL.size
    raw_name = data[position : position + name_length]
    position += name_length
    if position > end:
        raise BundleError("the archive's directory is damaged; copy the bundle again.")
    name = raw_name.decode("utf-8", "backslashreplace")
    check_name(name)
    kind = stat.S_IFMT(attributes >> 16)
    if kind == stat.S_IFLNK:
        raise BundleError(f"member {shown(name)} is a link; a bundle holds files only.")
    if kind not in (0, stat.S_IFREG) or attributes & _FOLDER_BIT:
        raise BundleError(f"member {shown(name)} is not a regular file.")
    if method:
        raise BundleError(f"member {shown(name)} is compressed; a bundle's members are stored as they are.")
    if flags & ~_UTF8_FLAG:
        raise BundleError(f"member {shown(name)} is encrypted, streamed or patched; a bundle's members are plain.")
    if extra or comment or disk:
        raise BundleError(f"member {shown(name)} carries an extra field or a comment; a bundle has none.")
    if packed != size:
        raise BundleError(f"member {shown(name)} gives two sizes ({packed} and {size} bytes).")
    return _Entry(raw_name, name, flags, crc, size, offset), position


def _check_local(data: bytes, entry: _Entry, limit: int) -> int:
    """Compare the header before the data with the directory's; returns where the data ends."""
    begin = entry.offset + _LOCAL.size
    stop = begin + len(entry.raw_name) + entry.size
    if stop > limit:
        raise BundleError(f"member {shown(entry.name)} is said to be longer than the file holds.")
    fields = _LOCAL.unpack_from(data, entry.offset)
    signature, _, flags, method, _, _, crc, packed, size, name_length, extra = fields
    same = (b"PK\3\4", entry.flags, 0, entry.crc, entry.size, entry.size, len(entry.raw_name), 0)
    if (signature, flags, method, crc, packed, size, name_length, extra) != same or (
        data[begin : begin + name_length] != entry.raw_name
    ):
        raise BundleError(f"member {shown(entry.name)} is described in two ways by the archive.")
    return stop


def write_archive(handle: BinaryIO, members: Mapping[str, bytes]) -> None:
    """Write members, the manifest first and the others by name; equal members give equal bytes.

    Args:
        handle: open for writing.
        members: contents by name.

    Raises:
        BundleError: a name is not allowed, or the archive would be too large.
    """
    names = sorted(members, key=lambda name: (name != MANIFEST, name))
    for name in names:
        check_name(name)
    if len({name.lower() for name in names}) != len(names):
        raise BundleError("two members have names that differ only in case.")
    overhead = sum(_LOCAL.size + _CENTRAL.size + 2 * len(name) for name in names) + _END.size
    if overhead + sum(len(data) for data in members.values()) > MAX_BUNDLE or len(names) > MAX_MEMBERS:
        raise BundleError(f"a bundle has at most {MAX_BUNDLE} bytes and {MAX_MEMBERS} members.")
    directory = b""
    offset = 0
    for name in names:
        data, raw = members[name], name.encode("ascii")
        crc, size = zlib.crc32(data), len(data)
        handle.write(_LOCAL.pack(b"PK\3\4", _VERSION, 0, 0, 0, _DATE, crc, size, size, len(raw), 0) + raw)
        handle.write(data)
        sizes = (crc, size, size, len(raw), 0, 0, 0, 0, 0, offset)
        directory += _CENTRAL.pack(b"PK\1\2", _VERSION, _VERSION, 0, 0, 0, _DATE, *sizes) + raw
        offset += _LOCAL.size + len(raw) + size
    handle.write(directory)
    handle.write(_END.pack(b"PK\5\6", 0, 0, len(names), len(names), len(directory), offset, 0))
