"""The frame of a page, its words and its tables. Every text is escaped here, names from files above all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from edgeco.page.style import STYLE

Cell = str | int | float | None

_CLASS = ' class="n"'
"""Of what is set to the right."""


def document(title: str, parts: Iterable[str]) -> str:
    """One HTML document.

    Args:
        title: its heading too.
        parts: HTML of the other functions of this package, in order; empty ones are left out.
    """
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """Parts under a heading; nothing where there is none."""
    body = "\n".join(part for part in parts if part)
    return f"<h2>{escape(title)}</h2>\n{body}" if body else ""


def folded(title: str, *parts: str) -> str:
    """Parts that the reader unfolds; nothing where there is none."""
    body = "\n".join(part for part in parts if part)
    return f"<details><summary>{escape(title)}</summary>\n{body}\n</details>" if body else ""


def paragraph(text: str) -> str:
    """A sentence or several."""
    return f"<p>{escape(text)}</p>" if text else ""


def note(*lines: str) -> str:
    """Small print, such as hashes."""
    return f"<p><small>{'<br>'.join(map(escape, lines))}</small></p>"


def number(value: Any) -> str:
    """A figure as a person reads it; "unavailable" for what was not measured."""
    if value is None:
        return "unavailable"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], drawn: Sequence[int] = ()) -> str:
    """A table; nothing where there are no rows. Figures are set to the right.

    Args:
        head: of the columns.
        rows: texts and figures; None is "unavailable".
        drawn: columns that hold drawings of this package already.
    """
    listed = [list(row) for row in rows]
    if not listed:
        return ""
    lines = [_row(row, drawn) for row in listed]
    columns = enumerate(zip(*listed, strict=True))
    figures = {place for place, column in columns if place not in drawn and all(map(_is_figure, column))}
    names = [f"<th{_CLASS if place in figures else ''}>{escape(name)}</th>" for place, name in enumerate(head)]
    top = f"<tr>{''.join(names)}</tr>" if any(head) else ""
    return f'<div class="wide"><table>{top}{"".join(lines)}</table></div>'


def _row(row: Sequence[Cell], drawn: Sequence[int]) -> str:
    made = []
    for place, value in enumerate(row):
        if place in drawn:
            made.append(f"<td>{value}</td>")
            continue
        text = escape(value) if isinstance(value, str) else number(value)
        made.append(f"<td{_CLASS if _is_figure(value) else ''}>{text}</td>")
    return f"<tr>{''.join(made)}</tr>"


def _is_figure(value: Cell) -> bool:
    if not isinstance(value, str):
        return True
    bare = value.strip().rstrip("%").strip().replace(",", "").replace("−", "-")
    if bare in ("", "unavailable"):
        return True
    try:
        float(bare)
    except ValueError:
        return False
    return True
