"""What a recording's container says about itself: whether the file ends early, and whether its frame count is exact.

OpenCV ends a damaged recording like a whole one, and its frame count is duration times rate for containers that hold
no count, off by one or more on sound files. So the structure itself is read: only a few headers, whatever the size.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"})
_MAX_BOXES = 100_000
_MAX_TABLE = 1 << 20


@dataclass(frozen=True, slots=True)
class Container:
    """Facts of one file; ``missing`` counts the bytes it announces beyond its end (0 where it announces no size)."""

    kind: str
    missing: int = 0
    exact: bool = False
    """Whether the frame count that FFmpeg reports is a count of frames that will be shown, not an estimate."""


def read_container(path: Path) -> Container:
    """Read the structure of an MP4, MOV, Matroska, WebM or AVI file; any other is ``Container("other")``."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(12)
        if head.startswith(b"\x1aE\xdf\xa3"):
            return _read_matroska(file, size)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return _read_avi(file, size)
        if head[4:8] in _BOXES:
            return _read_mp4(file, size)
    return Container("other")


def looks_like_text(path: Path) -> bool:
    """Whether the start of a file is readable text; FFmpeg would show such a file as pictures of its letters."""
    with open(path, "rb") as file:
        head = file.read(4096)
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")):
        return True
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or len(head) < 4096:
            return False
        text = head[: error.start].decode("utf-8")
    return bool(text) and all(c.isprintable() or c in "\t\n\r\f\b\x1b" for c in text)


# ---------------------------------------------------------------------------------------------------------- MP4, MOV


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of the contents of each box between two offsets.

    Damaged boxes may claim to end beyond, so that a box inside another is searched only as far as the outer one goes.
    """
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        file.seek(start)
        length, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if length == 1:
            wide = file.read(8)
            if len(wide) < 8:
                return
            length, header = struct.unpack(">Q", wide)[0], 16
        stop = start + length if length else end
        if length and length < header:
            return
        yield kind, start + header, stop
        start = stop


def _read_mp4(file: BinaryIO, size: int) -> Container:
    missing, exact = 0, False
    for kind, start, stop in _boxes(file, 0, size):
        missing = max(missing, stop - size)
        if kind == b"moov" and stop <= size:
            exact = _counts_shown_frames(file, start, stop)
    return Container("mp4", missing, exact)


def _counts_shown_frames(file: BinaryIO, start: int, stop: int) -> bool:
    """Whether a movie shows every sample it stores: no fragments that the count leaves out, no edits that cut."""
    scale, tracks = 0, []
    for kind, inner, claimed in _boxes(file, start, stop):
        end = min(claimed, stop)
        if kind == b"mvhd":
            scale = _time_fields(file, inner, end)[0]
        elif kind == b"mvex":
            return False
        elif kind == b"trak":
            tracks.append(_read_track(file, inner, end))
    return bool(scale) and all(track.shows_all(scale) for track in tracks if track.video)


@dataclass(slots=True)
class _Track:
    video: bool = False
    scale: int = 0
    duration: int = 0
    edits: tuple[tuple[int, int], ...] = ()
    """Pairs of duration, in the movie's time scale, and start in the track's; -1 is an empty edit."""

    def shows_all(self, movie_scale: int) -> bool:
        kept = [(length, at) for length, at in self.edits if at >= 0]
        if not kept:
            return True
        if len(kept) > 1 or not self.scale:
            return False
        # Encoders that reorder pictures start their only edit at the first picture's offset: less than the duration
        # is then cut only if the edit is shorter than the media by more than rounding.
        lost = self.duration / self.scale - kept[0][0] / movie_scale
        return kept[0][0] == 0 or lost <= 2 / movie_scale


def _read_track(file: BinaryIO, start: int, stop: int) -> _Track:
    track = _Track()
    for kind, inner, claimed in _boxes(file, start, stop):
        end = min(claimed, stop)
        if kind == b"edts":
            for name, at, until in _boxes(file, inner, end):
                if name == b"elst":
                    track.edits = _read_edits(file, at, until)
        elif kind == b"mdia":
            for name, at, until in _boxes(file, inner, end):
                if name == b"mdhd":
                    track.scale, track.duration = _time_fields(file, at, until)
                elif name == b"hdlr":
                    file.seek(at + 8)
                    track.video = file.read(4) == b"vide"
    return track


def _time_fields(file: BinaryIO, start: int, stop: int) -> tuple[int, int]:
    """Time scale and duration of an ``mvhd`` or ``mdhd`` box; zeros if it is cut."""
    file.seek(start)
    data = file.read(max(0, min(stop - start, 40)))
    wide = bool(data and data[0])
    form, offset = (">IQ", 20) if wide else (">II", 12)
    if len(data) < offset + struct.calcsize(form):
        return 0, 0
    scale, duration = struct.unpack_from(form, data, offset)
    return scale, duration


def _read_edits(file: BinaryIO, start: int, stop: int) -> tuple[tuple[int, int], ...]:
    file.seek(start)
    data = file.read(max(0, min(stop - start, _MAX_TABLE)))
    if len(data) < 8:
        return ()
    form = struct.Struct(">QqI" if data[0] else ">IiI")
    count = min(struct.unpack_from(">I", data, 4)[0], (len(data) - 8) // form.size)
    return tuple(form.unpack_from(data, 8 + i * form.size)[:2] for i in range(count))


# --------------------------------------------------------------------------------------------------- Matroska and AVI


def _read_matroska(file: BinaryIO, size: int) -> Container:
    """Walk the top-level elements: the EBML header and the segment, which holds everything else."""
    offset, missing = 0, 0
    for _ in range(16):
        file.seek(offset)
        head = file.read(16)
        identifier = _length_of_number(head, 0)
        length = _length_of_number(head, identifier)
        if not identifier or not length or identifier + length > len(head):
            break
        value = int.from_bytes(head[identifier : identifier + length], "big") & ((1 << 7 * length) - 1)
        if value == (1 << 7 * length) - 1:
            break  # of unknown size, as live recorders write it: nothing is announced
        offset += identifier + length + value
        missing = max(missing, offset - size)
        if offset >= size:
            break
    return Container("matroska", missing)


def _length_of_number(data: bytes, at: int) -> int:
    """Bytes of the variable-length number at an offset, told by its leading zeros; 0 where there is none."""
    return 0 if at >= len(data) or not data[at] else 9 - data[at].bit_length()


def _read_avi(file: BinaryIO, size: int) -> Container:
    """Walk the RIFF chunks: one, or several in files beyond a gigabyte."""
    offset, missing = 0, 0
    while offset + 8 <= size:
        file.seek(offset)
        name, length = struct.unpack("<4sI", file.read(8))
        if name != b"RIFF" or not length:
            break
        offset += 8 + length + length % 2
        missing = max(missing, offset - length % 2 - size)
    return Container("avi", missing)
