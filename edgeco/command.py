"""What every command of the command line shares: one sentence per error, exit codes, and an orderly stop."""

from __future__ import annotations

import errno
import importlib.util
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from edgeco.errors import EdgecoError, EngineError, SpecError

UNEXPECTED = 70
"""Exit code of an error in edgeco itself."""
INTERRUPTED = 130
_DEBUG = "edgeco.debug"


def _debug_option() -> click.Option:
    def note(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            context.meta[_DEBUG] = True

    text = "Show the traceback of an error."
    return click.Option(["--debug"], is_flag=True, expose_value=False, is_eager=True, callback=note, help=text)


class Command(click.Command):
    """A command that takes ``--debug``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_debug_option())


class Group(click.Group):
    """The group of all commands: turns every error into one line on stderr and an exit code.

    EdgecoError has its own code; a usage error is 2; anything unforeseen is 70 and asks for a report. A reader of
    standard output that goes away ends the command quietly with 1, Ctrl-C with 130.
    """

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_debug_option())

    def invoke(self, ctx: click.Context) -> Any:
        # OpenCV and FFmpeg write to stderr by themselves; what they find is said once, in edgeco's own error.
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except EdgecoError as error:
            if isinstance(error.__cause__, BrokenPipeError):
                _reader_gone()
            _fail(ctx, str(error), error.exit_code)
        except BrokenPipeError:
            _reader_gone()
        except KeyboardInterrupt:
            _fail(ctx, "interrupted", INTERRUPTED)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None:
                _reader_gone("standard output cannot be written (the disk is full)")
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            how = "this traceback" if ctx.meta.get(_DEBUG) else "what the command prints with --debug"
            _fail(ctx, f"unexpected {what}; this is a fault in edgeco, please report it with {how}", UNEXPECTED)


def _fail(ctx: click.Context, message: str, code: int) -> NoReturn:
    if ctx.meta.get(_DEBUG):
        click.echo(traceback.format_exc().rstrip(), err=True)
    click.echo(f"edgeco: error: {one_line(message)}", err=True)
    raise click.exceptions.Exit(code)


def _reader_gone(message: str | None = None) -> NoReturn:
    if message is not None:
        click.echo(f"edgeco: error: {message}", err=True)
    # The interpreter flushes standard output once more when it ends, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
    raise click.exceptions.Exit(1)


def one_line(text: str) -> str:
    """Text as one line, safe to show."""
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Text with control characters spelled out: the name of a file or a bundle's label may carry terminal codes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C and SIGTERM end the work between two frames; a second one interrupts at once.

    Yields:
        A function that says whether to stop.
    """
    asked: list[int] = []

    def note(number: int, _: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def pin(cpus: str) -> None:
    """Let this process, and the threads it starts from now on, run on some processors only.

    Args:
        cpus: numbers and ranges, as in ``0,2-3``.

    Raises:
        SpecError: the text names no processors, one that this process may not use, or the system cannot pin.
    """
    if not hasattr(os, "sched_setaffinity"):
        raise SpecError("this system cannot pin a process to processors; leave --affinity away")
    chosen: set[int] = set()
    for part in cpus.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and len(first) < 6 and (not dash or (last.isdecimal() and len(last) < 6))):
            raise SpecError(f"affinity {cpus!r}: give processors by number, as in 0,2-3")
        chosen.update(range(int(first), int(last or first) + 1))
    allowed = os.sched_getaffinity(0)
    if not chosen or not chosen <= allowed:
        raise SpecError(
            f"affinity {cpus!r}: this process may use the processors {', '.join(map(str, sorted(allowed)))}"
        )
    os.sched_setaffinity(0, chosen)


def need_build_side(*packages: str) -> None:
    """Say in one sentence what to install where the build side is not there.

    Args:
        packages: those that are needed; torch and onnx unless given.

    Raises:
        EngineError: one of them is missing.
    """
    missing = [name for name in packages or ("torch", "onnx") if importlib.util.find_spec(name) is None]
    if missing:
        raise EngineError(f"building needs {' and '.join(missing)}: pip install 'edgeco[build]' on the workstation")


def shape_of(text: str | None) -> tuple[int, ...] | None:
    """The value of ``--shape``, None where it is not given.

    Raises:
        SpecError: it is no list of whole numbers above 0.

    Example:
        >>> shape_of("16,2")
        (16, 2)
    """
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise SpecError(f"--shape {text!r} is not a list of whole numbers, as in 16,2.")
    return tuple(map(int, parts))


def refuse_overwriting(output: str | os.PathLike[str] | None, *inputs: str | os.PathLike[str] | None) -> None:
    """Refuse to write over a file that is being read.

    Raises:
        SpecError: `output` is one of `inputs`.
    """
    if output is None or not os.path.exists(output):
        return
    found = os.stat(output)
    for given in inputs:
        if given is not None and os.path.exists(given) and os.path.samestat(found, os.stat(given)):
            raise SpecError(f"{output} would be overwritten while it is read; write to another file")
