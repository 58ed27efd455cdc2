"""The fake GPU and the fake TensorRT, put in the place of the real packages for one test."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from stepnets import StepNet

FAKES = [Path(__file__).with_name(name) for name in ("fake_gpu", "fake_cuda")]
PACKAGES = ("tensorrt", "cuda", "pycuda", "gpu", "trt_model")
VERSIONS = ("8.6.1", "10.3.0", "10.16.1.11", "11.4.0.106")


def forget() -> None:
    """Make the next import of the packages a first one."""
    import edgeco.engines.cuda as cuda

    cuda._opened.clear()
    for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
        del sys.modules[name]


class Fake:
    """What a test may look at and turn."""

    @property
    def gpu(self) -> Any:
        import gpu

        return gpu.GPU


@contextmanager
def installed(
    patch: pytest.MonkeyPatch, cache: Path, version: str = "10.3.0", backend: str = "cuda.bindings"
) -> Iterator[Fake]:
    """Fakes on the path, their version and the CUDA package chosen, plans kept in ``cache``; nothing left behind."""
    forget()
    for folder in FAKES:
        patch.syspath_prepend(str(folder))
    patch.setenv("EDGECO_FAKE_TRT", version)
    patch.setenv("EDGECO_CUDA", backend)
    patch.setenv("EDGECO_CACHE", str(cache))
    try:
        yield Fake()
    finally:
        gc.collect()
        forget()


def open_engine(net: StepNet, precision: str = "fp16", half: frozenset[str] = frozenset(), graphs: bool = True) -> Any:
    """The engine of a hand-made step network, as this version types it."""
    from edgeco.engines.cuda import open_cuda
    from edgeco.engines.tensorrt.api import find_tensorrt
    from edgeco.engines.tensorrt.cache import PlanCache
    from edgeco.engines.tensorrt.engine import TensorRtEngine
    from edgeco.engines.tensorrt.order import Options
    from edgeco.engines.tensorrt.plans import Plans

    api = find_tensorrt()
    plans = Plans(api, open_cuda(), PlanCache(), lambda text: None, net.manifest.name)
    return TensorRtEngine([net.onnx], plans, precision, api.strong, half, Options(), graphs)


def compile_here(
    onnx: bytes, order: Any, timing: Path, say: Callable[[str], None], cancel: Callable[[], bool] | None = None
) -> tuple[bytes, str, float]:
    """The child's work in this process, which saves a second a plan."""
    from edgeco.engines.cuda import open_cuda
    from edgeco.engines.tensorrt.api import find_tensorrt
    from edgeco.engines.tensorrt.build import build_plan

    with open_cuda():
        built = build_plan(find_tensorrt(), onnx, order, b"", say, cancel or (lambda: False))
    return built.plan, built.layers, built.seconds


def without(*names: str) -> Callable[..., ModuleType]:
    """An ``__import__`` that does not find some packages."""
    import builtins

    real = builtins.__import__

    def find(name: str, *args: Any, **kwargs: Any) -> ModuleType:
        if name.split(".")[0] in names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    return find


os.environ.pop("EDGECO_FAKE_NO_GPU", None)


@pytest.fixture(params=[(version, package) for version in VERSIONS for package in ("cuda.bindings", "pycuda")])
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fake]:
    """Every version with every CUDA package."""
    monkeypatch.setattr("edgeco.engines.tensorrt.plans.compile_in_child", compile_here)
    with installed(monkeypatch, tmp_path, *request.param) as fake:
        yield fake


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fake]:
    """One of them."""
    monkeypatch.setattr("edgeco.engines.tensorrt.plans.compile_in_child", compile_here)
    with installed(monkeypatch, tmp_path) as fake:
        yield fake
