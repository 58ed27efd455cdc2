"""``edgeco eval``: the network and the data found, the evaluation watched, what it counted printed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Table

from edgeco.command import need_build_side, shape_of
from edgeco.errors import DataError, SpecError
from edgeco.runtime.model import Model, load
from edgeco.show.console import console, facts, plain, print_json, say, table

if TYPE_CHECKING:
    from edgeco.evaluation import EvalReport, Mode
    from edgeco.train.data import Data

_WIDEST = 12
"""Classes up to which a confusion matrix is printed."""
_POINTS = 12
"""Lines of the table of frames seen."""


@dataclass(frozen=True)
class EvalOptions:
    """What ``edgeco eval`` was asked for, by the names of its options."""

    model: str
    data: Path
    bundle: Path | None = None
    weights: str | None = None
    config: Path | None = None
    arguments: tuple[str, ...] = ()
    labels: str | None = None
    fps: float | None = None
    shape: str | None = None
    cases: int | None = None
    seed: int = 0
    every: int | None = None
    engine: str = "auto"
    threads: int | None = None
    precision: Literal["fp32", "fp16", "int8"] | None = None
    as_json: bool = False


def evaluate_model(options: EvalOptions) -> None:
    """Evaluate and print.

    Raises:
        EdgecoError: whatever the options, the network, the data or the engine raise.
    """
    with _progress(console(stderr=True)) as progress:
        report = _bundle_alone(options, progress) if _is_bundle(options.model) else _both(options, progress)
    if options.as_json:
        print_json(report.to_json())
    else:
        show_evaluation(report, console())


def _is_bundle(model: str) -> bool:
    return model.endswith(".edgeco") or (Path(model).is_file() and not model.endswith(".pt2"))


def _bundle_alone(options: EvalOptions, progress: Callable[[int, int], None]) -> EvalReport:
    from edgeco.evaluation import evaluate_bundle

    given = {name: getattr(options, name) for name in ("bundle", "weights", "config", "labels")}
    for name, value in given.items():
        if value is not None:
            raise SpecError(f"--{name} is for a network that is built, and {options.model} is a bundle; leave it out.")
    model = _loaded(options, options.model)
    data = _data(options, model)
    return evaluate_bundle(model, data, source=options.data.name, every=options.every, progress=progress)


def _both(options: EvalOptions, progress: Callable[[int, int], None]) -> EvalReport:
    need_build_side()
    from edgeco.building import build, resolve
    from edgeco.evaluation import evaluate_network
    from edgeco.evaluation.clips import ClipNetwork
    from edgeco.spec import fields_from

    if not options.data.exists():  # before the minutes that a build takes
        raise DataError(f"{options.data}: no such file or folder; give recordings.")
    flags = {"model": options.model, "weights": options.weights, "labels": options.labels}
    fields = fields_from(options.config, flags, options.arguments)
    with tempfile.TemporaryDirectory(prefix="edgeco-") as folder:
        bundle = options.bundle or Path(folder) / "built.edgeco"
        if options.bundle is None:
            build(fields, bundle, lambda stage: say(f"building: {stage}"))
        model = _loaded(options, bundle)
        data = _data(options, model)
        spec, factory = resolve(fields)
        network = ClipNetwork(spec, factory, model.manifest)
        return evaluate_network(network, model, data, source=options.data.name, every=options.every, progress=progress)


def _loaded(options: EvalOptions, bundle: str | Path) -> Model:
    return load(bundle, engine=options.engine, threads=options.threads, precision=options.precision, say=say)


def _data(options: EvalOptions, model: Model) -> Data:
    """The data, with labels as the network's places."""
    from edgeco.train.data import read_data

    manifest = model.manifest
    shape = shape_of(options.shape)
    if shape is None and options.data.suffix.lower() in (".csv", ".tsv"):
        shape = (manifest.timeline.clip_length, *manifest.inputs[0].shape)
    data = read_data(options.data, labels=manifest.labels, fps=options.fps, shape=shape)
    return data if options.cases is None else data.subset(options.cases, options.seed)


@contextmanager
def _progress(shown: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing elsewhere."""
    if not shown.is_terminal:
        yield lambda done, total: None
        return
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=shown, transient=True) as bar:
        task = bar.add_task("cases", total=None)

        def move(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield move


# ------------------------------------------------------------------------------------------------------ printing


def show_evaluation(report: EvalReport, shown: Console) -> None:
    """Print an evaluation."""
    short = f", {report.short} shorter than a clip" if report.short else ""
    values = {
        "network": report.network,
        "engine": report.engine,
        "data": f"{report.data}: {report.cases} cases, {report.frames} frames{short}",
        "fingerprint": report.fingerprint[:16],
        "clip": f"{report.clip_length} frames; an answer of the step network rests on {report.receptive_field}",
    }
    if report.agreement is not None:
        same = f"the same class in {report.agreement:.2%} of the windows"
        values["step against clip"] = f"{same}, answers differ by {report.difference:.1e} at most"
    shown.print(facts("Evaluation", values))
    shown.print(_accuracies(report))
    shown.print(_classes(report))
    for name, mode in (("clip", report.clip), ("step", report.step)):
        if mode is not None and len(report.labels) <= _WIDEST:
            shown.print(_confusion(name, mode, report.labels))
    shown.print(_growth(report))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _accuracies(report: EvalReport) -> Table:
    made = table("Accuracy", "", "a window", "windows", "a case", "cases", right=(1, 2, 3, 4))
    for name, mode in (("clip network", report.clip), ("step network", report.step)):
        if mode is not None:
            figures = (_percent(mode.windows.accuracy), mode.windows.total, _percent(mode.cases.accuracy))
            made.add_row(name, *map(str, figures), str(mode.cases.total))
    made.add_row("step network, every frame", _percent(report.every.accuracy), str(report.every.total), "", "")
    return made


def _classes(report: EvalReport) -> Table:
    made = table("Windows of each class told rightly", "class", "clip", "step", "windows", right=(1, 2, 3))
    clip = report.clip.windows.recall if report.clip is not None else {}
    for place, label in enumerate(report.labels):
        number = int(report.step.windows.counts[place].sum())
        step = report.step.windows.recall[label]
        if number or clip.get(label) is not None:
            made.add_row(plain(label), _percent(clip.get(label)), _percent(step), str(number))
    return made


def _confusion(name: str, mode: Mode, labels: tuple[str, ...]) -> Table:
    made = table(f"Classes (rows) and answers, {name} network", "", *labels, right=tuple(range(1, len(labels) + 1)))
    for label, row in zip(labels, mode.windows.counts.tolist(), strict=True):
        made.add_row(plain(label), *(str(count) if count else "·" for count in row))
    return made


def _growth(report: EvalReport) -> Table:
    made = table("By frames seen, step", "frames", "accuracy", "cases", right=(0, 1, 2))
    points = report.growth()
    kept = {round(i * (len(points) - 1) / (_POINTS - 1)) for i in range(_POINTS)} if points else set()
    for place in sorted(kept):
        frames, share, cases = points[place]
        made.add_row(str(frames), _percent(share), str(cases))
    return made
