"""Whole files or none: write beside the target, then take its place in one move."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgeco.errors import WriteError

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space or write elsewhere",
    errno.EDQUOT: "the disk quota is used up; free some space or write elsewhere",
    errno.EACCES: "permission is denied; choose a folder you may write to",
    errno.EPERM: "permission is denied; choose a folder you may write to",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOENT: "its folder does not exist; create it first",
    errno.ENOTDIR: "a part of the path is not a folder; check the path",
    errno.EFBIG: "the file is larger than the file system allows; write elsewhere",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


CACHE = "EDGECO_CACHE"
"""Environment variable that names the folder for what can be made again."""


def cache_folder() -> Path:
    """Folder for what can be made again: ``EDGECO_CACHE``, else ``edgeco`` in the user's cache; it may not exist."""
    given = os.environ.get(CACHE)
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "edgeco"


def check_target(path: str | os.PathLike[str]) -> None:
    """Say what would keep a file from being written before the minutes that its contents take.

    Raises:
        WriteError: its folder does not exist or may not be written to, or it is a folder itself.
    """
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise WriteError(f"{path} cannot be written: its folder does not exist; create it first.")
    if os.path.isdir(path):
        raise WriteError(f"{path} cannot be written: it is a folder; name a file.")
    if not os.access(folder, os.W_OK):
        raise WriteError(f"{path} cannot be written: permission is denied; choose a folder you may write to.")


@contextlib.contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` that becomes ``path`` when the block ends well.

    The bytes are on the disk before the move, so that a reader sees the old file or the whole new one, also after a
    power cut. If the block raises, the temporary file is removed and whatever was at ``path`` stays. A link is
    followed; an existing file keeps its permissions.

    Args:
        path: the file to write or replace; its folder must exist.

    Yields:
        A binary handle, open for writing.

    Raises:
        WriteError: the file cannot be written (disk full, no permission, no folder), or ``path`` is not a file.

    Example:
        >>> import pathlib, tempfile
        >>> target = pathlib.Path(tempfile.mkdtemp()) / "report.json"
        >>> with replace_file(target) as handle:
        ...     _ = handle.write(b"{}")
        >>> target.read_bytes()
        b'{}'
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".edgeco-{secrets.token_hex(8)}.tmp")
    try:
        mode = _mode_of(target)
        with _removed_on_failure(temporary):
            with _create(temporary, mode) as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        # The block may fail over files of its own: those errors name their file, and are not about this one.
        if error.filename is not None and os.fspath(error.filename) not in (str(temporary), str(target)):
            raise
        raise WriteError(f"{path} cannot be written: {_reason(error)}.") from error


def _mode_of(target: Path) -> int | None:
    """Permission bits of the file that will be replaced; None where there is none yet."""
    try:
        status = os.stat(target)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise WriteError(f"{target} cannot be written: it is a folder; name a file.")
    if not stat.S_ISREG(status.st_mode):
        # Moving a file over a device node or a pipe would replace the node itself.
        raise WriteError(f"{target} cannot be written: it is not a regular file; name another one.")
    return stat.S_IMODE(status.st_mode)


def _create(temporary: Path, mode: int | None) -> BinaryIO:
    """A new file opened so that the user's umask holds, unless it takes over the bits of an older file."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    handle = os.fdopen(os.open(temporary, flags, 0o666), "wb")
    if mode is not None:
        with contextlib.suppress(OSError):
            os.chmod(temporary, mode)
    return handle


@contextlib.contextmanager
def _removed_on_failure(temporary: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _sync_folder(folder: Path) -> None:
    """Make the move itself survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: OSError) -> str:
    known = _ADVICE.get(error.errno) if error.errno is not None else None
    return known or (error.strerror or str(error)).lower()
