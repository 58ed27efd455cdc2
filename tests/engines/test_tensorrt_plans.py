"""Plans: compiled once in a child, kept, found, and never taken from anybody else."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gpu_fixtures import Fake, compile_here, installed
from stepnets import history as make
from stepnets import mixed, stepnet

from edgeco.engines.tensorrt.graph_io import read_io
from edgeco.engines.tensorrt.order import Options, Order, make_order, network_key, plan_key, quantises
from edgeco.engines.tensorrt.plan import plan_version
from edgeco.engines.tensorrt.verdict import Refused
from edgeco.errors import EngineError

onnx = pytest.importorskip("onnx", reason="the fake TensorRT reads graphs with the onnx package")

NET = mixed()
IO = read_io(NET.onnx)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fake]:
    with installed(monkeypatch, tmp_path / "cache") as fake:
        yield fake


def order(**changes: object) -> Order:
    import msgspec

    made = make_order(NET.onnx, IO, 1, "fp16", False, frozenset(), Options(), 8 << 30)
    return msgspec.structs.replace(made, **changes)


def opener(said: list[str], cancel=None):
    from edgeco.engines.cuda import open_cuda
    from edgeco.engines.tensorrt.api import find_tensorrt
    from edgeco.engines.tensorrt.cache import PlanCache
    from edgeco.engines.tensorrt.plans import Plans

    return Plans(find_tensorrt(), open_cuda(), PlanCache(), said.append, "net", cancel)


def test_what_a_graph_says_of_itself() -> None:
    named = {tensor.name: tensor for tensor in (*IO.inputs, *IO.outputs)}
    assert IO.opset == 17
    assert named["x"].shape == (None, 2) and named["x"].sized(3) == (3, 2)
    assert named["h003_mirror_past"].dtype == "float16"
    assert named["h003_mirror_past"].sized(4) == (5, 4, 2)
    twice = read_io(stepnet(make("slots", 1, rows_per_stream=2)).onnx)
    assert {t.name: t for t in twice.inputs}["h000_slots_age1"].sized(3) == (6, 2)


def test_a_plan_is_compiled_in_a_child_and_kept(fake: Fake) -> None:
    said: list[str] = []
    first = opener(said).open(NET.onnx, order())
    assert not first.cached
    assert "once" in said[0] and any("%" in text for text in said)
    plan = Path(opener([]).cache.plan_path(first.sidecar.key))
    assert plan_version(plan.read_bytes()) == (10, 3, 0)
    sidecar = json.loads(plan.with_suffix(".json").read_text())
    assert sidecar["plan_sha256"] == hashlib.sha256(plan.read_bytes()).hexdigest()
    assert sidecar["gpu"] == "Fake GPU" and sidecar["capability"] == [8, 7]
    assert json.loads(plan.with_name(plan.stem + ".layers.json").read_text())["Layers"]
    said.clear()
    assert opener(said).open(NET.onnx, order()).cached
    assert said == []
    assert plan.parent.stat().st_mode & 0o777 == 0o700
    assert list(plan.parent.parent.glob("timing/*.cache"))


def test_what_is_wrong_with_a_kept_plan_is_said_and_mended_once(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeco.engines.tensorrt.plans.compile_in_child", compile_here)
    key = opener([]).open(NET.onnx, order()).sidecar.key
    cache = opener([]).cache
    plan, sidecar = cache.plan_path(key), cache.plan_path(key).with_suffix(".json")
    good = plan.read_bytes(), sidecar.read_text()

    def foreign() -> None:
        sidecar.unlink()

    def damaged() -> None:
        plan.write_bytes(good[0][:-1] + b"\0")

    def older() -> None:
        changed = good[0][:24] + bytes((10, 1, 0, 0)) + good[0][28:]
        record = {**json.loads(good[1]), "plan_sha256": hashlib.sha256(changed).hexdigest()}
        plan.write_bytes(changed)
        sidecar.write_text(json.dumps(record))

    def another() -> None:
        sidecar.write_text(good[1].replace(key, "0" * 32))

    for spoil, reason in ((foreign, "unknown origin"), (damaged, "damaged"), (older, "of TensorRT 10.1.0"),
                          (another, "unknown origin")):  # fmt: skip
        spoil()
        said: list[str] = []
        assert not opener(said).open(NET.onnx, order()).cached
        assert reason in said[0] and "compiling again" in said[0]
        assert opener([]).open(NET.onnx, order()).cached


def test_a_foreign_plan_is_never_deserialised(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeco.engines.tensorrt.plans.compile_in_child", compile_here)
    plans = opener([])
    device = plans.cuda.device
    key = plan_key(NET.onnx, order(), plans.api.text, device.name, device.capability)
    plans.cache.plan_path(key).write_bytes(b"ftrt evil")
    seen: list[bytes] = []
    runtime = plans.api.trt.Runtime
    real = runtime.deserialize_cuda_engine

    def watch(self, plan):
        seen.append(plan)
        return real(self, plan)

    monkeypatch.setattr(runtime, "deserialize_cuda_engine", watch)
    plans.open(NET.onnx, order())
    assert seen and b"ftrt evil" not in seen


def test_a_plan_that_does_not_load_is_compiled_once_more(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeco.engines.tensorrt.plans.compile_in_child", compile_here)
    plans = opener([])
    plans.open(NET.onnx, order())
    real, left = plans._deserialise, [1]

    def flaky(*args, **kwargs):
        left[0] -= 1
        return None if left[0] >= 0 else real(*args, **kwargs)

    monkeypatch.setattr(plans, "_deserialise", flaky)
    assert not plans.open(NET.onnx, order()).cached
    left[0] = 2
    with pytest.raises(EngineError, match="just compiled"):
        plans.open(NET.onnx, order())


def test_everything_that_matters_is_in_the_key() -> None:
    base = plan_key(NET.onnx, order(), "10.3.0", "Orin", (8, 7))
    others = [
        plan_key(NET.onnx + b" ", order(), "10.3.0", "Orin", (8, 7)),
        plan_key(NET.onnx, order(precision="fp32"), "10.3.0", "Orin", (8, 7)),
        plan_key(NET.onnx, order(strong=True), "10.3.0", "Orin", (8, 7)),
        plan_key(NET.onnx, order(precision="int8"), "10.3.0", "Orin", (8, 7)),
        plan_key(NET.onnx, order(int8=True), "10.3.0", "Orin", (8, 7)),
        plan_key(NET.onnx, order(half=("x",)), "10.3.0", "Orin", (8, 7)),
        plan_key(NET.onnx, order(full=("x",)), "10.3.0", "Orin", (8, 7)),
        plan_key(NET.onnx, order(shapes={"x": (2, 2)}), "10.3.0", "Orin", (8, 7)),
        plan_key(NET.onnx, order(), "10.3.1", "Orin", (8, 7)),
        plan_key(NET.onnx, order(), "10.3.0", "Thor", (8, 7)),
        plan_key(NET.onnx, order(), "10.3.0", "Orin", (8, 6)),
    ]
    assert len({base, *others}) == len(others) + 1
    assert plan_key(NET.onnx, order(level=5, workspace=1), "10.3.0", "Orin", (8, 7)) == base


def test_a_network_has_one_name_for_any_number_of_rows() -> None:
    one, other = order(), order(shapes={"x": (2, 2)})
    names = [network_key({NET.onnx: each}, "10.3.0", "Orin", (8, 7)) for each in (one, other)]
    assert names[0] == names[1]
    assert names[0] != network_key({NET.onnx: one}, "10.16.1", "Orin", (8, 7))
    assert names[0] != network_key({NET.onnx: one, NET.onnx + b" ": one}, "10.3.0", "Orin", (8, 7))


def test_a_plan_of_other_options_serves_a_run_and_not_a_compilation(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeco.engines.tensorrt.plans.compile_in_child", compile_here)
    said: list[str] = []
    assert not opener(said).open(NET.onnx, order(level=5), exactly=True).cached
    assert opener(said).open(NET.onnx, order()).sidecar.order.level == 5
    assert opener(said).open(NET.onnx, order(level=5), exactly=True).cached
    assert not opener(said).open(NET.onnx, order(), exactly=True).cached
    assert any("other options" in text for text in said)


def test_an_open_or_foreign_folder_is_refused(fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from edgeco.engines.tensorrt.cache import PlanCache

    cache = PlanCache()
    os.chmod(cache.plans, 0o777)
    with pytest.raises(EngineError, match="everybody may write"):
        PlanCache()
    os.chmod(cache.plans, 0o700)
    os.chmod(cache.timings, 0o777)
    with pytest.raises(EngineError, match=r"everybody may write to .*timing"):
        PlanCache()
    os.chmod(cache.timings, 0o700)
    PlanCache()
    owner = cache.plans.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    monkeypatch.setattr("edgeco.engines.tensorrt.cache.ROOT", owner + 2)
    with pytest.raises(EngineError, match="another user's"):
        PlanCache()
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="EDGECO_CACHE"):
        PlanCache(tmp_path / "file")


def test_one_process_compiles_and_the_other_waits(fake: Fake) -> None:
    from edgeco.engines.tensorrt.cache import PlanCache

    cache, order_of_things = PlanCache(), list[str]()

    def second() -> None:
        with PlanCache().lock("k", lambda: order_of_things.append("waits")):
            order_of_things.append("second")

    with cache.lock("k", lambda: None):
        thread = threading.Thread(target=second)
        thread.start()
        while "waits" not in order_of_things:
            time.sleep(0.01)
        order_of_things.append("first")
    thread.join()
    assert order_of_things == ["waits", "first", "second"]


def test_a_compilation_can_be_given_up(fake: Fake) -> None:
    start = time.monotonic()
    with pytest.raises(EngineError, match="cancelled"):
        opener([], cancel=lambda: True).open(NET.onnx, order())
    assert time.monotonic() - start < 30
    assert not list(opener([]).cache.plans.glob("*.plan"))


def test_a_child_that_dies_is_told_in_one_sentence(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    import edgeco.engines.tensorrt.compiling as compiling

    real = compiling.subprocess.Popen
    for code, said, refused in (
        ("import os; os.kill(os.getpid(), 9)", "lack of memory", False),
        ("import os; os.kill(os.getpid(), 11)", "SIGSEGV", True),  # and would again: as good as a refusal
        ("import sys; sys.exit('out of luck')", "out of luck", False),
    ):
        monkeypatch.setattr(
            compiling.subprocess, "Popen", lambda command, code=code, **more: real([command[0], "-c", code], **more)
        )
        with pytest.raises(EngineError, match=said) as caught:
            opener([]).open(NET.onnx, order())
        assert "\n" not in str(caught.value) and isinstance(caught.value, Refused) == refused


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0"])
def test_quantised_graphs_get_the_flag(version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from edgeco.engines.cuda import open_cuda
    from edgeco.engines.tensorrt.api import find_tensorrt
    from edgeco.engines.tensorrt.build import build_plan

    scale, zero = onnx.numpy_helper.from_array(np.float32(0.1), "s"), onnx.numpy_helper.from_array(np.int8(0), "z")
    nodes = [onnx.helper.make_node("QuantizeLinear", ["a", "s", "z"], ["q"]),
             onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["b"])]  # fmt: skip
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["rows", 2]) for name in "ab"]
    graph = onnx.helper.make_graph(nodes, "q", value[:1], value[1:], [scale, zero])
    opset = [onnx.helper.make_opsetid("", 17)]
    quantised = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    assert quantises(quantised) and not quantises(NET.onnx)
    made = make_order(quantised, read_io(quantised), 1, "fp32", False, frozenset(), Options(), 8 << 30)
    assert made.int8
    with installed(monkeypatch, tmp_path, version), open_cuda():
        api = find_tensorrt()
        assert plan_version(build_plan(api, quantised, made, b"", print, lambda: False).plan) == api.version
        import msgspec

        with pytest.raises(EngineError, match="INT8 builder flag"):
            build_plan(api, quantised, msgspec.structs.replace(made, int8=False), b"", print, lambda: False)
