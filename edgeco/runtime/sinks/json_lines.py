"""Records as lines of JSON, in a file or on standard output."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import msgspec

from edgeco.errors import SpecError, WriteError
from edgeco.runtime.sinks.base import Delivery, Keeps

_STDOUT = "standard output"
_MOST_KEPT = 10_000


class JsonLines:
    """One JSON object per line, each handed to the system before the next begins, so that a reader can follow.

    A file is replaced by the first line, so that a run that does not begin takes nothing away, and grows line by line;
    where it rotates, what it held is kept as ``target.1``. If the disk is full the file ends with the last whole line.
    Numbers that JSON cannot express (NaN, infinity) are written as null.

    Args:
        target: path of the file, or "-" for standard output.
        rotate: bytes that a file must not exceed. The line that would not fit begins a new file; the full one is
            renamed to ``target.1``, that to ``target.2`` and so on. A single longer line has a file to itself.
        kept: full files that are kept.

    Raises:
        SpecError: standard output, or what is no regular file, is to be rotated, or the numbers are not usable.
        WriteError: the file cannot be opened; from ``write``, a line cannot be written whole.

    Example:
        >>> with JsonLines("-") as sink:
        ...     sink.write({"index": 0, "valid": False})
        {"index":0,"valid":false}
    """

    name = "jsonl"
    keeps = Keeps.ALL
    pictures = False

    def __init__(self, target: str | os.PathLike[str], *, rotate: int | None = None, kept: int = 5) -> None:
        self.lines = 0
        """Whole lines written so far."""
        self._name = _STDOUT if target == "-" else os.fspath(target)
        self._file: int | None = None
        self._size = 0
        self._begun = self._failed = self._closed = False
        self._rotate, self._kept = rotate, kept
        if rotate is not None and (rotate < 1 or not 0 <= kept <= _MOST_KEPT):
            raise SpecError(f"rotation at {rotate} bytes keeping {kept}: give a size above 0, 0 to {_MOST_KEPT} files")
        if target == "-":
            if rotate is not None:
                raise SpecError("standard output cannot be rotated; write the lines to a file")
            return
        try:
            self._file = _open(self._name)
        except (OSError, ValueError) as error:
            raise WriteError(f"{self._name}: cannot be opened for writing ({_reason(error)})") from error
        if rotate is not None and not stat.S_ISREG(os.fstat(self._file).st_mode):
            self.close()
            raise SpecError(f"{self._name}: no regular file, and so cannot be rotated")

    def take(self, delivery: Delivery) -> None:
        """Append a delivery's record."""
        self.write(delivery.record)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record. After a WriteError the sink takes no more."""
        if self._failed or self._closed:
            raise WriteError(f"{self._name}: takes no more records, {self._counted()}")
        line = msgspec.json.encode(record) + b"\n"
        try:
            if self._name == _STDOUT:
                _write_stdout(line)
            else:
                assert self._file is not None
                if not self._begun:
                    self._begin(self._file)
                if self._rotate is not None and self._size and self._size + len(line) > self._rotate:
                    self._turn(self._file)
                self._append(line)
        except (OSError, ValueError) as error:
            self._failed = True
            raise WriteError(f"{self._name}: cannot be written ({_reason(error)}), {self._counted()}") from error
        self.lines += 1

    def _begin(self, file: int) -> None:
        """Take the place of an older file."""
        self._begun = True
        if self._rotate is not None and os.fstat(file).st_size:
            self._turn(file)
        elif stat.S_ISREG(os.fstat(file).st_mode):
            os.ftruncate(file, 0)

    def _turn(self, file: int) -> None:
        """Begin a new file; the full ones move on by one name each."""
        self._file = None
        os.close(file)
        for number in range(self._kept - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self._name}.{number}", f"{self._name}.{number + 1}")
        if self._kept:
            os.replace(self._name, f"{self._name}.1")
        self._file, self._size = _open(self._name), 0
        os.ftruncate(self._file, 0)  # where no full file is kept, it is still there

    def _append(self, line: bytes) -> None:
        file, written = self._file, 0
        assert file is not None
        try:
            while written < len(line):
                written += os.write(file, line[written:])
        except BaseException:
            if written:
                with contextlib.suppress(OSError):  # a pipe cannot take back what it was given
                    os.ftruncate(file, self._size)
            raise
        self._size += len(line)

    def _counted(self) -> str:
        return f"{self.lines} whole line{'' if self.lines == 1 else 's'} written"

    def close(self) -> None:
        """Close the file; standard output stays open. Raises WriteError if the system reports a late failure."""
        if self._closed:
            return
        self._closed = True
        if self._file is not None:
            try:
                os.close(self._file)
            except OSError as error:
                raise WriteError(f"{self._name}: cannot be closed ({_reason(error)}), {self._counted()}") from error

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    return os.open(path, flags, 0o666)


def _write_stdout(line: bytes) -> None:
    sys.stdout.write(line.decode())
    sys.stdout.flush()


def parse_rotation(text: str) -> tuple[int, int]:
    """Bytes, and files kept, of text such as ``10MB`` or ``512k:3``; units are of 1000, five files are kept.

    Raises:
        SpecError: the text says something else.
    """
    match = re.fullmatch(r"(\d{1,12})\s*([kKMG]?)B?(?::(\d{1,5}))?", text.strip())
    if match is None:
        raise SpecError(f"rotation {text!r}: give a size and how many full files are kept, as in 10MB:5")
    size = int(match[1]) * {"": 1, "k": 1000, "K": 1000, "M": 1000**2, "G": 1000**3}[match[2]]
    return size, int(match[3] or 5)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "the disk is full"
        return (error.strerror or str(error)).lower()
    return str(error)
