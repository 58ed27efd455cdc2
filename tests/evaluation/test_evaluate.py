"""What an evaluation counts, on networks whose answers are known beforehand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgeco.building import build, resolve
from edgeco.errors import DataError, FrameError, SpecError
from edgeco.evaluation import evaluate_bundle, evaluate_network
from edgeco.evaluation.clips import ClipNetwork
from edgeco.evaluation.report import Confusion
from edgeco.runtime.model import Model, load
from edgeco.train.data import Case, Data, read_data
from edgeco.train.data.case import Held

LABELS = ("first", "second", "third")


class Loudest(nn.Module):
    """The mean of three values over four frames is the answer: the class is the greatest."""

    def __init__(self, padded: bool = False) -> None:
        super().__init__()
        self.smooth = nn.Conv1d(3, 3, 3, padding=1 if padded else 0, groups=3, bias=False)
        nn.init.constant_(self.smooth.weight, 1 / 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.smooth(x).mean(2)


def made(folder: Path, **fields: Any) -> tuple[Model, ClipNetwork]:
    def factory(padded: bool = False) -> nn.Module:
        return Loudest(padded)

    module = folder / "net.py"
    module.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_evaluate import Loudest\n"
        "def make(padded=False):\n    return Loudest(padded)\n"
    )
    given = {"model": f"{module}:make", "clip": (3, 6), "labels": LABELS, "fps": 10.0, **fields}
    build(given, folder / "net.edgeco")
    model = load(folder / "net.edgeco", threads=1)
    spec, found = resolve(given)
    return model, ClipNetwork(spec, found, model.manifest)


def case(name: str, label: int | None, classes: list[int], fps: float | None = 10.0) -> Case:
    """A recording in which at every frame one of the values is greatest."""
    frames = np.eye(3, dtype=np.float32)[classes]
    return Case(name, label, name, fps, Held(frames, fps))


def test_every_answer_is_counted_where_it_belongs(tmp_path: Path) -> None:
    model, network = made(tmp_path)
    data = Data((case("a", 0, [0] * 12), case("b", 1, [2] * 6 + [1] * 6), case("c", 2, [0] * 6)), LABELS)
    report = evaluate_network(network, model, data, source="told")
    assert report.clip is not None
    for mode in (report.clip, report.step):  # windows end at the frames 5 and 11
        assert mode.windows.counts.tolist() == [[2, 0, 0], [0, 1, 1], [1, 0, 0]]
        assert mode.windows.accuracy == 3 / 5 and mode.windows.recall == {"first": 1.0, "second": 0.5, "third": 0.0}
        assert mode.cases.total == 3
    assert (report.cases, report.frames, report.short) == (3, 30, 0)
    assert report.agreement == 1.0 and report.difference is not None and report.difference < 1e-5
    growth = {n: (share, number) for n, share, number in report.growth()}
    assert set(growth) == set(range(6, 13)) and growth[6] == (1 / 3, 3) and growth[12] == (1.0, 2)
    assert report.every.total == 7 + 7 + 1
    told = report.to_json()
    assert told["clip"]["accuracy"] == told["step"]["accuracy"] == 3 / 5
    assert told["frames_seen"][0] == {"frames": 6, "accuracy": 1 / 3, "cases": 3}


def test_windows_may_overlap(tmp_path: Path) -> None:
    model, network = made(tmp_path)
    report = evaluate_network(network, model, Data((case("a", 0, [0] * 12),), LABELS), every=1)
    assert report.step.windows.total == 7
    with pytest.raises(SpecError, match="every is 0"):
        evaluate_bundle(model, Data((case("a", 0, [0] * 12),), LABELS), every=0)


def test_a_short_case_is_led_by_its_first_frame(tmp_path: Path) -> None:
    model, network = made(tmp_path, start="replicate")
    report = evaluate_network(network, model, Data((case("a", 1, [0, 1, 1, 1]),), LABELS))
    assert report.short == 1 and report.clip is not None and report.step.windows.total == 1
    assert report.clip.windows.counts.tolist() == report.step.windows.counts.tolist()
    assert [n for n, _, _ in report.growth()] == [1, 2, 3, 4]


def test_a_difference_between_clip_and_step_is_seen(tmp_path: Path) -> None:
    """Padding in time: the clip network sees zeros at its end where the stream has frames."""
    model, network = made(tmp_path, arguments={"padded": True})
    report = evaluate_network(network, model, Data((case("a", 0, [1] * 8 + [0] * 22),), LABELS), every=1)
    assert report.difference is not None and report.difference > 0.01


def test_a_bundle_alone_is_stepped(tmp_path: Path) -> None:
    model, _ = made(tmp_path)
    report = evaluate_bundle(model, Data((case("a", 0, [0] * 12),), LABELS))
    assert report.clip is None and report.agreement is None and report.step.windows.accuracy == 1.0
    assert report.to_json()["clip"] is None


def test_frames_are_paced_as_in_a_run(tmp_path: Path) -> None:
    model, _ = made(tmp_path)
    counts = {}
    for fps in (10.0, 30.0, None):
        counts[fps] = evaluate_bundle(model, Data((case("a", 0, [0] * 60, fps),), LABELS)).frames
    assert counts == {10.0: 60, 30.0: 20, None: 60}


def test_answers_that_come_seldom_stand_until_the_next(tmp_path: Path) -> None:
    module = tmp_path / "slow.py"
    module.write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.AvgPool1d(2, 2), nn.AdaptiveAvgPool1d(1), nn.Flatten())\n"
    )
    fields = {"model": f"{module}:make", "clip": (3, 4), "labels": LABELS}
    build(fields, tmp_path / "slow.edgeco")
    model = load(tmp_path / "slow.edgeco", threads=1)
    assert model.manifest.timeline.stride == 2
    report = evaluate_bundle(model, Data((case("a", 0, [0] * 9),), LABELS), every=1)
    assert report.step.windows.counts[0, 0] == 6


def test_what_cannot_be_evaluated_is_refused(tmp_path: Path) -> None:
    model, _ = made(tmp_path)
    with pytest.raises(DataError, match="a: it has no label"):
        evaluate_bundle(model, Data((case("a", None, [0] * 9),), LABELS))
    with pytest.raises(DataError, match="answers with 3 numbers, and the data have 2"):
        evaluate_bundle(model, Data((case("a", 0, [0] * 9),), LABELS[:2]))
    with pytest.raises(DataError, match="by the network's labels"):
        evaluate_bundle(model, Data((case("a", 0, [0] * 9),), ("x", "y", "z")))
    wrong = Data((Case("a", 0, "a", None, Held(np.zeros((9, 4), np.float32))),), LABELS)
    with pytest.raises(FrameError, match="takes 3 values"):
        evaluate_bundle(model, wrong)


class Reddest(nn.Module):
    def forward(self, clip: Tensor) -> Tensor:
        return clip.mean((2, 3, 4))


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_pictures_have_the_colours_that_the_network_was_trained_with(tmp_path: Path, colour: str) -> None:
    """Red pictures are of class 0 in RGB and of class 2 in BGR, in clips as in steps."""
    (tmp_path / "net.py").write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_evaluate import Reddest as make\n"
    )
    red = np.zeros((8, 10, 3), np.uint8)
    red[..., 2] = 250
    name = "first" if colour == "rgb" else "third"
    (tmp_path / "data" / name / "a").mkdir(parents=True)
    for i in range(4):
        cv2.imwrite(str(tmp_path / "data" / name / "a" / f"{i}.png"), red)
    fields = {"model": f"{tmp_path / 'net.py'}:make", "clip": (3, 3, 8, 8), "labels": LABELS, "colour": colour,
              "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}  # fmt: skip
    build(fields, tmp_path / "net.edgeco")
    model = load(tmp_path / "net.edgeco", threads=1)
    spec, factory = resolve(fields)
    data = read_data(tmp_path / "data", labels=model.labels)
    report = evaluate_network(ClipNetwork(spec, factory, model.manifest), model, data)
    assert report.clip is not None and report.clip.windows.accuracy == report.step.windows.accuracy == 1.0
    assert report.difference is not None and report.difference < 1e-5


def test_a_network_that_answers_for_every_frame() -> None:
    from edgeco.evaluation.clips import _last

    answers = torch.arange(24.0).reshape(2, 4, 3)
    assert torch.equal(_last(answers), answers[:, -1]) and torch.equal(_last((answers[:, 0],)), answers[:, 0])
    assert torch.equal(_last({"a": answers[:, 0]}), answers[:, 0])


def test_a_bundle_is_evaluated_without_torch() -> None:
    program = (
        "import sys; import edgeco.evaluation, edgeco.train.data; print('torch' in sys.modules, 'onnx' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]


def test_an_empty_confusion_has_no_accuracy() -> None:
    counted = Confusion(LABELS)
    assert counted.accuracy is None and counted.recall["first"] is None
