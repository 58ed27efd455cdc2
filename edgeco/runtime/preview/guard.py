"""Who may see the page: host names, origins, the token, and what browsers are told to refuse.

Three ways in are closed. A foreign page in the same browser that has its own name resolve to 127.0.0.1 (DNS rebinding)
sends its own ``Host``, which a server on loopback refuses. A foreign page that opens a WebSocket to, or posts at, this
server sends its own ``Origin``, and cannot send the header that a reset asks for. Anyone on the network needs the
token, which is compared in constant time and is in the address only once: the first answer puts a value derived from it
into a cookie.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

from edgeco.errors import SpecError

TOKEN_VARIABLE = "EDGECO_PREVIEW_TOKEN"
LEAST_TOKEN = 16
RESET_HEADER = "X-Edgeco"
"""A header that only pages of the same origin can send without being asked; forms cannot send it at all."""

_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?P<port>:\d{1,5})?")

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address that is listened on."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def choose_token(host: str, given: str | None = None) -> str | None:
    """The token that is asked for: what was given or is in the environment, a new one off loopback, None on it.

    Raises:
        SpecError: a token too short to keep anyone out.
    """
    token = given if given is not None else os.environ.get(TOKEN_VARIABLE) or None
    if token is not None and (len(token) < LEAST_TOKEN or not re.fullmatch(r"[A-Za-z0-9._~-]+", token)):
        raise SpecError(
            f"a token of the preview ({TOKEN_VARIABLE}) has at least {LEAST_TOKEN} characters, "
            "letters, digits and . _ ~ - only"
        )
    return token if token is not None or is_loopback(host) else secrets.token_urlsafe(24)


class Guard:
    """Decides over requests by their headers.

    Args:
        token: what those who may enter know; None lets everybody in who reaches the server, which then is on loopback.
        loopback: whether the server can be reached from this machine alone.
    """

    def __init__(self, token: str | None, loopback: bool) -> None:
        self._token, self._loopback = token, loopback
        secret = (token or "").encode()
        self._cookie = hmac.new(secret, b"edgeco preview", hashlib.sha256).hexdigest()
        # One name for each token: cookies do not know ports, and two robots may be looked at through two tunnels.
        self.cookie_name = f"edgeco_{hashlib.sha256(b'name' + secret).hexdigest()[:8]}"

    @property
    def cookie(self) -> str:
        """What proves later that the token was known."""
        return self._cookie

    def host_allowed(self, host: str) -> bool:
        """Whether a request's ``Host`` may be answered. With a token any name may: knowing it is what counts."""
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        return not self._loopback or self._token is not None or is_loopback(found["name"].strip("[]").lower())

    @staticmethod
    def same_origin(headers: Mapping[str, str]) -> bool:
        """Whether a page of this server asks, or a program that is no browser and sends no ``Origin``."""
        if headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            return False
        origin = headers.get("Origin")
        return origin is None or urlsplit(origin).netloc.lower() == headers.get("Host", "").lower() != ""

    def knows(self, headers: Mapping[str, str], cookies: Mapping[str, str]) -> bool:
        """Whether a request shows the cookie, or the token itself as ``Authorization: Bearer``."""
        if self._token is None:
            return True
        kind, _, given = headers.get("Authorization", "").partition(" ")
        by_header = kind.lower() == "bearer" and self.is_token(given.strip())
        return _equal(cookies.get(self.cookie_name, ""), self._cookie) or by_header

    def is_token(self, given: str) -> bool:
        """Whether this is the token."""
        return self._token is not None and _equal(given, self._token)


def policy(host: str) -> str:
    """The content security policy: nothing from elsewhere, nothing inline; WebSockets to this host alone."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _equal(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), right.encode())
