"""The page in a real browser, over a real run of the shipped network: it loads, moves, resets, survives a reconnect.

``EDGECO_SCREENSHOT=docs/preview.png python -m pytest tests/runtime/preview/test_browser.py`` makes the picture of the
docs anew.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, find_browser
from told_run import LABELS, ToldRun, delivery

from edgeco.devices.telemetry import Telemetry
from edgeco.runtime.model import load
from edgeco.runtime.pipeline import Pipeline
from edgeco.runtime.preview import Preview
from edgeco.runtime.sinks import Delivery
from edgeco.runtime.sources import open_source
from edgeco.runtime.sources.patience import Patience
from edgeco.runtime.sources.scripted import Raise, scripted

BUNDLE = Path(__file__).parents[3] / "edgeco/models/bundles/camera-motion.edgeco"
SCENE = "pattern://motion?size=480x360&fps=30&script=pan-left:120,zoom-in:90,tilt-up:120,roll:90"
TOKEN = "a-token-of-some-length"
RESET = "{method: 'POST', headers: {'X-Edgeco': 'reset'}}"
PICTURES = "Number(document.body.dataset.pictures)"
STATE = "document.body.dataset.state"

if find_browser() is None:
    pytest.skip("there is no Chromium: apt install chromium", allow_module_level=True)
pytest.importorskip("cv2", reason="pictures are encoded by OpenCV")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(str(find_browser()), tmp_path_factory.mktemp("browser")) as opened:
        yield opened


class Drawn:
    """A sensor of power for the tile."""

    name, covers = "VDD_IN (ina3221 at 1-0040)", "module"

    def watts(self) -> float:
        return 6.2

    def joules(self) -> None:
        return None


class RealRun:
    """The shipped network on a drawn scene, with a camera that can be unplugged."""

    def __init__(self) -> None:
        with open_source(
            "pattern://motion?size=480x360&fps=30&script=pan-left:45,zoom-in:45,tilt-up:45,roll:45"
        ) as scene:
            self._images = [frame.image for frame in scene]
        self.unplugged = threading.Event()
        self.records: list[Any] = []
        self.preview = Preview(0, title="camera-motion", telemetry=Telemetry([Drawn()]))
        self.source = scripted(self._steps(), fps=30.0, name="camera", patience=Patience(first_pause=3.0))
        model = load(BUNDLE, threads=1)
        self.pipeline = Pipeline(model, self.source, [self.preview, Recorder(self.records)])
        self.preview.watch(self.pipeline)
        self.pipeline.start()

    def _steps(self) -> Iterator[Any]:
        for image in cycle(self._images):
            if self.unplugged.is_set():
                self.unplugged.clear()
                yield Raise(OSError(errno.ENODEV, "No such device"))
            yield image

    def close(self) -> None:
        self.pipeline.stop()
        self.pipeline.wait()
        self.source.close()


class Recorder:
    """Keeps the records."""

    def __init__(self, records: list[Any]) -> None:
        self._records = records

    def take(self, delivery: Delivery) -> None:
        self._records.append(delivery.record)

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture(scope="module")
def run() -> Iterator[RealRun]:
    opened = RealRun()
    yield opened
    opened.close()


@pytest.fixture
def page(browser: Browser, run: RealRun) -> Browser:
    """The page of the real run, running, in a window of usual size."""
    browser.screen(1280, 900, dark=True)
    browser.said.clear()
    browser.open(run.preview.address)
    browser.wait(f"{STATE} === 'running' && {PICTURES} > 1")
    return browser


def test_it_loads_whole_from_this_server(page: Browser, run: RealRun) -> None:
    assert page.ask("document.title") == "camera-motion"
    loaded = page.ask("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert loaded and all(name.startswith((run.preview.address, "ws://127.0.0.1")) for name in loaded)
    assert page.ask("document.getElementById('best').textContent") in {s.label for s in run.pipeline.status().top} | {
        page.ask("document.querySelector('#bars .name').textContent")
    }
    assert page.ask("document.querySelectorAll('#bars li').length") == 5
    rows = page.ask("[...document.querySelectorAll('#stages th')].map((cell) => cell.textContent)")
    assert {"prepare", "step", "age"} <= set(rows)
    assert "6.2" in page.ask("document.getElementById('power').textContent")
    assert page.ask("document.getElementById('hottest').textContent") == "unavailable"
    assert page.said == []


def test_it_moves(page: Browser) -> None:
    """The picture, the chart and the figures change, also where nobody touches anything."""
    look = "document.getElementById('view').toDataURL() + document.getElementById('chart').toDataURL()"
    picture, chart = (f"document.getElementById('{name}').toDataURL()" for name in ("view", "chart"))
    assert page.ask(look)
    counts = "document.getElementById('counts').innerText"
    before = {script: page.ask(script) for script in (picture, chart, PICTURES, counts)}
    for script, value in before.items():
        page.wait(f"({script}) !== {value!r}")
    page.wait("Number(document.body.dataset.points) > 10")
    assert page.said == []


def test_its_button_resets_the_network(page: Browser, run: RealRun) -> None:
    seen = len(run.records)
    page.ask("document.getElementById('reset').click()")
    page.wait("document.getElementById('reset').textContent === 'Reset asked'")
    page.wait("document.getElementById('reset').textContent === 'Reset'")
    page.wait(f"{STATE} === 'running'")
    assert sum("reset" in record for record in run.records[seen:]) == 1
    assert page.said == []


def test_it_survives_a_reconnect(page: Browser, run: RealRun) -> None:
    page.ask("window.same = true")
    run.unplugged.set()
    page.wait(f"{STATE} === 'reconnecting'")
    assert "reconnecting" in page.ask("document.getElementById('veil').textContent")
    pictures = page.ask(PICTURES)
    page.wait(f"{STATE} === 'running'")
    page.wait(f"{PICTURES} > {pictures + 3}")
    assert page.ask("window.same") is True, "it was never loaded again"
    assert page.ask("document.getElementById('veil').textContent") == ""
    assert "reconnected 1×" in page.ask("document.getElementById('source').textContent")
    assert page.said == []


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1280, 720), (820, 1180), (390, 844)])
def test_nothing_sticks_out(page: Browser, width: int, height: int) -> None:
    for dark in (True, False):
        page.screen(width, height, dark=dark)
        assert page.ask("document.documentElement.scrollWidth") <= width
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.ask(ground)
    page.screen(width, height, dark=True)
    assert page.ask(ground) != light


def test_a_foreign_page_can_do_nothing(browser: Browser, run: RealRun) -> None:
    browser.open("about:blank")
    seen = len(run.records)
    host = run.preview.address.removeprefix("http://").rstrip("/")
    simple = "{method: 'POST', mode: 'no-cors'}"
    browser.ask(f"fetch('http://{host}/reset', {simple}).then(() => 1, () => 0)")
    for path, options in (("reset", RESET), ("metrics", "{}")):
        assert browser.ask(f"fetch('http://{host}/{path}', {options}).then(() => 1, () => 0)") == 0
    events = "socket.onopen = () => resolve(1); socket.onerror = () => resolve(0);"
    opened = f"new Promise((resolve) => {{ const socket = new WebSocket('ws://{host}/live'); {events} }})"
    assert browser.ask(opened) == 0
    assert not any("reset" in record for record in run.records[seen:])


def test_a_link_with_a_token_opens_the_page_and_hides_the_token(browser: Browser, show: Callable[..., Preview]) -> None:
    preview = show(token=TOKEN)
    browser.open(preview.address)
    browser.wait("document.body && document.body.innerText.includes('its token')")
    browser.open(preview.link())
    browser.wait(f"{STATE} === 'running'")
    assert browser.ask("location.href") == preview.address
    assert TOKEN not in browser.ask("document.documentElement.outerHTML + document.cookie")
    assert browser.ask(f"fetch('reset', {RESET}).then((answer) => answer.status)") == 202


def test_a_label_is_text_whatever_it_holds(browser: Browser, show: Callable[..., Preview], told: ToldRun) -> None:
    told.become(top=tuple(told.now.top[::-1]))
    preview = show()
    preview.take(delivery(1))
    browser.open(preview.address)
    browser.wait(f"{STATE} === 'running' && {PICTURES} > 0")
    assert browser.ask("document.getElementById('best').textContent") == LABELS[2]
    assert browser.ask("document.querySelectorAll('main b').length") == 0


def test_it_comes_back_after_the_server_was_gone(browser: Browser, show: Callable[..., Preview], told: ToldRun) -> None:
    preview = show()
    port = preview.port
    preview.take(delivery(1))
    browser.open(preview.address)
    browser.wait(f"{STATE} === 'running' && {PICTURES} > 0")
    browser.ask("window.same = true")
    preview.close()
    browser.wait(f"{STATE} === 'ended'")
    again = Preview(port)
    try:
        again.watch(told)
        browser.wait(f"{STATE} === 'running'")
        assert browser.ask("window.same") is True
    finally:
        again.close()


@pytest.mark.skipif("EDGECO_SCREENSHOT" not in os.environ, reason="EDGECO_SCREENSHOT names no file")
def test_screenshot(page: Browser) -> None:
    page.wait("Number(document.body.dataset.points) > 300", seconds=120)
    page.screen(1200, 860, dark=True)
    page.wait(f"{PICTURES} > {page.ask(PICTURES) + 20}")
    page.screenshot(Path(os.environ["EDGECO_SCREENSHOT"]))
