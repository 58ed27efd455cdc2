"""Consoles, and numbers and names as a person reads them."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import Any

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeco.command import printable

PLAIN_WIDTH = 140
"""Columns where there is no terminal to ask."""


def console(*, stderr: bool = False) -> Console:
    """A console on standard output or error, as they are now; colours and lines only on a terminal."""
    stream = (sys.stderr if stderr else sys.stdout) or io.StringIO()  # None where the caller closed it
    width = None if stream.isatty() else PLAIN_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def say(text: str) -> None:
    """A message about what takes long: one line on standard error."""
    if sys.stderr is not None:
        sys.stderr.write(f"edgeco: {printable(text)}\n")
        sys.stderr.flush()


def print_json(value: Any, *, stderr: bool = False) -> None:
    """One JSON document, indented; NaN and infinity become null."""
    stream = sys.stderr if stderr else sys.stdout
    stream.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
    stream.flush()


def plain(text: object, style: str = "") -> Text:
    """Text from a file, safe to show: no control characters, no markup."""
    return Text(printable(str(text)), style=style)


def table(title: str, *columns: str, right: tuple[int, ...] = ()) -> Table:
    """An empty table; columns whose numbers are in ``right`` are aligned to the right."""
    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE, pad_edge=False)
    for place, column in enumerate(columns):
        made.add_column(column, justify="right" if place in right else "left", overflow="fold")
    return made


def facts(title: str, values: Mapping[str, object]) -> Table:
    """A table of names and values."""
    made = table(title, "", "")
    made.show_header = False
    for name, value in values.items():
        made.add_row(plain(name, "dim"), value if isinstance(value, Text) else plain(value))
    return made


def bytes_text(count: int) -> str:
    """Bytes in units of 1024.

    Example:
        >>> bytes_text(999), bytes_text(1536)
        ('999 B', '1.5 KiB')
    """
    if count < 1024:
        return f"{count} B"
    power = min(4, (count.bit_length() - 1) // 10)
    return f"{count / 1024**power:.1f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"


def count_text(count: float) -> str:
    """A count in thousands, millions or billions.

    Example:
        >>> count_text(512), count_text(1_960_000_000)
        ('512', '1.96 G')
    """
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= scale:
            return f"{count / scale:.2f} {unit}"
    return f"{count:g}"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}"


def share_text(share: float) -> str:
    """A share in percent, never rounded up to all or down to nothing; empty for none.

    Example:
        >>> share_text(0.9873), share_text(0.99996), share_text(1.0)
        ('98.7%', '>99.9%', '100%')
    """
    if share in (0.0, 1.0):
        return "100%" if share else ""
    if share > 0.999:
        return ">99.9%"
    return "<0.1%" if share < 0.001 else f"{share:.1%}"


def seconds_text(seconds: float) -> str:
    return f"{seconds:.3g} s"
