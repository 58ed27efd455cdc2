"""The rollout: the FP32 step network run over real streams as it is deployed, every tensor and history observed.

States fed with zeros or noise are not what a network remembers of real frames, and ranges taken from them do not hold.
So each stream begins as on the device, is reset as often, and its histories carry what the network itself wrote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from edgeco.bundle.manifest import History, Manifest
from edgeco.bundle.ranges import Method, Ranges, TensorRange, model_hash
from edgeco.calibration.checkpoint import Checkpoint, Position
from edgeco.calibration.methods import METHOD, PERCENTILE, check_method, threshold
from edgeco.calibration.observer import ABSENT, BINS, Observer
from edgeco.calibration.probe import Probe
from edgeco.calibration.recordings import Recording
from edgeco.calibration.tensors import Observed, observed_tensors
from edgeco.errors import CalibrationError, SpecError, WriteError
from edgeco.export.exported import Exported

Array = np.ndarray[Any, Any]

SHOWN_BINS = 128
"""Intervals of the histograms that are kept with the ranges."""


class CalibrationStopped(CalibrationError):
    """A calibration was interrupted on demand; what it had seen is kept where it can be."""

    exit_code = 130


@dataclass(frozen=True)
class Progress:
    """What a calibration is doing: the stream it reads, of so many, and frames taken of it and of all."""

    stream: int
    streams: int
    name: str
    frame: int
    frames: int


def observe(
    exported: Exported,
    manifest: Manifest,
    streams: Sequence[Recording],
    *,
    tensors: Iterable[str] | None = None,
    method: Method = METHOD,
    percentile: float = PERCENTILE,
    reset: int | None = None,
    frames: int | None = None,
    threads: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    checkpoint: Checkpoint | None = None,
    stop: Callable[[], bool] | None = None,
) -> Ranges:
    """Ranges of a network's tensors and histories over real streams.

    Args:
        exported: the FP32 step graphs; ``exported_of`` gives those of a bundle.
        manifest: what describes them.
        streams: recordings, each a stream of its own from reset; ``recorded`` makes them of arrays.
        tensors: keys (``tensor_key``) of those to observe; None for all of float numbers. Histories always are.
        method: how INT8's range is chosen: ``max``, ``entropy``, ``percentile`` or ``mse``.
        percentile: share of magnitudes that the method of that name keeps, in percent.
        reset: frames after which the device resets a stream; None: never.
        frames: of each stream at most so many; None: all.
        threads: processor threads; None for the physical cores.
        progress: told after every frame.
        checkpoint: where an interrupted calibration is kept, and gone on from.
        stop: asked after every frame; true ends the work with ``CalibrationStopped``.

    Raises:
        SpecError: a method, a share, or a number of frames that is none.
        CalibrationError: no frames; a tensor that is NaN or infinite; streams too short for a tensor to be used.
        SourceError: a recording cannot be read.
        EngineError: ONNX Runtime refuses a graph.

    Example::

        bundle = open_bundle("gesture.edgeco")
        ranges = observe(exported_of(bundle), bundle.manifest, recorded(bundle.manifest, clips), method="entropy")
    """
    check_method(method, percentile)
    for what, number in (("reset", reset), ("frames", frames)):
        if number is not None and number < 1:
            raise SpecError(f"{what} is {number}; give a number of frames of 1 or more.")
    if not streams:
        raise CalibrationError("There is nothing to calibrate with: no stream was given.")
    observed = observed_tensors(exported, manifest, tensors)
    work = _Rollout(exported, manifest, observed, streams, reset, frames, threads)
    if checkpoint is not None:
        work.resume(checkpoint)
    try:
        work.run(progress or (lambda done: None), checkpoint, stop or (lambda: False))
        return work.ranges(method, percentile)
    except CalibrationStopped:
        raise
    except (CalibrationError, SpecError):
        if checkpoint is not None:  # it would end there again, and be in the way of whatever is tried next
            checkpoint.remove()
        raise


class _Rollout:
    """A rollout on its way."""

    def __init__(
        self,
        exported: Exported,
        manifest: Manifest,
        observed: list[Observed],
        streams: Sequence[Recording],
        reset: int | None,
        most: int | None,
        threads: int | None,
    ) -> None:
        self.manifest, self.observed, self.streams = manifest, observed, streams
        self.reset, self.most = reset, most
        self.model = model_hash(exported)
        self.observers = [Observer() for _ in observed]
        self.probe = Probe(exported, manifest, observed, threads)
        self.place = Position("", digest=hashlib.sha256(b"edgeco data").hexdigest())

    def _task(self) -> str:
        names = [f"{stream.name} {stream.fingerprint}" for stream in self.streams]
        keys = [key for item in self.observed for key in item.filed()]
        return _chained("", repr((self.model, keys, names, self.reset, self.most, BINS, "channels")).encode())

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on where the work was interrupted, if it was."""
        self.place.task = self._task()
        found = checkpoint.read(self.place.task)
        if found is not None:
            self.place, self.observers, past = found
            self.probe.load(past, self.place.steps)

    def run(
        self, progress: Callable[[Progress], None], checkpoint: Checkpoint | None, stop: Callable[[], bool]
    ) -> None:
        """Every stream from its first frame, or from where it was interrupted, to its last."""
        place = self.place
        for number in range(place.stream, len(self.streams)):
            stream = self.streams[number]
            for frame in self._coming(stream):
                self._take(stream, frame)
                progress(Progress(number, len(self.streams), stream.name, place.frame, place.frames))
                stopped, kept = stop(), checkpoint is not None and not stream.live
                lost = None
                if checkpoint is not None and kept and (stopped or checkpoint.due):
                    lost = self._keep(checkpoint)
                if stopped:
                    how = "the same command goes on from there" if kept else "nothing of this stream was kept"
                    how = how if lost is None else f"what was seen since the last time could not be kept: {lost}"
                    raise CalibrationStopped(f"Interrupted after {place.frames} frames; {how.removesuffix('.')}.")
            if not place.frame:
                raise CalibrationError(f"{stream.name} has no frames to calibrate with; give another source.")
            place.digest = _chained(place.digest, place.seen.encode())
            place.stream, place.frame, place.seen = number + 1, 0, ""
            place.done = place.stream == len(self.streams)
            around = self.streams[number : number + 2]
            ending = len(around) == 1 or any(either.live for either in around)
            if checkpoint is not None and (checkpoint.due or ending):
                self._keep(checkpoint)

    def _keep(self, checkpoint: Checkpoint) -> WriteError | None:
        """Keep where the work stands, or tell why not: a full disk is no reason to lose what goes on in memory."""
        self.place.steps = self.probe.steps
        try:
            checkpoint.write(self.place, self.observers, self.probe.past())
        except WriteError as error:
            return error
        return None

    def _coming(self, stream: Recording) -> Iterator[Mapping[str, Array]]:
        """The frames of a stream that are still to be taken; those before are read again, and must be the same."""
        coming = islice(stream.frames(), self.most)
        seen = ""
        for frame in islice(coming, self.place.frame):
            seen = _chained_frame(seen, frame)
        if seen != self.place.seen:
            raise CalibrationError(
                f"{stream.name} gives other frames than when the calibration was interrupted; begin it anew."
            )
        return coming

    def _take(self, stream: Recording, frame: Mapping[str, Array]) -> None:
        """One frame: the steps that it takes, and what they computed."""
        place = self.place
        self.probe.take(frame)
        steps = 1
        if place.frame % (self.reset or place.frame + 1) == 0:
            self.probe.reset()
            steps += self.manifest.timeline.lead
        for _ in range(steps):
            for number, array in self.probe.step():
                item = self.observed[number]
                wrong = self.observers[number].add(array, item.absent, item.history is not None and array.ndim > 1)
                if wrong is not None:
                    raise CalibrationError(
                        f"The tensor {item.name!r} of {item.layer} is {wrong} at frame {place.frame} of {stream.name}, "
                        "in FP32 already; no range can be told. Check the network's weights and this recording."
                    )
        place.seen = _chained_frame(place.seen, frame)
        place.frame += 1
        place.frames += 1

    def ranges(self, method: Method, percentile: float) -> Ranges:
        """What was seen, as a record."""
        tensors, histories = {}, {}
        borders = {history.name: history for history in self.manifest.histories}
        for item, observer in zip(self.observed, self.observers, strict=True):
            if not observer.count and not observer.absent:
                first = min(item.starts.values())
                raise CalibrationError(
                    f"The streams are too short: the tensor {item.name!r} of {item.layer} is first used in step "
                    f"{first} after a reset, and no stream came so far; give longer recordings, or reset less often."
                )
            found = range_of(observer, method, percentile)
            if item.history is not None:
                found = histories[item.history] = _with_border(found, borders[item.history])
            tensors.update(dict.fromkeys(item.filed(), found))
        return Ranges(
            model=self.model,
            data=self.place.digest,
            frames=self.place.frames,
            streams=len(self.streams),
            reset=self.reset,
            method=method,
            tensors=tensors,
            histories={name: histories[name] for name in borders},
            percentile=percentile if method == "percentile" else None,
            sources=tuple(dict.fromkeys(stream.name for stream in self.streams)),
        )


