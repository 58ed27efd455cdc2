"""Secrets in URIs are for the one who opens them and for nobody else."""

from __future__ import annotations

import errno
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeco.errors import EdgecoError, SpecError
from edgeco.runtime.sources import open_source
from edgeco.runtime.sources.address import Address
from edgeco.runtime.sources.live import LiveSource
from edgeco.runtime.sources.patience import Patience
from edgeco.runtime.sources.producer import Lost
from edgeco.runtime.sources.scripted import Raise, ScriptProducer


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://admin:hunter2@camera:554/live", "rtsp://***@camera:554/live"),
        ("rtsp://camera:554/live", "rtsp://camera:554/live"),
        ("rtsp://[::1]:554/live", "rtsp://[::1]:554/live"),
        ("rtsp://token@camera/live", "rtsp://***@camera/live"),
        ("rtsp://admin:p@ss/wo#rd?1@camera/live", "rtsp://***@camera/live"),
        ("rtsp://admin:pa/ss@camera/live", "rtsp://***@camera/live"),
        (
            "HTTPS://camera/x.mjpg?user=admin&password=hunter2&size=2",
            "HTTPS://camera/x.mjpg?user=***&password=***&size=2",
        ),
        ("http://camera/x?access_token=abc#read_timeout=2", "http://camera/x?access_token=***#read_timeout=2"),
        ("rtsp://camera/user=admin_password=hunter2_channel=1.sdp", "rtsp://camera/user=***"),
        ("csi://0?width=640&height=360&fps=30", "csi://0?width=640&height=360&fps=30"),
        ("clip with spaces.mp4", "clip with spaces.mp4"),
    ],
)
def test_what_is_shown(uri: str, shown: str) -> None:
    address = Address(uri)
    assert (str(address), repr(address), f"{address}") == (shown, shown, shown)
    assert address.reveal() == uri


def test_pipelines_are_searched_for_secrets() -> None:
    address = Address('rtspsrc location="rtsp://a:b@cam/1" user-id=admin user-pw="hunt er2" ! fakesink', whole=False)
    assert str(address) == 'rtspsrc location="rtsp://***@cam/1" user-id=*** user-pw=*** ! fakesink'


def test_variables_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAM_USER", "admin")
    monkeypatch.setenv("CAM_PW", "hunter2")
    monkeypatch.setenv("CAM_PATH", "secret-path")
    address = Address("rtsp://${CAM_USER}:${CAM_PW}@camera/${CAM_PATH}?n=1")
    assert address.reveal() == "rtsp://admin:hunter2@camera/secret-path?n=1"
    assert str(address) == "rtsp://***@camera/${CAM_PATH}?n=1"
    assert address.clean("401 for secret-path as admin:hunter2") == "401 for ${CAM_PATH} as ***"
    with pytest.raises(SpecError, match=r"rtsp://\*\*\*@camera/\$\{NOT_SET\}: the environment variable NOT_SET is not"):
        Address("rtsp://me:pw@camera/${NOT_SET}")
    assert Address("price $5 ${}").reveal() == "price $5 ${}"


def test_a_source_of_any_form_may_have_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMES", "2")
    with open_source("pattern://bars?size=16x16&frames=${FRAMES}") as source:
        assert len(list(source)) == 2


def test_foreign_text_is_cleaned() -> None:
    address = Address("rtsp://ad%40min:p%40ss%2Fw@camera/live?token=tok")
    for text in (
        "cannot open rtsp://ad%40min:p%40ss%2Fw@camera/live?token=tok now",
        "bad password p@ss/w for ad@min",
        "DESCRIBE rtsp://other:thing@camera/live",
        "header Authorization=Basic",
        "query tok\nnext line",
    ):
        cleaned = address.clean(text)
        assert not any(
            secret in cleaned for secret in ("p%40ss", "p@ss", "ad@min", "ad%40min", "thing", "tok", "Basic")
        )
        assert "\n" not in cleaned


