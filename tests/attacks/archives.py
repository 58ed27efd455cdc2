"""Archives that are no bundle, or not all of one: names, links, bombs, duplicates, lying sizes."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from collections.abc import Iterator

from forging import Attack, members_of, pack, patched
from toy_bundle import Toy


def archive_attacks(toy: Toy) -> Iterator[Attack]:
    files, good = members_of(toy), toy.data
    for title, name, sentence in (
        ("climbing name", "../x", r"'\.\./x' has a name that climbs"),
        ("climbing inside", "graphs/../../x", "climbs out"),
        ("absolute name", "/etc/passwd", "absolute name"),
        ("drive letter", "C:x", "absolute name"),
        ("backslash", "graphs\\x", "backslash"),
        ("folder entry", "graphs/", "is a folder"),
        ("hidden name", ".bashrc", "not made of letters"),
        ("terminal code in a name", "a\x1b[2Jb", r"'a\\x1b\[2Jb' has a name that is not made of letters"),
        ("foreign letters", "gra\u0440hs", "not made of letters"),
        ("long name", "x" * 201, "more than 200 characters"),
        ("double slash", "graphs//x", "not made of letters"),
    ):
        yield Attack(title, pack({**files, name: b""}), sentence)

    def link(entry: zipfile.ZipInfo) -> None:
        entry.external_attr = 0o120777 << 16

    def device(entry: zipfile.ZipInfo) -> None:
        entry.external_attr = 0o060644 << 16

    def deflate(entry: zipfile.ZipInfo) -> None:
        entry.compress_type = zipfile.ZIP_DEFLATED

    def extra(entry: zipfile.ZipInfo) -> None:
        entry.extra = struct.pack("<HH", 0x7075, 0)

    def comment(entry: zipfile.ZipInfo) -> None:
        entry.comment = b"hello"

    yield Attack("link", pack({**files, "x": b"/etc/passwd"}, link, "x"), "'x' is a link")
    yield Attack("device node", pack({**files, "x": b""}, device, "x"), "'x' is not a regular file")
    yield Attack("zip bomb", pack({**files, "x": bytes(1 << 24)}, deflate, "x"), "'x' is compressed")
    yield Attack("second name in an extra field", pack(files, extra, "report.json"), "extra field or a comment")
    yield Attack("comment on a member", pack(files, comment, "report.json"), "extra field or a comment")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        stream = io.BytesIO(good)
        with zipfile.ZipFile(stream, "a") as archive:
            archive.writestr(zipfile.ZipInfo("report.json"), b"{}")
    yield Attack("duplicate member", stream.getvalue(), "'report.json' is there twice")
    yield Attack("name in another case", pack({**files, "REPORT.json": b"{}"}), "'REPORT.json' is there twice")
    many = {f"m{index}": b"" for index in range(1025)}
    yield Attack("many members", pack(many), "1025 members; a bundle has at most 1024")
    yield Attack("encrypted", patched(good, b"PK\1\2", 8, "<H", 1), "encrypted, streamed or patched")
    yield Attack("size lies in the directory", patched(good, b"PK\1\2", 24, "<L", 7), "gives two sizes")
    larger = patched(patched(good, b"PK\1\2", 20, "<L", 2**31), b"PK\1\2", 24, "<L", 2**31)
    yield Attack("size beyond the file", larger, "longer than the file holds")
    smaller = patched(patched(good, b"PK\1\2", 20, "<L", 9), b"PK\1\2", 24, "<L", 9)
    yield Attack("size lies in one header", smaller, "described in two ways")
    renamed = good.replace(b"manifest.json", b"manifesto.jso", 1)
    yield Attack("name differs in the local header", renamed, "described in two ways")
    yield Attack("overlapping members", patched(good, b"PK\1\2", 42, "<L", 0, occurrence=1), "a gap or an overlap")
    yield Attack(
        "count lies", patched(patched(good, b"PK\5\6", 8, "<H", 1), b"PK\5\6", 10, "<H", 1), "directory holds bytes"
    )
    count = len(files) + 1
    more = patched(patched(good, b"PK\5\6", 8, "<H", count), b"PK\5\6", 10, "<H", count)
    yield Attack("count lies upwards", more, "directory is damaged")
    last = len(files) - 1
    yield Attack("name beyond the directory", patched(good, b"PK\1\2", 28, "<H", 9999, last), "directory is damaged")
    directory = good.index(b"PK\1\2")
    room = patched(good[:directory] + b"room" + good[directory:], b"PK\5\6", 16, "<L", directory + 4)
    yield Attack("bytes before the directory", room, "the archive holds bytes that belong to no member")
    yield Attack("count differs", patched(good, b"PK\5\6", 8, "<H", 1), "directory does not fit the file")
    yield Attack("directory elsewhere", patched(good, b"PK\5\6", 16, "<L", 0), "directory does not fit the file")
    yield Attack("something before", b"#!/bin/sh\n" + good, "not an edgeco bundle")
    yield Attack("something after", good + b"\0", "cut short, or has something after")
    yield Attack("text file", b"hello\n", "not an edgeco bundle; make one with `edgeco build`")
    yield Attack("empty file", b"", "not an edgeco bundle")
    yield Attack("empty zip", pack({}), "not an edgeco bundle")
    yield Attack("another zip", pack({"x": b""}), "not an edgeco bundle: the archive has no manifest.json")
    for share in (0.01, 0.5, 0.99):
        yield Attack(f"cut at {share:.0%}", good[: int(len(good) * share)], "cut short")
