"""Small recordings written for tests, and what can be wrong with them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v"}


def write_movie(path: Path, frames: int = 24, fps: float = 12.0, size: tuple[int, int] = (96, 64)) -> Path:
    """A recording whose frames brighten from black to white; a skip where OpenCV cannot write it."""
    cv2 = pytest.importorskip("cv2", reason="recordings are written with OpenCV")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*CODECS[path.suffix]), fps, size)
    if not writer.isOpened():
        pytest.skip(f"this OpenCV cannot write {path.suffix}")
    noise = np.random.default_rng(0).integers(0, 40, (size[1], size[0], 3), dtype=np.uint8)
    for index in range(frames):
        writer.write(noise + np.uint8(index * 200 // frames))
    writer.release()
    return path


def boxes(data: bytes) -> dict[bytes, bytes]:
    """Top-level boxes of an MP4 file, whole, by type."""
    found, place = {}, 0
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        found[kind] = data[place : place + length]
        place += length
    return found


def index_first(data: bytes) -> bytes:
    """The same MP4 file with its index before its pictures, as it is laid out for streaming."""
    found = boxes(data)
    others = b"".join(box for kind, box in found.items() if kind not in (b"moov", b"mdat", b"ftyp"))
    before = data.index(b"mdat") - 4
    shift = len(found[b"ftyp"]) + len(found[b"moov"]) + len(others) - before
    moov = bytearray(found[b"moov"])
    place = moov.index(b"stco") + 8
    count = struct.unpack_from(">I", moov, place)[0]
    for entry in range(count):
        at = place + 4 + 4 * entry
        struct.pack_into(">I", moov, at, struct.unpack_from(">I", moov, at)[0] + shift)
    return found[b"ftyp"] + bytes(moov) + others + found[b"mdat"]


def trimmed(data: bytes, keep: float) -> bytes:
    """The same MP4 file with an edit list that shows only a share of it, as phones trim recordings."""
    changed = bytearray(data)
    place = changed.index(b"elst") + 12
    length = struct.unpack_from(">I", changed, place)[0]
    struct.pack_into(">I", changed, place, int(length * keep))
    return bytes(changed)
