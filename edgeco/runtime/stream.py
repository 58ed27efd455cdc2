"""A stream: the state of one camera (or of several in lock-step) over a shared model."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from edgeco.engines.session import Session
from edgeco.errors import BundleError, EdgecoError, SpecError
from edgeco.runtime.frame import Frame
from edgeco.runtime.intake import Array, Intake
from edgeco.runtime.result import Result
from edgeco.runtime.snapshot import Identity, read_snapshot, write_snapshot
from edgeco.runtime.timing import now
from edgeco.runtime.validity import Validity

if TYPE_CHECKING:
    from edgeco.runtime.model import Model


class Stream:
    """Frames in, answers out, the past held in between. Made by ``Model.stream``.

    A stream belongs to one thread at a time: calls from two threads at once corrupt its past. Streams of one model are
    independent of each other and may run in different threads.

    Example::

        with model.stream() as stream:
            for frame in edgeco.open_source("0"):
                result = stream.step(frame)
                if result.valid:
                    print(result.top(1))
    """

    def __init__(self, model: Model, rows: int = 1) -> None:
        if rows < 1:
            raise SpecError(f"a stream needs at least one row, not {rows}")
        manifest = model.manifest
        self.rows = rows
        self._session: Session | None = Session(model.engine, manifest, rows)
        self._identity = Identity(model.sha256, model.variant, rows)
        self._memory = self._session.engine.memory
        self._current = self._memory.current
        self._inputs = tuple(self._session.inputs.items())
        self._answer_names = tuple(self._session.outputs)
        self._answers_lie = tuple(self._session.outputs.values())
        self._intake = Intake(self._memory, manifest, self._session.inputs, rows, model.preprocessor)
        validity = Validity(manifest)
        self._answered, self._warm_from = validity.valid, validity.warm_from
        self._lead = manifest.timeline.lead
        self._unbegun = self._lead or -1  # a stream that took no more steps than these has taken no frame
        self._labels = manifest.labels
        self._activation = manifest.activation

    @property
    def steps(self) -> int:
        """Steps since reset."""
        return max(0, self._open().steps - self._lead)

    @property
    def valid(self) -> bool:
        """Whether the last step gave an answer."""
        steps = self._open().steps
        return steps > self._unbegun and self._answered(steps - 1)

    @property
    def warm(self) -> bool:
        """Whether the last step gave an answer that rests on a whole receptive field of real frames."""
        return self.valid and self._open().steps > self._warm_from

    @property
    def state_bytes(self) -> int:
        """Memory that the histories of all rows take."""
        return self._open().nbytes

    def step(self, frame: Frame | Array | Mapping[str, Frame | Array]) -> Result:
        """Take one frame and answer.

        Args:
            frame: a ``Frame`` (preprocessed as the bundle says), an array, or a mapping of input name to either, which
                a network of several inputs needs. An array must have exactly the input's shape and type: without the
                row axis for a stream of one row, (rows, *shape) for more. It may be another library's, told by DLPack
                or ``__cuda_array_interface__``: on the GPU where the engine computes there. Its values are taken as
                they are: a NaN stays in the past for as long as the network looks back.

        Raises:
            FrameError: the frame does not fit; the stream is as before.
            EngineError: the engine failed; the stream is as before.
        """
        start = now()
        session = self._open()
        stamp: float | None = None
        with self._current:
            if type(frame) is np.ndarray and len(self._inputs) == 1:
                name, buffer = self._inputs[0]
                if frame.shape != buffer.shape or frame.dtype != buffer.dtype:
                    raise self._intake.misfit(name, frame)
                self._memory.write(buffer, frame)
            else:
                stamp = self._intake.write(frame)
            step = session.steps
            if step <= self._unbegun:
                step = self._begin(session)
            session.run()
            answers = self._memory.read_all(self._answers_lie)
        outputs = dict(zip(self._answer_names, answers, strict=True))
        valid = self._answered(step)
        return Result(
            outputs,
            valid,
            valid and step >= self._warm_from,
            stamp,
            (now() - start) * 1e-9,
            step - self._lead,
            self.rows,
            self._labels,
            self._activation,
        )

    def _begin(self, session: Session) -> int:
        """Step with the first frame alone until nothing else is remembered, in whole rounds of the network's strides.

        Should the engine fail, here or in the step that follows, the next frame is the first again.
        """
        if session.steps:
            session.reset()
        for _ in range(self._lead):
            session.run()
        return session.steps

    def reset(self) -> None:
        """Forget everything: the next frame is step 0 again."""
        self._open().reset()

    def snapshot(self) -> bytes:
        """The whole past, for ``restore`` on any stream of the same network, variant and number of rows."""
        session = self._open()
        return write_snapshot(self._identity, session.steps, session.past())

    def restore(self, data: bytes) -> None:
        """Continue where the stream that gave ``snapshot`` stood, with the same answers bit by bit on the same engine.

        Raises:
            BundleError: damaged, or of another network, variant or number of rows; the stream is as before.
        """
        session = self._open()
        steps, past = read_snapshot(data, self._identity)
        try:
            session.load(past, steps)
        except EdgecoError as error:
            raise BundleError(f"the snapshot does not fit this network: {error}") from error

    def close(self) -> None:
        """Give the memory back; may be called again. Any other call from now on raises SpecError."""
        session, self._session = self._session, None
        self._inputs = self._answers_lie = ()
        if session is not None:
            session.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Session:
        if self._session is None:
            raise SpecError("this stream is closed; make another with model.stream()")
        return self._session