SECRETS = st.text(
    st.characters(codec="ascii", exclude_characters=" !\"'&", categories=("L", "N", "P", "S")), min_size=9
)


@given(SECRETS.filter(lambda user: ":" not in user), SECRETS)
def test_no_password_is_ever_shown(user: str, password: str) -> None:
    uri = f"rtsp://{user}:{password}@camera/live"
    try:
        address = Address(uri, environment={})
    except SpecError as error:
        assert password not in str(error)
        return
    for text in (str(address), address.clean(f"cannot open {uri}"), address.clean(f"no {password} here")):
        assert password not in text
    assert str(address) == "rtsp://***@camera/live"


PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
HIDDEN = ("hunter2", "admin")
URIS = [
    "rtsp://admin:hunter2@127.0.0.1:9/live",
    "rtsps://admin:hunter2@127.0.0.1:9/live#attempts=0",
    "http://admin:hunter2@127.0.0.1:9/x.mjpg",
    "https://127.0.0.1:9/x.mjpg?user=admin&password=hunter2",
    "rtsp://admin:hunter2@127.0.0.1:9/live#attempts=many",
    "rtsp://admin:hunter2@127.0.0.1:9/live#colour=red",
    "rtsp://admin:hunter2@127.0.0.1:9/live#attempts=1&attempts=2",
    "rtsp://admin:hunter2@${NO_SUCH_VARIABLE}/live",
    "rtmp://admin:hunter2@camera/live",
    "csi://admin:hunter2@0",
    "v4l2://admin:hunter2@0?width=3",
    "pattern://admin:hunter2@bars",
    "pattern://bars?password=hunter2&user=admin",
    "file://admin:hunter2@host",
    "rtspsrc location=rtsp://admin:hunter2@127.0.0.1:9/live ! decodebin ! videoconvert ! appsink",
    "rtspsrc location=rtsp://127.0.0.1:9/live user-id=admin user-pw=hunter2 ! fakesink",
]


@pytest.mark.parametrize("uri", URIS)
def test_credentials_are_in_no_error_and_no_repr(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2")
    for name in ("NO_SUCH_VARIABLE", *PROXIES, *map(str.lower, PROXIES)):
        monkeypatch.delenv(name, raising=False)
    said = []
    try:
        with open_source(uri, **({"open_timeout": 2.0} if "://127" in uri or "@127" in uri else {})) as source:
            said.append(repr(source) + source.uri)
            next(source, None)
    except EdgecoError as error:
        said.append("".join(traceback.format_exception(error)))
        said.append(str(error) + repr(error))
    else:
        pytest.fail("it cannot have been opened")
    if "source" in locals():
        said.extend(str(event) for event in source.events())
        said.extend((str(source.status()), repr(source)))
    # A traceback also shows lines of this test, none of which holds what is looked for.
    assert not [text for text in said for secret in HIDDEN if secret in text]


def test_credentials_are_in_no_event_of_a_running_source() -> None:
    address = Address("rtsp://admin:hunter2@camera/live")
    steps = [
        Raise(OSError(errno.ENODEV, "gone: rtsp://admin:hunter2@camera/live")),
        Raise(ValueError("bad rtsp://admin:hunter2@camera/live")),
    ]
    patience = Patience(patient=True, first_pause=0.01)
    source = LiveSource(address, ScriptProducer(steps, None, address=address), patience=patience)
    with source, pytest.raises(EdgecoError) as caught:
        next(source)
    said = [str(caught.value), repr(source), str(source.status()), *(str(event) for event in source.events())]
    said.append("".join(traceback.format_exception(caught.value)))
    assert len(source.events()) == 2
    assert not [text for text in said for secret in HIDDEN if secret in text]
    assert "rtsp://***@camera/live" in str(caught.value)
    assert isinstance(Lost("x"), Exception)
