"""Parameters of URIs: ``?name=value&…`` of forms of our own, ``#name=value&…`` behind a stream's own URL."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl

from edgeco.errors import SpecError

_OPTIONS = re.compile(r"#((?:[a-z_]+=[^&#@/=]*)(?:&[a-z_]+=[^&#@/=]*)*)$")


def parse_parameters(text: str, uri: object) -> dict[str, str]:
    """Names and values. Raises SpecError if a name is given twice.

    Args:
        text: what stands behind the mark.
        uri: how to call the source in an error.
    """
    pairs = parse_qsl(text, keep_blank_values=True)
    given = dict(pairs)
    if len(given) != len(pairs):
        raise SpecError(f"{uri}: a parameter is given twice; give each once")
    return given


def split_options(url: str) -> tuple[str, str]:
    """A stream's URL and the options behind its last ``#``, which no server ever sees; a password may hold a ``#``."""
    found = _OPTIONS.search(url)
    return (url[: found.start()], found[1]) if found else (url, "")


def only(given: Mapping[str, Any], known: Collection[str], uri: object) -> None:
    """Raises SpecError naming the first parameter that is not known."""
    if unknown := sorted(set(given) - set(known)):
        takes = f"takes {', '.join(sorted(known))}" if known else "takes none"
        raise SpecError(f"{uri}: no parameter {unknown[0]!r}; this form {takes}")


def whole(value: Any, name: str, least: int, most: int) -> int:
    """A whole number, also written out. Raises SpecError naming the parameter and its range."""
    text = str(value).strip()
    number = int(text) if re.fullmatch(r"[0-9]{1,12}", text) else None
    if number is None or not least <= number <= most:
        raise SpecError(f"{name} is {text[:40]!r}: give a whole number from {least} to {most}")
    return number


def rate(value: Any) -> float:
    """Frames per second, also written out. Raises SpecError."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 < number <= 1000:
        raise SpecError(f"fps is {value!r}: give a frame rate above 0 and up to 1000")
    return number


def switch(value: Any, name: str) -> bool:
    """A yes or no, also written as 1 or 0. Raises SpecError."""
    known = {"1": True, "0": False, "true": True, "false": False}
    if str(value).lower() not in known:
        raise SpecError(f"{name} is {value!r}: give 1 or 0")
    return known[str(value).lower()]
