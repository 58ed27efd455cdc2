"""What the networks of ``precision.py`` are calibrated on, compared on, and tested with, where they are trained.

Recordings are those of ``EDGECO_TEST_DATA``. A trained network is calibrated on cases that it learnt from, and compared
and tested on cases that it did not: the parts are those of its training script, of the seed of the shipped weights.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeco.bundle.manifest import Manifest
from edgeco.engines import open_engine
from edgeco.engines.session import Session
from edgeco.export.exported import Exported
from edgeco.runtime.preprocess import Preprocessor
from edgeco.runtime.sources import open_source
from edgeco.train.data import windows
from edgeco.train.digits import draw
from edgeco.train.fingertip_gesture import TrackTask
from edgeco.train.hand_digit_motion import DigitTask
from edgeco.train.script import Task
from edgeco.train.watch_activity import EVERY, WatchTask

Array = np.ndarray[Any, Any]

CALIBRATED_ON, COMPARED_ON = ("nasa_13013.mp4", "asl_book.mkv"), "car-detection.mp4"
STREAM = 60
"""Frames of each calibration stream of pictures or noise, after the first valid answer."""
SHIPPED = 1
"""Seed of the split that the shipped weights were trained on."""
MOST = 200
"""Training cases that are calibrated on."""
EACH = 2
"""Held-out cases of every class that are compared on."""
MOTIONS = 400
"""Generated streams of camera motion."""

TASKS: dict[str, tuple[type[Task], str]] = {
    "fingertip-gesture": (TrackTask, "sensor/fingertip_tracks_train.csv"),
    "watch-activity": (WatchTask, "sensor/BasicMotions_TRAIN.ts"),
    "hand-digit-motion": (DigitTask, "images/MNIST_vs_USPS.mat"),
}
TRAINED = ("camera-motion", *TASKS)


@dataclass(frozen=True)
class Tested:
    """Streams of one length from reset, (cases, frames, *shape), and where their answers are counted.

    Attributes:
        ends: frames whose answers count.
        labels: the class of every case.
    """

    frames: Array
    ends: tuple[int, ...]
    labels: Array

    def right(self, made: Exported, manifest: Manifest) -> tuple[int, int]:
        """Right answers of a form, of so many; every case is a row of one session."""
        count = len(self.frames)
        session = Session(open_engine(made.phases(), engine="onnxruntime"), manifest, rows=count)
        memory, entry = session.engine.memory, session.inputs[manifest.inputs[0].name]
        answer = session.outputs[manifest.outputs[0].name]
        memory.write(entry, self.frames[:, 0])
        for _ in range(manifest.timeline.lead):
            session.run()
        right = 0
        for place in range(self.frames.shape[1]):
            memory.write(entry, self.frames[:, place])
            session.run()
            if place in self.ends:
                told = memory.read(answer).reshape(count, -1).argmax(1)
                right += int((told == self.labels).sum())
        return right, count * len(self.ends)


@dataclass(frozen=True)
class Material:
    """Streams to calibrate on and to compare on, (frames, *shape) each, and held-out cases of a trained network."""

    calibrated: list[Array]
    compared: list[Array]
    tested: Tested | None = None


def material(name: str, manifest: Manifest) -> Material:
    """What a network is studied on."""
    if name in TASKS:
        return _of_task(*TASKS[name])
    count = manifest.timeline.valid_from + STREAM
    calibrated = [frames_of(manifest, source, seed, count) for seed, source in enumerate(CALIBRATED_ON)]
    compared = [frames_of(manifest, COMPARED_ON, 9, max(manifest.timeline.receptive_field, 20))]
    return Material(calibrated, compared, _motions() if name == "camera-motion" else None)


def frames_of(manifest: Manifest, source: str, seed: int, count: int) -> Array:
    """Frames as a network takes them: of a recording where it takes pictures, else correlated noise."""
    folder = os.environ.get("EDGECO_TEST_DATA")
    if manifest.preprocessing is not None and folder:
        prepare = Preprocessor(manifest.preprocessing)
        made = []
        with open_source(str(Path(folder) / "video" / source)) as opened:
            for frame in opened:
                made.append(np.array(prepare(frame.image)))
                if len(made) == count:
                    break
        return np.stack(made)
    rng = np.random.default_rng(seed)
    shape = tuple(manifest.inputs[0].shape)
    made_up = rng.standard_normal((count, *shape)).astype(np.float32)
    for index in range(1, count):
        made_up[index] = 0.8 * made_up[index - 1] + 0.6 * made_up[index]
    if manifest.preprocessing is None:
        return made_up
    return np.clip(128 + 48 * made_up, 0, 255).astype(np.uint8)


def _of_task(kind: type[Task], file: str) -> Material:
    task = kind()
    learnt, _, test = task.parts(Path(os.environ["EDGECO_TEST_DATA"]) / file, SHIPPED)
    if isinstance(task, DigitTask):  # drawn: the images are dealt out, not the clips
        frames, labels = task.clips(test, SHIPPED + 2)
        known, _ = draw(learnt, MOST, SHIPPED)
        shown = [frames[i, ..., None] for i in _each(labels)]
        return Material(list(known[..., None]), shown, Tested(frames[..., None], (frames.shape[1] - 1,), labels))
    frames, labels = np.stack([case.array() for case in test]), np.array([case.label for case in test])
    length = task.clips(test, 0)[0].shape[1]
    ends = sorted({window.start + length - 1 for window in windows(test, length, EVERY)})
    known = [np.asarray(case.array(), np.float32) for case in learnt.subset(min(MOST, len(learnt)))]
    return Material(known, [frames[i] for i in _each(labels)], Tested(frames, tuple(ends), labels))


def _each(labels: Sequence[int] | Array) -> list[int]:
    """Places of the first few cases of every class, at most twenty in all."""
    found: dict[int, list[int]] = {}
    for place, label in enumerate(labels):
        found.setdefault(int(label), []).append(place)
    return [place for places in found.values() for place in places[:EACH]][:20]


def _motions() -> Tested:
    """Generated streams of camera motion that the shipped network was not trained on; their last frames count."""
    from edgeco.train import camera_motion as motion

    generator = np.random.default_rng((77, 2**31))
    frames, labels = [], np.arange(MOTIONS) % len(motion.LABELS)
    for number, label in enumerate(labels):
        if number % 32 == 0:
            pool = [motion.texture(generator) for _ in range(10)]
        frames.append(motion.clip(generator, pool, int(label), motion.FRAMES + 8)[..., None])
    made = np.stack(frames)
    return Tested(made, (made.shape[1] - 1,), labels)
