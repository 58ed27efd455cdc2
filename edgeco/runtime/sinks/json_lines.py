"""Records as lines of JSON, in a file or on standard output."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import msgspec

from edgeco.errors import WriteError
from edgeco.runtime.sinks.base import Delivery


class JsonLines:
    """One JSON object per line, each handed to the system before the next begins, so that a reader can follow.

    A file is replaced when it is opened and grows line by line. If the disk is full the file ends with the last whole
    line. Numbers that JSON cannot express (NaN, infinity) are written as null.

    Args:
        target: path of the file, or "-" for standard output.

    Raises:
        WriteError: the file cannot be opened; from ``write``, a line cannot be written whole.

    Example:
        >>> with JsonLines("-") as sink:
        ...     sink.write({"index": 0, "valid": False})
        {"index":0,"valid":false}
    """

    lossless = True

    def __init__(self, target: str | os.PathLike[str]) -> None:
        self.lines = 0
        """Whole lines written so far."""
        self._name = "standard output" if target == "-" else os.fspath(target)
        self._file: int | None = None
        self._size = 0
        self._failed = self._closed = False
        if target == "-":
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            self._file = os.open(target, flags, 0o666)
        except (OSError, ValueError) as error:
            raise WriteError(f"{self._name}: cannot be opened for writing ({_reason(error)})") from error

    def take(self, delivery: Delivery) -> None:
        """Append a delivery's record."""
        self.write(delivery.record)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record. After a WriteError the sink takes no more."""
        if self._failed or self._closed:
            raise WriteError(f"{self._name}: takes no more records, {self._counted()}")
        line = msgspec.json.encode(record) + b"\n"
        try:
            if self._file is None:
                _write_stdout(line)
            else:
                self._append(self._file, line)
        except (OSError, ValueError) as error:
            self._failed = True
            raise WriteError(f"{self._name}: cannot be written ({_reason(error)}), {self._counted()}") from error
        self.lines += 1

    def _append(self, file: int, line: bytes) -> None:
        written = 0
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


def _write_stdout(line: bytes) -> None:
    sys.stdout.write(line.decode())
    sys.stdout.flush()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "the disk is full"
        return (error.strerror or str(error)).lower()
    return str(error)
