"""Who is let in, decided over headers alone."""

from __future__ import annotations

import pytest

from edgeco.errors import SpecError
from edgeco.runtime.preview.guard import Guard, choose_token, is_loopback, policy

TOKEN = "a-token-of-some-length"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.4", False),
        ("robot.local", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_what_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_a_token_is_made_off_loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGECO_PREVIEW_TOKEN", raising=False)
    assert choose_token("127.0.0.1") is None
    made = {choose_token("0.0.0.0") for _ in range(50)}
    assert len(made) == 50 and all(token is not None and len(token) >= 32 for token in made)
    assert choose_token("127.0.0.1", TOKEN) == TOKEN
    monkeypatch.setenv("EDGECO_PREVIEW_TOKEN", TOKEN)
    assert choose_token("127.0.0.1") == choose_token("0.0.0.0") == TOKEN


@pytest.mark.parametrize("weak", ["short", "", "has a space in the middle of it", "quote'quote'quote'quote'"])
def test_a_token_that_keeps_nobody_out_is_refused(weak: str) -> None:
    with pytest.raises(SpecError, match="at least 16 characters") as refused:
        choose_token("0.0.0.0", weak)
    assert not weak or weak not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8080", True),
        ("localhost", True),
        ("LOCALHOST:9000", True),  # another port: a tunnel of ssh
        ("[::1]:8080", True),
        ("evil.example:8080", False),
        ("127.0.0.1.evil.example", False),
        ("localhost:8080@evil.example", False),
        ("192.168.1.4:8080", False),
        ("", False),
        ("localhost; script-src *", False),
    ],
)
def test_names_that_a_server_on_loopback_answers_to(host: str, allowed: bool) -> None:
    assert Guard(None, loopback=True).host_allowed(host) is allowed


def test_with_a_token_any_name_may_be_used_but_nothing_else() -> None:
    guard = Guard(TOKEN, loopback=False)
    assert guard.host_allowed("robot.local:8080") and not guard.host_allowed("robot local")


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({"Host": "localhost:1"}, True),  # no browser
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, True),
        ({"Host": "localhost:1", "Origin": "http://localhost:1", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, False),
        ({"Host": "localhost:1", "Origin": "http://evil.example"}, False),
        ({"Host": "localhost:1", "Origin": "null"}, False),
        ({"Host": "localhost:1", "Sec-Fetch-Site": "cross-site"}, False),
        ({"Host": "localhost:1", "Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": "null"}, False),
    ],
)
def test_which_pages_may_act(headers: dict[str, str], same: bool) -> None:
    assert Guard.same_origin(headers) is same


def test_who_knows_the_token() -> None:
    guard, other = Guard(TOKEN, False), Guard("another-token-as-long", False)
    assert guard.is_token(TOKEN) and not guard.is_token(TOKEN[:-1]) and not guard.is_token("")
    assert guard.knows({"Authorization": f"Bearer {TOKEN}"}, {})
    assert guard.knows({}, {guard.cookie_name: guard.cookie})
    for headers, cookies in (
        ({}, {}),
        ({"Authorization": f"Basic {TOKEN}"}, {}),
        ({"Authorization": "Bearer "}, {}),
        ({"Authorization": "Bearer \udcff\u00e9"}, {}),
        ({}, {guard.cookie_name: TOKEN}),
        ({}, {guard.cookie_name: other.cookie}),
        ({}, {other.cookie_name: other.cookie}),
    ):
        assert not guard.knows(headers, cookies)
    assert TOKEN not in guard.cookie and guard.cookie_name != other.cookie_name
    assert Guard(None, True).knows({}, {}) and not Guard(None, True).is_token("")


def test_the_policy_lets_nothing_in_from_elsewhere() -> None:
    said = dict(part.strip().split(" ", 1) for part in policy("localhost:8080").split(";"))
    assert said["default-src"] == said["frame-ancestors"] == said["base-uri"] == said["form-action"] == "'none'"
    assert said["script-src"] == said["style-src"] == said["img-src"] == "'self'"
    assert said["connect-src"] == "'self' ws://localhost:8080 wss://localhost:8080"
    assert "unsafe" not in policy("localhost:8080")