def range_of(observer: Observer, method: Method, percentile: float = PERCENTILE) -> TensorRange:
    """What an observer saw, and the range that a method chooses for it."""
    seen = observer.count > 0  # else there was nothing but what stands for nothing
    return TensorRange(
        low=observer.low if seen else 0.0,
        high=observer.high if seen else 0.0,
        amax=threshold(observer, method, percentile),
        method=method,
        count=observer.count,
        limit=observer.limit,
        histogram=tuple(observer.bins.reshape(SHOWN_BINS, -1).sum(axis=1).tolist()) if observer.limit else (),
        absent=observer.absent,
        channels=() if observer.channels is None else tuple((float(a), float(b)) for a, b in observer.channels.T),
    )


def _with_border(found: TensorRange, history: History) -> TensorRange:
    """The range of a history: what lies before its first element is read as well, unless it stands for nothing."""
    border = history.border
    if history.before == "first" or abs(border) >= ABSENT:
        return msgspec.structs.replace(found, border=border)
    low, high, amax = min(found.low, border), max(found.high, border), max(found.amax, abs(border))
    fits = max(-low, high, 0.0) < found.limit
    kept = {} if fits else {"limit": 0.0, "histogram": ()}
    return msgspec.structs.replace(found, low=low, high=high, amax=amax, border=border, **kept)


def _chained(before: str, data: bytes) -> str:
    return hashlib.sha256(before.encode() + data).hexdigest()


def _chained_frame(before: str, frame: Mapping[str, Array]) -> str:
    digest = hashlib.sha256(before.encode())
    for name, array in sorted(frame.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
