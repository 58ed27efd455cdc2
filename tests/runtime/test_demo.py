"""The demonstration: what counts, what is compared with what, and how it is drawn."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from edgeco.errors import BundleError
from edgeco.runtime import demo
from edgeco.runtime.demo import DemoFrame, DemoReport, load_demo, run_demo
from edgeco.runtime.result import Result
from edgeco.runtime.run import Summary
from edgeco.runtime.sources.pattern import MOTIONS
from edgeco.show.demo import show_demo

FIELD = 5


class Oracle:
    """A model that tells the truth of ``delay`` frames ago, or what ``lie`` makes of it."""

    def __init__(self, delay: int = 0, lie: Any = lambda motion: motion, labels: Any = MOTIONS) -> None:
        self.labels, self.lie, self.delay = labels, lie, delay
        self.why = "an oracle."
        self.manifest: Any = SimpleNamespace(
            name="oracle",
            inputs=(SimpleNamespace(name="frame", kind="image"),),
            preprocessing=SimpleNamespace(size=(12, 16)),
            timeline=SimpleNamespace(receptive_field=FIELD, delay=delay, fps=20.0),
        )

    def preprocessor(self) -> Any:
        return lambda image: image

    def stream(self) -> Any:
        truths: list[str] = []
        model = self

        class Stream:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def step(self, image: np.ndarray) -> Result:
                assert image.shape == (12, 16, 3)
                truths.append(MOTIONS[len(truths) // max(30, 3 * FIELD)])
                told = model.lie(truths[max(0, len(truths) - 1 - model.delay)])
                scores = np.array([label == told for label in MOTIONS], np.float32)
                step = len(truths) - 1
                valid = step >= FIELD - 1
                return Result({"y": scores}, valid, valid, None, 0.0, step, 1, model.labels)

        return Stream()


@pytest.mark.parametrize("delay", [0, 3])
def test_an_oracle_is_right_at_every_frame_that_counts(delay: int) -> None:
    report = run_demo(Oracle(delay))  # type: ignore[arg-type]
    assert report.accuracy == 1 and report.passed
    length = max(30, 3 * FIELD)
    assert len(report.frames) == len(MOTIONS) * length
    assert report.counted == len(MOTIONS) * (length - FIELD + 1)
    assert set(report.by_motion.values()) == {1.0}
    assert [frame.seen is None for frame in report.frames[:6]] == [True] * 4 + [False] * 2
    # With its delay the oracle is right at every frame, transitions included.
    assert all(frame.seen == frame.truth for frame in report.frames if frame.seen is not None)


def test_a_liar_fails() -> None:
    report = run_demo(Oracle(lie=lambda motion: "still"))  # type: ignore[arg-type]
    assert report.accuracy == pytest.approx(1 / 8)
    assert not report.passed
    assert report.by_motion["roll"] == 0 and report.by_motion["still"] == 1
    assert report.to_json()["passed"] is False


@pytest.mark.parametrize("labels", [None, ("cat", "dog"), MOTIONS[:-1]])
def test_other_networks_are_refused(labels: Any) -> None:
    with pytest.raises(BundleError, match="does not tell camera motions"):
        run_demo(Oracle(labels=labels))  # type: ignore[arg-type]


def test_labels_may_be_spelled_with_hyphens() -> None:
    hyphens = tuple(motion.replace(" ", "-") for motion in MOTIONS)
    assert run_demo(Oracle(labels=hyphens)).accuracy == 1  # type: ignore[arg-type]


def test_a_missing_bundle_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SHIPPED", ("models", "bundles", "none.edgeco"))
    with pytest.raises(BundleError, match="without its demonstration bundle"):
        load_demo()


def drawn(report: DemoReport, encoding: str, width: int = 100) -> str:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    show_demo(report, Console(file=out, width=width))
    out.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize(("encoding", "marks"), [("utf-8", "·←→↑↓+−↻"), ("ascii", ".<>^v+-o")])
def test_strips(encoding: str, marks: str) -> None:
    frames = [DemoFrame(index / 10, MOTIONS[index // 10], None, True) for index in range(80)]
    told = [
        DemoFrame(frame.stamp, frame.truth, None if index < 4 else MOTIONS[0], index >= 4)
        for index, frame in enumerate(frames)
    ]
    report = DemoReport(tuple(told), Summary(80, 80, 76, 76, 0, 4.0, "source", {}), "why")
    lines = {line.split(" ")[0]: line[9:] for line in drawn(report, encoding).splitlines()}
    assert lines["true"] == "".join(mark * 10 for mark in marks)
    assert lines["told"] == "    " + marks[0] * 76
    assert lines["wrong"].rstrip() == " " * 10 + "x" * 70
    assert "7.9%" in drawn(report, encoding)  # 6 of 76


def test_long_runs_are_drawn_in_the_width_there_is() -> None:
    frames = tuple(DemoFrame(index / 10, MOTIONS[index // 100], MOTIONS[index // 100], True) for index in range(800))
    report = DemoReport(frames, Summary(800, 800, 800, 800, 0, 4.0, "source", {}), "why")
    lines = drawn(report, "utf-8", 89).splitlines()
    strip = next(line[9:] for line in lines if line.startswith("told"))
    assert strip == "".join(mark * 10 for mark in "·←→↑↓+−↻")
    assert max(map(len, lines)) <= 89
