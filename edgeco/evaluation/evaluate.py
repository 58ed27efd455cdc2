"""Case by case through the step network, and where there is one through the clip network; what both say is counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeco.bundle.manifest import Manifest
from edgeco.errors import DataError, SpecError
from edgeco.evaluation.report import Confusion, EvalReport, Mode
from edgeco.runtime.model import Model
from edgeco.runtime.pacer import Pacer
from edgeco.runtime.pre import preparer
from edgeco.runtime.result import activate
from edgeco.runtime.stream import Stream
from edgeco.train.data import Case, Data

if TYPE_CHECKING:
    from edgeco.evaluation.clips import ClipNetwork

Answers = NDArray[np.float64]
"""(answers, classes)."""

Progress = Callable[[int, int], None]
"""Called with the number of cases done and how many there are."""


def evaluate_bundle(
    model: Model, data: Data, *, source: str = "", every: int | None = None, progress: Progress | None = None
) -> EvalReport:
    """A bundle's accuracy on labelled recordings, through its own engine.

    Args:
        model: the loaded bundle.
        data: cases whose labels are places in the model's (`Data.labelled`), as they were read: frames are prepared and
            paced as ``edgeco run`` does it.
        source: what the report calls the data.
        every: frames from the end of one window to the next; end to end if None.
        progress: told of every case.

    Raises:
        DataError: a case has no label, or the labels are not the network's.
        FrameError: a frame does not fit the network.
        SourceError: a recording cannot be read to its end.
    """
    return _evaluate(model, data, None, source, every, progress)


def evaluate_network(
    network: ClipNetwork,
    model: Model,
    data: Data,
    *,
    source: str = "",
    every: int | None = None,
    progress: Progress | None = None,
) -> EvalReport:
    """``evaluate_bundle``, and the clip network on the windows that end at the same frames.

    Args:
        network: the clip network that the bundle was built from.
        model, data, source, every, progress: as of `evaluate_bundle`.
    """
    return _evaluate(model, data, network, source, every, progress)


def _evaluate(
    model: Model,
    data: Data,
    network: ClipNetwork | None,
    source: str,
    every: int | None,
    progress: Progress | None,
) -> EvalReport:
    manifest = model.manifest
    labels = _labels(manifest, data)
    if every is not None and every < 1:
        raise SpecError(f"every is {every}: give frames from window to window, 1 or more.")
    report = EvalReport(
        manifest.name, model.why, source, data.fingerprint, labels, manifest.timeline.clip_length,
        manifest.timeline.receptive_field, _mode(labels), Confusion(labels), None if network is None else _mode(labels),
    )  # fmt: skip
    pairs: list[tuple[int, float, float]] = []
    with model.stream() as stream:
        for number, case in enumerate(data):
            frames, answers = _stepped(model, stream, case, keep=network is not None)
            ends = _ends(len(answers), report.clip_length, every)
            _count_steps(report, case, answers, ends)
            if network is not None:
                report.short += len(answers) < report.clip_length
                given = network.answers(frames, ends)
                _count(report.clip, case, given, manifest.activation)
                pairs += [_pair(ours, answers[end]) for ours, end in zip(given, ends, strict=True)]
            report.cases, report.frames = number + 1, report.frames + len(answers)
            if progress is not None:
                progress(number + 1, len(data))
    if pairs := [pair for pair in pairs if np.isfinite(pair[1])]:
        report.agreement = sum(same for same, _, _ in pairs) / len(pairs)
        report.difference = max(gap for _, gap, _ in pairs) / max(max(size for _, _, size in pairs), 1e-12)
    return report


def _mode(labels: tuple[str, ...]) -> Mode:
    return Mode(Confusion(labels), Confusion(labels))


def _labels(manifest: Manifest, data: Data) -> tuple[str, ...]:
    """The network's classes. Raises DataError where the data's labels are not places in them."""
    shape = manifest.outputs[0].shape
    classes = shape[-1] if shape else 1
    if len(shape) > 1 or len(data.labels) != classes or manifest.labels not in (None, data.labels):
        raise DataError(
            f"{manifest.name} answers with {'x'.join(map(str, shape))} numbers, and the data have {len(data.labels)} "
            "classes; one number a class is due, in the data's order or by the network's labels."
        )
    bare = next((case.name for case in data if case.label is None), None)
    if bare is not None:
        raise DataError(f"{bare}: it has no label; give a folder per class, or a column of labels.")
    return manifest.labels or data.labels


def _stepped(model: Model, stream: Stream, case: Case, *, keep: bool) -> tuple[list[Any], Answers]:
    """The frames that the network was stepped with, and its answer after each; NaN where there is none yet."""
    pacer, every, prepare = Pacer(model.manifest.timeline.fps), Pacer(None), preparer(model)
    name = model.manifest.outputs[0].name
    classes = model.manifest.outputs[0].shape[-1] if model.manifest.outputs[0].shape else 1
    frames, answers = [], []
    standing = np.full(classes, np.nan)
    stream.reset()
    for frame in case.frames():
        # Where nobody knows the recording's rate it is taken for the network's, as edgeco run does with rows.
        timed = case.fps is not None or frame.clock != "rate"
        for _ in range((pacer if timed else every).decide(frame.stamp).times):
            result = stream.step(prepare(frame))
            if result.valid:
                standing = result.outputs[name].astype(np.float64).ravel()
            answers.append(standing)
            if keep:
                frames.append(frame)
    if not answers:
        raise DataError(f"{case.name}: there is no frame in it; remove it.")
    return frames, np.stack(answers)


def _ends(count: int, length: int, every: int | None) -> list[int]:
    """The last frames of the windows that are counted: whole ones, or the case's last frame if it is shorter."""
    return list(range(length - 1, count, every or length)) or [count - 1]


def _count_steps(report: EvalReport, case: Case, answers: Answers, ends: Sequence[int]) -> None:
    assert case.label is not None
    _count(report.step, case, answers[ends], "softmax")
    for place, answer in enumerate(answers):
        if np.isnan(answer).any():
            continue
        told = int(answer.argmax())
        right, total = report.seen.get(place + 1, (0, 0))
        report.seen[place + 1] = (right + (told == case.label), total + 1)
        if place >= ends[0]:
            report.every.add(case.label, told)


def _count(mode: Mode | None, case: Case, answers: Answers, activation: str) -> None:
    """The answers at the ends of a case's windows, each and all together."""
    assert mode is not None and case.label is not None
    given = [answer for answer in answers if not np.isnan(answer).any()]
    for answer in given:
        mode.windows.add(case.label, int(answer.argmax()))
    if given:
        mean = np.mean([activate(answer, activation) for answer in given], axis=0)
        mode.cases.add(case.label, int(mean.argmax()))


def _pair(clip: NDArray[np.float64], step: NDArray[np.float64]) -> tuple[int, float, float]:
    """Whether both say the same class, their greatest difference, and the greatest answer."""
    return int(clip.argmax() == step.argmax()), float(np.abs(clip - step).max()), float(np.abs(clip).max())
