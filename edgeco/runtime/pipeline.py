"""Capture, preprocessing, steps and delivery side by side, each in a thread of its own.

::

    source -> [read] -> prepare -> step -> deliver -> sink
                                                   -> sink

Everything between two threads is bounded. A recording waits wherever the pipeline is slow, and loses nothing. A live
source is read only as fast as its frames can be prepared, and of those that are ready only the newest waits for the
step: what is stepped with is as young as it can be, and all that is dropped is counted. One stream belongs to the
pipeline; the pacer decides on every frame just before it would be stepped with, on a recording's as they are prepared.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edgeco.errors import EdgecoError, SpecError
from edgeco.named import said
from edgeco.runtime.channel import Channel
from edgeco.runtime.figures import STAGES, Figures, PipelineStatus, State, Summary, summarize
from edgeco.runtime.frame import Frame
from edgeco.runtime.pacer import RATE, Pacer
from edgeco.runtime.pre import preparer
from edgeco.runtime.record import outcome_record
from edgeco.runtime.sinks.base import Delivery, Sink
from edgeco.runtime.sinks.worker import PATIENCE, SinkStatus, SinkWorker, names_of
from edgeco.runtime.smoothing import Smoother
from edgeco.runtime.timing import now
from edgeco.runtime.work import NO_INPUT, Item, Newest, Outcome, Stepper

if TYPE_CHECKING:
    from edgeco.runtime.model import Model

__all__ = ["STAGES", "Pipeline", "PipelineStatus", "SinkStatus", "State", "Summary"]

_ROOM = 2
"""Frames of a recording that may wait between two stages."""
_POLL = 0.1
"""Seconds after which a live source that gives nothing is asked again, and a wait for threads looks around."""


class Pipeline:
    """One stream of a network over one source, to as many sinks as wanted.

    It installs no signal handlers and prints nothing. ``stop``, ``status`` and ``request_reset`` may be called from any
    thread. It runs once.

    Args:
        model: the network; other pipelines may run it at the same time.
        source: frames, as ``open_source`` gives them, or any iterable of them, which counts as a recording. It is read
            from one thread and not closed.
        sinks: each gets every frame in a thread of its own, and is closed at the end.
        pacer: which frames are stepped with; the bundle's rate with gaps skipped unless given.
        pre: makes of a frame what the network takes, or None where there is nothing for it; preprocessing as the bundle
            says unless given. Called from one thread.
        top: how many classes a record names.
        frames: end after as many.
        smooth: smooths the answers that records name; none unless given.

    Raises:
        SpecError: ``top`` or ``frames`` below 1, or a network of several inputs without ``pre``.

    Example::

        with Pipeline(load("gesture.edgeco"), open_source("0"), [JsonLines("answers.jsonl")]) as pipeline:
            while not pipeline.join(1.0):
                print(pipeline.status().top)
    """

    def __init__(
        self,
        model: Model,
        source: Iterable[Frame],
        sinks: Sequence[Sink] = (),
        *,
        pacer: Pacer | None = None,
        pre: Callable[[Frame], Any] | None = None,
        top: int = 5,
        frames: int | None = None,
        smooth: Smoother | None = None,
    ) -> None:
        if top < 1:
            raise SpecError(f"top takes at least 1 class, not {top}")
        if frames is not None and frames < 1:
            raise SpecError(f"a run takes at least 1 frame, not {frames}")
        self._model, self._source, self._top, self._limit = model, source, top, frames
        self._prepare, self._smooth = preparer(model, pre), smooth
        self.pacer = Pacer(model.manifest.timeline.fps) if pacer is None else pacer
        self.live = bool(getattr(source, "live", False))
        self._figures = Figures()
        self._lock = threading.Lock()
        self._state, self._ended, self._error = State.NEW, "", None  # type: State, str, BaseException | None
        self._stop, self._abort, self._done = threading.Event(), threading.Event(), threading.Event()
        self._ask: Callable[[], bool] = self._stop.is_set
        self._opened: Channel[Stepper] = Channel(1)
        self._stepper: Stepper | None = None
        self._reset_asked = False
        self._taken: Channel[Frame] = Channel(_ROOM)
        self._ready: Channel[Item] = Newest() if self.live else Channel(_ROOM)
        self._answered: Channel[Outcome] = Channel(_ROOM)
        sinks = list(sinks)
        self._sinks = [
            SinkWorker(sink, name, self.live, self._fail) for sink, name in zip(sinks, names_of(sinks), strict=True)
        ]
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads.

        Raises:
            EngineError: the stream cannot be opened; nothing runs then, and the sinks are closed.
            SpecError: it was started before.
        """
        with self._lock:
            if self._state is not State.NEW:
                raise SpecError("a pipeline runs once; make another")
            self._state = State.RUNNING
        self._figures.start()
        stages: list[tuple[str, Callable[[], None], Channel[Any] | None, Channel[Any] | None]] = [
            ("prepare", self._preparing, self._taken, self._ready),
            ("step", self._stepping, self._ready, self._answered),
            ("deliver", self._delivering, self._answered, None),
        ]
        if not self.live:
            stages.append(("read", self._reading, None, self._taken))
        self._threads = [
            threading.Thread(target=self._guarded, args=stage, name=f"edgeco {name}", daemon=True)
            for name, *stage in stages
        ]
        for worker in self._sinks:
            worker.start()
        for thread in self._threads:
            thread.start()
        # A stream is made, used and closed by one thread, as contexts of a GPU belong to one.
        if self._opened.get() is None:
            self.join()

    def stop(self) -> None:
        """Take no more frames; those in hand are stepped and delivered. Returns at once, and may be called again."""
        with self._lock:
            self._state = State.STOPPING if self._state is State.RUNNING else self._state
            self._stop.set()

    def abort(self) -> None:
        """Take no more frames and drop those in hand, as after a second Ctrl-C. Returns at once."""
        self._abort.set()
        self.stop()
        for channel in (self._taken, self._ready, self._answered):
            channel.cancel()
        for worker in self._sinks:
            worker.cancel()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end; false if it did not come in time.

        Raises:
            EdgecoError: whatever ended the run with an error: of the source, ``pre``, the network, or a sink that must
                lose nothing. Records of the frames before it are written.
        """
        if not self._done.wait(timeout):
            return False
        for thread in self._threads:
            thread.join(PATIENCE)  # one that hangs in a read or in the user's code is left behind
        if self._error is not None:
            raise self._error
        return True

    def wait(self, timeout: float = PATIENCE) -> bool:
        """Wait for the end as ``join`` does, without raising what ended it."""
        return self._state is State.NEW or self._done.wait(timeout)

    def run(self, stop: Callable[[], bool] | None = None) -> Summary:
        """``start`` and ``join`` in one; raises what they raise.

        Args:
            stop: asked before every frame, in the reading thread; true ends the run.
        """
        if stop is not None:
            self._ask = lambda: self._stop.is_set() or stop()
        self.start()
        try:
            self.join()
        except BaseException:
            if not self._done.is_set():  # interrupted while it waited
                self.abort()
                self.wait()
            raise
        return self.summary

    def request_reset(self) -> None:
        """Reset the network's state, and the smoothing's, before the next step."""
        with self._lock:
            self._reset_asked = True
            if self._stepper is not None:
                self._stepper.request_reset()

    def status(self) -> PipelineStatus:
        """A snapshot."""
        error = self._error
        sentence = None if error is None else (str(error) if isinstance(error, EdgecoError) else said(error))
        sinks = {worker.name: worker.status for worker in self._sinks}
        tell = getattr(self._source, "status", None)
        source = tell() if callable(tell) else None
        ended = self._ended if self._state.final else None
        return self._figures.status(self._state, ended, sentence, self.pacer.counts, sinks, source)

    @property
    def summary(self) -> Summary:
        """What was done so far."""
        return summarize(self.status())

    def __enter__(self) -> Pipeline:
        if self._state is State.NEW:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is None:
            self.join()
        else:
            self.wait()

    def _guarded(self, body: Callable[[], None], before: Channel[Any] | None, after: Channel[Any] | None) -> None:
        """Run one stage. At its end, told first, the stage before it has nobody to give to, the one after no more."""
        try:
            body()
        except BaseException as error:
            self._fail(error)
        finally:
            if before is not None:
                before.cancel()
            if after is not None:
                after.finish()

    def _fail(self, error: BaseException) -> None:
        """End the run with an error; the first one counts."""
        with self._lock:
            self._error = error if self._error is None else self._error
            self._stop.set()

    def _frames(self) -> Iterator[Frame]:
        """The source's frames until it ends, enough are taken, or the run is to stop; says which."""
        count = 0
        source: Any = self._source
        # A source is asked with a limit, so that a stop is heard while it gives nothing: standard input, for one.
        following = iter(source) if not callable(getattr(source, "wait", None)) else None
        while self._limit is None or count < self._limit:
            before = now()
            while True:
                if self._ask():
                    self._ended = self._ended or "stopped"
                    return
                frame = next(following, None) if following is not None else source.wait(_POLL)
                if frame is not None or following is not None:
                    break
                if source.state.final:  # also a source that failed since says so when it is asked again
                    frame = source.wait(0)
                    break
            if frame is None:
                self._ended = "source"
                return
            self._figures.add("read", now() - before)
            yield frame
            count += 1
        self._ended = "frames"

    def _reading(self) -> None:
        for frame in self._frames():
            if not self._taken.put(frame):
                return

    def _preparing(self) -> None:
        for frame in self._frames() if self.live else iter(self._taken.get, None):
            if not self._ready.put(self._prepared(frame)):
                return

    def _prepared(self, frame: Frame) -> Item:
        if self.pacer.due(frame.stamp, ahead=self.live):
            before = now()
            value = self._prepare(frame)
            self._figures.add("prepare", now() - before)
            item = Item(frame, value, "" if value is not None else NO_INPUT)
        else:
            item = Item(frame, why=RATE)
        # Nothing of a recording is lost from here on, so the pacer may decide now, and knows more of the next frame.
        if not self.live and item.why != NO_INPUT:
            item.decision = self.pacer.decide(frame.stamp)
        return item

    def _stepping(self) -> None:
        try:
            with self._model.stream() as stream:
                stepper = Stepper(stream, self.pacer, self._abort.is_set)
                with self._lock:
                    self._stepper = stepper
                    if self._reset_asked:
                        stepper.request_reset()
                self._opened.put(stepper)
                for item in iter(self._ready.get, None):
                    before = now()
                    outcome = stepper.take(item)
                    if outcome.stepped:
                        self._figures.add("step", now() - before)
                        self._figures.stepped(outcome)
                    if not self._answered.put(outcome):
                        return
        except BaseException as error:
            self._fail(error)
        finally:
            self._opened.finish()

    def _delivering(self) -> None:
        try:
            for outcome in iter(self._answered.get, None):
                before = now()
                self._deliver(outcome)
                self._figures.add("deliver", now() - before)
        except BaseException as error:
            self._fail(error)
        finally:
            self._answered.cancel()
            self._close()

    def _deliver(self, outcome: Outcome) -> None:
        result = outcome.result
        scores = result.top(self._top) if result is not None else ()
        raw = None
        if self._smooth is not None:
            if outcome.reset:
                self._smooth.reset()
            if result is not None:
                raw, scores = scores, self._smooth(result, self._top)
        entry = outcome_record(outcome, scores, raw=raw, labelled=self._model.labels is not None)
        delivery = Delivery(outcome.frame, result, entry)
        for worker in self._sinks:
            worker.give(delivery)
        self._figures.delivered(outcome, scores)

    def _close(self) -> None:
        """Wait for the sinks, leave behind what does not come back, and end."""
        for worker in self._sinks:
            worker.finish()
        patience = PATIENCE
        for worker in self._sinks:
            while not worker.join(_POLL):
                patience -= _POLL
                if patience <= 0 and (not worker.essential or self._abort.is_set()):
                    worker.give_up()
                    break
        self._figures.end()
        with self._lock:
            self._ended = "error" if self._error is not None else self._ended or "stopped"
            self._state = State.FAILED if self._error is not None else State.ENDED
        self._done.set()
