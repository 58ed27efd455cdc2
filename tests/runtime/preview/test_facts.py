"""What the page and Prometheus are told, and the minute that the chart shows."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from told_run import LABELS, ToldRun

from edgeco.devices.telemetry import Clock, Reading
from edgeco.errors import EdgecoError
from edgeco.runtime.pipeline import State
from edgeco.runtime.preview.facts import WORDS, state_of, status_facts
from edgeco.runtime.preview.history import History
from edgeco.runtime.preview.metrics import exposition
from edgeco.runtime.preview.pictures import is_picture, jpeg
from edgeco.runtime.sources.status import State as SourceState

READING = Reading(
    at=1.0,
    power={"VDD_IN (ina3221 at 1-0040)": 6.2},
    temperatures={"cpu-thermal": 51.0, "gpu-thermal": 62.5},
    clocks={"gpu": Clock(1.02e9, 1.02e9, 0.4)},
    events={"over-current oc3": 3},
    throttled=("gpu-throttle-alert",),
)


class TestState:
    @pytest.mark.parametrize(
        ("state", "changes", "word"),
        [
            (SourceState.RUNNING, {}, "running"),
            (SourceState.RUNNING, {"is_warm": False}, "warm-up"),
            (SourceState.RUNNING, {"stepped": 0, "is_warm": False}, "waiting"),
            (SourceState.OPENING, {}, "opening"),
            (SourceState.STALLED, {}, "stalled"),
            (SourceState.RECONNECTING, {}, "reconnecting"),
            (SourceState.ENDED, {"state": State.STOPPING}, "stopping"),
            (SourceState.ENDED, {"state": State.ENDED}, "ended"),
            (SourceState.FAILED, {"state": State.FAILED}, "failed"),
            (SourceState.RUNNING, {"state": State.NEW}, "starting"),
        ],
    )
    def test_one_word_for_the_whole_run(
        self, told: ToldRun, state: SourceState, changes: dict[str, Any], word: str
    ) -> None:
        told.become(state, **changes)
        assert state_of(told.now) == word and word in WORDS

    def test_without_a_run_and_without_a_source_that_tells(self, told: ToldRun) -> None:
        assert state_of(None) == "starting"
        told.become(source=None)
        assert state_of(told.now) == "running" and status_facts(told.now, None)["source"] is None

    def test_a_sink_is_closed_before_the_run_has_ended(self, told: ToldRun) -> None:
        assert status_facts(told.now, None, over=True)["state"] == "ended"
        told.become(error="the camera is gone")
        facts = status_facts(told.now, None, over=True)
        assert (facts["state"], facts["detail"]) == ("failed", "the camera is gone")


def test_facts_are_plain_and_finite(told: ToldRun) -> None:
    told.become(age=math.nan, top=(*told.now.top[:1], told.now.top[1]._replace(score=math.inf)))
    facts = json.loads(json.dumps(status_facts(told.now, READING), allow_nan=False))
    assert facts["age"] is None and [entry["score"] for entry in facts["top"]] == [0.7, None]
    assert facts["counts"] == {"frames": 9, "stepped": 8, "valid": 7, "warm": 6, "gaps": 0}
    assert facts["drops"] == {"stale": 2, "sink video": 5}
    assert facts["stages"]["step"]["p99"] == pytest.approx(0.008, rel=0.01)
    assert facts["source"] == {
        "uri": "rtsp://cam/1",
        "state": "running",
        "size": [64, 48],
        "fps": 29.5,
        "reconnects": 1,
        "backend": "ffmpeg",
    }
    assert facts["telemetry"]["power"] == {"VDD_IN (ina3221 at 1-0040)": 6.2}
    assert (facts["telemetry"]["hottest"], facts["telemetry"]["throttled"]) == (62.5, ["gpu-throttle-alert"])


def test_what_a_device_does_not_say_is_null_and_not_0() -> None:
    facts = status_facts(None, Reading(at=0.0, unavailable={"power": "no sensor"}))["telemetry"]
    assert (facts["power"], facts["no_power"], facts["hottest"], facts["gpu_clock"]) == ({}, "no sensor", None, None)


class TestMetrics:
    def test_every_line_is_of_the_format(self, told: ToldRun) -> None:
        text = exposition(told.now, READING)
        values = {}
        typed: set[str] = set()
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                assert kind in ("gauge", "counter", "summary") and name not in typed
                typed.add(name)
            elif not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                values[name] = float(value)
                bare = name.split("{")[0]
                assert bare in typed or bare.removesuffix("_sum").removesuffix("_count") in typed
        assert text.endswith("\n") and len(typed) > 12
        assert values['edgeco_state{state="running"}'] == 1 and values['edgeco_state{state="ended"}'] == 0
        assert values["edgeco_frames_total"] == 9
        assert (
            values['edgeco_drops_total{cause="stale"}'] == 2 and values['edgeco_drops_total{cause="sink video"}'] == 5
        )
        assert values['edgeco_stage_seconds_count{stage="step"}'] == 10
        assert values['edgeco_stage_seconds_sum{stage="step"}'] == pytest.approx(0.08)
        assert values['edgeco_stage_seconds{stage="step",quantile="0.99"}'] == pytest.approx(0.008, rel=0.01)
        assert values['edgeco_power_watts{sensor="VDD_IN (ina3221 at 1-0040)"}'] == 6.2
        assert values['edgeco_temperature_celsius{zone="gpu-thermal"}'] == 62.5
        assert values['edgeco_throttle_events_total{cause="over-current oc3"}'] == 3

    def test_labels_are_escaped(self, told: ToldRun) -> None:
        told.become(top=(told.now.top[2]._replace(label='a\\b"c\nd'),))
        assert 'edgeco_top_score{label="a\\\\b\\"c\\nd"} 0.1' in exposition(told.now, None)

    def test_what_is_not_known_has_no_line(self, told: ToldRun) -> None:
        told.become(age=None, source=None, stages={}, top=())
        text = exposition(told.now, Reading(at=0.0, unavailable={"power": "no sensor"}))
        for name in ("age", "reconnects", "power", "temperature", "stage_seconds", "top_score"):
            assert name not in text
        assert exposition(None, None).count("\n") == len(WORDS) + 2


class TestHistory:
    def test_points_are_thinned_and_the_oldest_leave(self) -> None:
        history = History(span=1.0, period=0.1)
        for step in range(400):
            history.add(step * 0.03, [{"index": step % 3, "label": LABELS[step % 3], "score": 0.5}])
        number, points, labels = history.since(0)
        assert len(points) == 20 and number == 100
        assert all(later[0] - earlier[0] >= 0.1 - 1e-9 for earlier, later in pairwise(points))
        assert points[-1][0] == pytest.approx(11.88) and set(labels) == {index for _, s in points for index, _ in s}
        assert history.since(number) == (number, [], {})

    def test_asked_again_only_what_is_new_comes(self) -> None:
        history = History(period=0.5)
        history.add(1.0, [{"index": 4, "label": "four", "score": 0.5}])
        number, _, _ = history.since(0)
        history.add(2.0, [{"index": 5, "label": "five", "score": 0.5}])
        assert history.since(number) == (2, [(2.0, [(5, 0.5)])], {5: "five"})

    def test_scores_that_are_no_number(self) -> None:
        history = History()
        history.add(1.0, [{"index": 0, "label": "a", "score": None}])
        assert history.since(0) == (0, [], {})


class TestPictures:
    @pytest.mark.parametrize("shape", [(48, 64, 3), (48, 64, 1), (3000, 20, 3), (1, 1, 3)])
    def test_any_picture_becomes_a_small_jpeg(self, shape: tuple[int, ...]) -> None:
        cv2 = pytest.importorskip("cv2", reason="pictures are encoded by OpenCV")
        image = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
        assert is_picture(image)
        decoded = cv2.imdecode(np.frombuffer(jpeg(image), np.uint8), cv2.IMREAD_COLOR)
        assert max(decoded.shape[:2]) == min(960, max(shape[:2]))

    @pytest.mark.parametrize(
        "values", [np.zeros((3, 4), np.uint8), np.zeros((0, 0, 3), np.uint8), np.zeros((4, 4, 3), np.float32)]
    )
    def test_values_are_no_picture(self, values: Any) -> None:
        assert not is_picture(values)

    def test_what_cannot_be_encoded_is_an_error_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cv2 = pytest.importorskip("cv2", reason="pictures are encoded by OpenCV")
        monkeypatch.setattr(cv2, "imencode", lambda *_: (False, None))
        with pytest.raises(EdgecoError, match="cannot be encoded"):
            jpeg(np.zeros((4, 4, 3), np.uint8))
