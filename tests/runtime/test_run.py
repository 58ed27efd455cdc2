"""The run loop over real bundles: one record per frame, always."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeco.errors import FrameError, SourceError, SpecError, WriteError
from edgeco.runtime.frame import Frame
from edgeco.runtime.pipeline import Pipeline
from edgeco.runtime.result import Result
from edgeco.runtime.run import STAGES, Summary, record, run
from edgeco.runtime.sinks import Delivery, JsonLines, Keeps
from edgeco.runtime.sources import open_source

pytest.importorskip("onnxruntime", reason="networks are run by ONNX Runtime")

from picturenet import HEIGHT, LABELS, WIDTH, write_picturenet
from stepnets import history, stepnet, write_stepnet

from edgeco.runtime.model import Model, load


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(write_picturenet(tmp_path_factory.mktemp("bundle") / "mean.edgeco"), threads=1)


class Memory:
    """A sink that keeps records, and may fail."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.records: list[dict[str, Any]] = []
        self.fail_at = fail_at

    keeps = Keeps.ALL

    def take(self, delivery: Delivery) -> None:
        if self.fail_at == len(self.records):
            raise WriteError("full")
        self.records.append(dict(delivery.record))

    def close(self) -> None:
        pass


def colours(count: int, gap: int = 0) -> Iterator[Frame]:
    for index in range(count):
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        image[..., index % 3] = 200
        yield Frame(image, index / 10, "rate", index, gap if index else 0, f"colour {index}")


def test_every_frame_has_a_record(model: Model) -> None:
    sink, seen = Memory(), []
    summary = run(model, colours(7, gap=2), [sink], on_frame=lambda frame, result: seen.append((frame, result)), top=2)
    assert [entry["index"] for entry in sink.records] == list(range(7))
    assert [entry["stamp"] for entry in sink.records] == pytest.approx([index / 10 for index in range(7)])
    assert [entry["step"] for entry in sink.records] == list(range(7))
    assert [entry["gap"] for entry in sink.records] == [0, 2, 2, 2, 2, 2, 2]
    assert {entry["stepped"] for entry in sink.records} == {1}
    assert [entry["valid"] for entry in sink.records] == [False] + [True] * 6
    assert [entry["truth"] for entry in sink.records] == [f"colour {index}" for index in range(7)]
    assert ["top" in entry for entry in sink.records] == [False] + [True] * 6
    # Frame 1 is green after blue: both count 100, and the earlier class comes first.
    assert [score["label"] for score in sink.records[1]["top"]] == ["green", "blue"]
    assert [score["score"] for score in sink.records[1]["top"]] == pytest.approx([100, 100])
    assert [frame.index for frame, _ in seen] == list(range(7))
    assert [result.step for _, result in seen] == list(range(7))
    expected = Summary(7, 7, 6, 6, 12, summary.seconds, "source", summary.stages)
    assert summary == expected and summary.fps == pytest.approx(7 / summary.seconds)
    assert tuple(summary.stages) == STAGES
    assert {stage["count"] for stage in summary.stages.values()} == {7}
    assert all(stage["p50"] <= stage["p90"] <= stage["p99"] <= stage["max"] for stage in summary.stages.values())
    assert all(stage["mean"] * 7 <= summary.seconds for stage in summary.stages.values())
    json.dumps(summary.to_json())


def test_the_limit_reads_no_frame_too_many(model: Model) -> None:
    source = colours(10)
    assert run(model, source, frames=4).ended == "frames"
    assert next(source).index == 4


def test_stop_is_asked_before_every_frame(model: Model) -> None:
    asked: list[None] = []

    def stop() -> bool:
        asked.append(None)
        return len(asked) > 3

    sink = Memory()
    summary = run(model, colours(10), [sink], stop=stop)
    assert summary.ended == "stopped"
    assert summary.frames == len(sink.records) == 3


def test_an_empty_source(model: Model) -> None:
    summary = run(model, iter(()))
    assert (summary.frames, summary.ended, summary.stages) == (0, "source", {})
    assert Pipeline(model, ()).summary.fps == 0


def test_records_before_a_source_fails_are_written_and_summed(model: Model) -> None:
    def failing() -> Iterator[Frame]:
        yield from colours(5)
        raise SourceError("cable")

    sink = Memory()
    work = Pipeline(model, failing(), [sink])
    with pytest.raises(SourceError, match="cable"):
        work.run()
    assert len(sink.records) == work.summary.frames == 5
    assert work.summary.ended == "error"
    assert work.summary.seconds > 0


def test_errors_of_sinks_and_callbacks_pass_through(model: Model) -> None:
    sink = Memory(fail_at=2)
    with pytest.raises(WriteError, match="full"):
        run(model, colours(5), [sink])
    assert len(sink.records) == 2

    def failing(frame: Frame, result: Result) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(model, colours(5), on_frame=failing)


def test_a_run_begins_afresh(model: Model) -> None:
    first, second = Memory(), Memory()
    run(model, colours(4), [first])
    run(model, colours(4), [second])
    assert first.records == second.records


def test_pictures_of_any_size(model: Model) -> None:
    pytest.importorskip("cv2", reason="pictures are resized with OpenCV")
    sink = Memory()
    images = [np.full(shape, 90, np.uint8) for shape in ((30, 40, 3), (7, 5, 3), (HEIGHT, WIDTH, 3))]
    run(model, (Frame(image, index / 10, "rate", index) for index, image in enumerate(images)), [sink])
    assert [score["score"] for score in sink.records[2]["top"]] == pytest.approx([90, 90, 90])


def test_a_bad_frame_is_an_error(model: Model) -> None:
    with pytest.raises(FrameError):
        run(model, [Frame(np.zeros((4, 4), np.uint8), 0, "rate", 0)])


def test_networks_of_arrays_are_refused(tmp_path: Path) -> None:
    other = load(write_stepnet(tmp_path / "net.edgeco", stepnet(history("slots", 2))), threads=1)
    with pytest.raises(SpecError, match="takes arrays, not pictures"):
        run(other, colours(1))


def test_top_is_checked(model: Model) -> None:
    with pytest.raises(SpecError, match="at least 1"):
        run(model, colours(1), top=0)


def test_networks_without_labels_give_their_values(tmp_path: Path) -> None:
    bare = load(write_picturenet(tmp_path / "bare.edgeco", labels=None), threads=1)
    sink = Memory()
    run(bare, colours(2), [sink])
    assert "outputs" not in sink.records[0]
    assert sink.records[1]["outputs"]["colour"] == pytest.approx([0, 100, 100])
    assert [score["label"] for score in sink.records[1]["top"]] == ["1", "2", "0"]


def test_numbers_that_are_none() -> None:
    values = np.array([np.nan, np.inf, 1.0], np.float32)
    result = Result({"y": values}, True, True, 0.0, 0.0, 3, 1, LABELS, "none")
    entry = record(next(colours(1)), result)
    assert {score["label"]: score["score"] for score in entry["top"]} == {"red": None, "green": None, "blue": 1.0}


def test_recordings_have_a_line_for_every_frame(model: Model, recordings: list[Path], tmp_path: Path) -> None:
    for path in recordings:
        log = tmp_path / f"{path.stem}.jsonl"
        with open_source(path) as source, JsonLines(log) as sink:
            summary = run(model, source, [sink])
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        with open_source(path) as source:
            stamps = [frame.stamp for frame in source]
        assert summary.ended == "source"
        assert len(lines) == summary.frames == len(stamps) > 40
        assert [line["stamp"] for line in lines] == pytest.approx(stamps)
