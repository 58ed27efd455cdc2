"""Strict JSON, and names made safe to show."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from edgeco.bundle.limits import MAX_JSON_DEPTH
from edgeco.errors import BundleError

_LARGEST = 2**63 - 1


def shown(name: str, limit: int = 80) -> str:
    """A name from a file, as it may stand in a message: quoted, escaped (no terminal codes), cut at ``limit``."""
    return ascii(name if len(name) <= limit else name[:limit] + "...")


def parse_json(data: bytes | memoryview, member: str) -> dict[str, Any]:
    """Parse a JSON object so that every reader, in any language, would see the same one.

    Args:
        data: UTF-8 text.
        member: name of the member, for messages.

    Raises:
        BundleError: not UTF-8, not JSON, not an object, a key given twice, NaN, infinity, an integer beyond 64 bits,
            broken Unicode, or nested deeper than ``MAX_JSON_DEPTH``.
    """
    try:
        document = json.loads(
            str(data, "utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_bounded,
        )
    except RecursionError:
        raise BundleError(f"{member} is nested deeper than {MAX_JSON_DEPTH} levels.") from None
    except UnicodeDecodeError:
        raise BundleError(f"{member} is not UTF-8 text.") from None
    except json.JSONDecodeError as error:
        raise BundleError(f"{member} is not JSON (line {error.lineno}, column {error.colno}).") from None
    except _RefusedError as error:
        raise BundleError(f"{member} {error}.") from None
    if not isinstance(document, dict):
        raise BundleError(f"{member} is not a JSON object.")
    check_json(document, member)
    return document


def check_json(document: object, member: str) -> None:
    """Refuse what JSON cannot carry, or what readers in other languages would take differently.

    Raises:
        BundleError: too deep, a number that is not finite or beyond 64 bits, or text that is not Unicode.
    """
    level = [document]
    for _ in range(MAX_JSON_DEPTH):
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                below += value.keys()
                below += value.values()
            elif isinstance(value, (list, tuple)):
                below += value
            else:
                _check_leaf(value, member)
        if not below:
            return
        level = below
    raise BundleError(f"{member} is nested deeper than {MAX_JSON_DEPTH} levels.")


def _check_leaf(value: object, member: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise BundleError(f"{member} holds a number that is not finite.")
    if isinstance(value, int) and not -_LARGEST <= value <= _LARGEST:
        raise BundleError(f"{member} holds an integer beyond 64 bits.")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BundleError(f"{member} holds text that is not Unicode.") from None


class _RefusedError(ValueError):
    """A value this parser does not take, found within the standard one."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise _RefusedError(f"gives the key {shown(twice)} twice")
    return found


def _no_constant(text: str) -> float:
    raise _RefusedError(f"holds {text}, which is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _RefusedError(f"holds {text[:24]}, which is not a finite number")
    return value


def _bounded(text: str) -> int:
    # Checked by length first: turning a million digits into an integer takes quadratic time.
    if len(text) > 20:
        raise _RefusedError("holds an integer beyond 64 bits")
    return int(text)
