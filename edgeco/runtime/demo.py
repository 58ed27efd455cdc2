"""The shipped demonstration: a network that tells how a camera moves, on a scene whose camera motion is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from importlib.resources import as_file, files
from typing import Any

from edgeco.errors import BundleError
from edgeco.runtime.frame import Frame
from edgeco.runtime.model import Model, load
from edgeco.runtime.result import Result
from edgeco.runtime.run import Summary, run
from edgeco.runtime.sources import open_source
from edgeco.runtime.sources.pattern import MOTIONS

LEAST_ACCURACY = 0.8
"""Share of frames the network must tell rightly, away from changes of motion."""

SHIPPED = ("models", "bundles", "camera-motion.edgeco")


@dataclass(frozen=True, slots=True)
class DemoFrame:
    """One frame of the demonstration.

    ``seen`` is the motion the network tells, None until it answers; ``truth`` is the motion of the frame that the
    answer describes. ``counts`` is false where the network's receptive field holds two motions or is not yet full.
    """

    stamp: float
    truth: str
    seen: str | None
    counts: bool


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the network saw, frame by frame. ``accuracy`` is over the frames that count."""

    frames: tuple[DemoFrame, ...]
    summary: Summary
    why: str

    @property
    def counted(self) -> int:
        """Frames that count."""
        return sum(frame.counts for frame in self.frames)

    @property
    def accuracy(self) -> float:
        """Share of the frames that count whose motion the network tells; 0 if none counts."""
        return _share(self.frames) or 0.0

    @property
    def by_motion(self) -> dict[str, float | None]:
        """Accuracy for each true motion, None where no frame counts."""
        return {motion: _share([f for f in self.frames if f.truth == motion]) for motion in MOTIONS}

    @property
    def passed(self) -> bool:
        """Whether the accuracy suffices."""
        return self.accuracy >= LEAST_ACCURACY

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "accuracy": self.accuracy,
            "counted": self.counted,
            "passed": self.passed,
            "by_motion": self.by_motion,
            "why": self.why,
            "summary": self.summary.to_json(),
            "frames": [asdict(frame) for frame in self.frames],
        }


def _share(frames: Sequence[DemoFrame]) -> float | None:
    counted = [frame for frame in frames if frame.counts]
    return sum(frame.seen == frame.truth for frame in counted) / len(counted) if counted else None


def load_demo(engine: str = "auto", threads: int | None = None, say: Callable[[str], None] | None = None) -> Model:
    """The shipped bundle, loaded; ``say`` is called with what takes long. Raises BundleError if this installation lacks
    it."""
    resource = reduce(lambda folder, name: folder / name, SHIPPED, files("edgeco"))
    if not resource.is_file():
        raise BundleError(
            f"edgeco is installed without its demonstration bundle ({'/'.join(SHIPPED)}); install it again"
        )
    with as_file(resource) as path:
        return load(path, engine=engine, threads=threads, say=say)


def run_demo(model: Model, seed: int = 0) -> DemoReport:
    """Show a network all eight camera motions and compare what it tells.

    Args:
        model: a network whose labels are the motions of ``edgeco.runtime.sources.pattern``.
        seed: of the scene.

    Raises:
        BundleError: the network's labels are not these motions.
    """
    if model.labels is None or {_motion(label) for label in model.labels} != set(MOTIONS):
        raise BundleError(f"{model.manifest.name} does not tell camera motions, so there is nothing to compare it with")
    seen: list[tuple[float, str, str | None]] = []

    def note(frame: Frame, result: Result) -> None:
        told = _motion(result.top(1)[0].label) if result.valid else None
        seen.append((frame.stamp, frame.label or "", told))

    with open_source(demo_uri(model, seed)) as source:
        summary = run(model, source, on_frame=note)
    timeline = model.manifest.timeline
    return DemoReport(tuple(_compare(seen, timeline.receptive_field, timeline.delay)), summary, model.why)


def demo_uri(model: Model, seed: int) -> str:
    """The pattern to run on: every motion for three receptive fields, in pictures of the network's own size."""
    spec = model.manifest.preprocessing
    height, width = spec.size if spec is not None else (48, 64)
    timeline = model.manifest.timeline
    length = max(30, 3 * timeline.receptive_field)
    script = ",".join(f"{motion.replace(' ', '-')}:{length}" for motion in MOTIONS)
    return f"pattern://motion?size={width}x{height}&fps={timeline.fps or 30:g}&script={script}&seed={seed}"


def _compare(seen: Sequence[tuple[float, str, str | None]], field: int, delay: int) -> list[DemoFrame]:
    """Compare what was told of each frame, (stamp, truth, told), with the truth that a receptive field holds."""
    truths = [truth for _, truth, _ in seen]
    compared = []
    for place, (stamp, _, told) in enumerate(seen):
        window = truths[max(0, place - field + 1) : place + 1]
        counts = told is not None and len(window) == field and len(set(window)) == 1
        compared.append(DemoFrame(stamp, truths[max(0, place - delay)], told, counts))
    return compared


def _motion(label: str) -> str:
    return label.lower().replace("-", " ").replace("_", " ")
