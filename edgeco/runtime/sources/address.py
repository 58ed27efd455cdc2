"""URIs with secrets in them: expanded for the one who opens them, redacted for everyone else.

What may be shown is made once, when a source is constructed. Nothing else that leaves a source (an error, an event, a
``repr``) is made from the URI itself; text of a library, which may repeat it, goes through ``Address.clean`` first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote

from edgeco.errors import SpecError

HIDDEN = "***"

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'!]*")
_SETTING = re.compile(
    r"(?i)([\w-]*(?:user|login|pass|pwd|pw|token|secret|key|auth|sig|session|cred)[\w-]*\s*=\s*)"
    r"(\"[^\"]*\"|'[^']*'|[^&\s;!,#\"']*)"
)
_SHORTEST = 4
"""Characters from which on the value of an environment variable is taken for a secret wherever it turns up."""


class Address:
    """What the user asked for: ``str`` and ``repr`` give it redacted, ``reveal`` as it is.

    Args:
        template: the URI or pipeline, with ``${NAME}`` for environment variables.
        whole: whether all of it is one URI; otherwise URIs are looked for in it, as in a GStreamer pipeline.

    Raises:
        SpecError: a variable is not set.

    Example:
        >>> Address("rtsp://admin:hunter2@camera:554/live?token=abc")
        rtsp://***@camera:554/live?token=***
    """

    __slots__ = ("_raw", "_secrets", "shown")

    def __init__(self, template: str, *, whole: bool = True, environment: Mapping[str, str] | None = None) -> None:
        self.shown, _ = _redact(template, whole)
        self._raw, values = _expand(template, os.environ if environment is None else environment, self.shown)
        _, found = _redact(self._raw, whole)
        secrets = {self._raw: self.shown}
        for value, name in values.items():
            if len(value) >= _SHORTEST:
                secrets[value] = name
        for secret in found:
            secrets.update(dict.fromkeys((secret, unquote(secret), quote(secret, safe="")), HIDDEN))
        # The longest first, lest a short one break up a long one and leave the rest of it.
        self._secrets = sorted(((old, new) for old, new in secrets.items() if old), key=lambda pair: -len(pair[0]))

    def reveal(self) -> str:
        """The URI itself, for the library that opens it and for nothing else."""
        return self._raw

    def clean(self, text: object) -> str:
        """Foreign text on one line, without anything secret."""
        cleaned = str(text)
        for secret, shown in self._secrets:
            cleaned = cleaned.replace(secret, shown)
        return " ".join(_redact(cleaned, whole=False)[0].split())

    def __str__(self) -> str:
        return self.shown

    __repr__ = __str__


def _expand(template: str, environment: Mapping[str, str], shown: str) -> tuple[str, dict[str, str]]:
    """The text with variables replaced, and of each value how it may be shown."""
    values: dict[str, str] = {}

    def value(match: re.Match[str]) -> str:
        if match[1] not in environment:
            raise SpecError(f"{shown}: the environment variable {match[1]} is not set")
        found = environment[match[1]]
        values[found] = match[0]
        return found

    return _VARIABLE.sub(value, template), values


def _redact(text: str, whole: bool) -> tuple[str, list[str]]:
    """The text without secrets, and the secrets."""
    secrets: list[str] = []

    def url(match: re.Match[str] | str) -> str:
        scheme, mark, rest = (match if isinstance(match, str) else match[0]).partition("://")
        if not mark or "@" not in rest:
            return scheme + mark + rest
        # Passwords written by hand hold any sign, slashes too: what stands before the last @ is never shown, even where
        # that hides a host whose path has an @.
        hidden, _, shown = rest.rpartition("@")
        user, _, password = hidden.partition(":")
        secrets.extend((hidden, user, password))
        return f"{scheme}://{HIDDEN}@{shown}"

    def setting(match: re.Match[str]) -> str:
        value = match[2].strip("\"'")
        if not value or value == HIDDEN:
            return match[0]
        secrets.append(value)
        return match[1] + HIDDEN

    text = url(text) if whole else _URL.sub(url, text)
    return _SETTING.sub(setting, text), secrets
