"""Plans on disk: compiled once, found again, and never taken from anybody else.

A plan is native code. One is loaded only if the sidecar that this cache wrote beside it names its sha256, and the head
of the plan names the installed TensorRT; everything else is thrown away and compiled again. The plan itself is as
TensorRT made it and loads in ``trtexec``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from edgeco.engines.tensorrt.order import Order
from edgeco.engines.tensorrt.plan import plan_version
from edgeco.engines.tensorrt.verdict import Verdict
from edgeco.errors import EngineError
from edgeco.files import CACHE, cache_folder, replace_file

FORMAT = 1
ROOT = 0
"""The user who may write everywhere anyhow."""


class Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept beside a plan: where it comes from, and what was asked for."""

    format: int
    key: str
    plan_sha256: str
    onnx_sha256: str
    network: str
    tensorrt: str
    gpu: str
    capability: tuple[int, int]
    driver: int
    edgeco: str
    order: Order
    seconds: float
    size: int


class PlanCache:
    """A folder of plans.

    Args:
        folder: None for what ``EDGECO_CACHE`` says.

    Raises:
        EngineError: it cannot be made, or others may write to it.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.root = Path(folder).expanduser() if folder else cache_folder()
        self.plans, self.timings = self.root / "plans", self.root / "timing"
        try:
            for path in (self.plans, self.timings):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                _check_owner(path)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise EngineError(
                f"compiled networks cannot be kept in {self.root} ({reason}); name another folder in {CACHE}"
            ) from error

    def plan_path(self, key: str) -> Path:
        return self.plans / f"{key}.plan"

    def _sidecar_path(self, key: str) -> Path:
        return self.plans / f"{key}.json"

    def load(self, key: str, version: tuple[int, ...]) -> tuple[bytes, Sidecar] | str | None:
        """A plan and its sidecar; None if there is none; the reason, one clause, if there is one not to be trusted."""
        try:
            plan = self.plan_path(key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            return f"the kept plan cannot be read ({(error.strerror or str(error)).lower()})"
        try:
            sidecar = msgspec.json.decode(self._sidecar_path(key).read_bytes(), type=Sidecar)
        except (OSError, msgspec.DecodeError):
            return "a plan of unknown origin lies in its place"
        if sidecar.format != FORMAT or sidecar.key != key:
            return "a plan of unknown origin lies in its place"
        if hashlib.sha256(plan).hexdigest() != sidecar.plan_sha256:
            return "the kept plan is damaged"
        made = plan_version(plan)
        if made is None:
            return "the kept plan is damaged"
        if made != tuple(version[:3]):
            return f"the kept plan is of TensorRT {'.'.join(map(str, made))}"
        return plan, sidecar

    def store(self, key: str, plan: bytes, layers: str, sidecar: Sidecar) -> None:
        """Keep a plan, its sidecar last: without one a plan does not count. Raises WriteError."""
        with contextlib.suppress(FileNotFoundError):
            self._sidecar_path(key).unlink()
        for path, data in (
            (self.plan_path(key), plan),
            (self.plans / f"{key}.layers.json", layers.encode()),
            (self._sidecar_path(key), msgspec.json.format(msgspec.json.encode(sidecar), indent=1)),
        ):
            with replace_file(path) as handle:
                handle.write(data)

    def discard(self, key: str) -> None:
        """Forget a plan."""
        for path in (self._sidecar_path(key), self.plan_path(key), self.plans / f"{key}.layers.json"):
            with contextlib.suppress(OSError):
                path.unlink()

    def verdict(self, key: str) -> Verdict | None:
        """What is remembered of trying a network; None if nothing is, or it cannot be read."""
        try:
            return msgspec.json.decode(self._verdict_path(key).read_bytes(), type=Verdict)
        except (OSError, msgspec.DecodeError):
            return None

    def judge(self, key: str, verdict: Verdict) -> None:
        """Remember what came of trying a network. Raises WriteError."""
        with replace_file(self._verdict_path(key)) as handle:
            handle.write(msgspec.json.format(msgspec.json.encode(verdict), indent=1))

    def _verdict_path(self, key: str) -> Path:
        return self.plans / f"{key}.verdict.json"

    def timing(self, name: str) -> Path:
        """Where the timing cache of one TensorRT on one GPU is kept."""
        return self.timings / f"{name}.cache"

    @contextlib.contextmanager
    def lock(self, key: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Let one process at a time compile a plan; ``waiting`` is called if another is at it."""
        with open(self.plans / f"{key}.lock", "a+b") as handle:
            if sys.platform != "win32":
                import fcntl

                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    waiting()
                    fcntl.flock(handle, fcntl.LOCK_EX)
            yield  # the lock goes with the handle, also when the process dies


def _check_owner(folder: Path) -> None:
    """Plans, and kernels among the timings, are native code: only this user and root may have put them there."""
    found = folder.stat()
    if found.st_mode & stat.S_IWOTH:
        raise EngineError(
            f"everybody may write to {folder}, and plans are native code; take that right away, or name another "
            f"folder in {CACHE}"
        )
    if sys.platform != "win32" and found.st_uid not in (ROOT, os.geteuid()):
        raise EngineError(
            f"{folder} is another user's, and plans are native code; name a folder of your own in {CACHE}"
        )
