"""The fake TensorRT refuses what the real one does, so that code which breaks a rule does not pass; and what each
version is told of precision."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from gpu_fixtures import VERSIONS, Fake, compile_here, installed, open_engine
from stepnets import history, stepnet

from edgeco.engines.tensorrt.graph_io import read_io
from edgeco.engines.tensorrt.order import Options, Order, make_order
from edgeco.errors import EngineError

onnx = pytest.importorskip("onnx", reason="the fake TensorRT reads graphs with the onnx package")

NET = stepnet(history("slots", 1))


@pytest.fixture(params=VERSIONS)
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fake]:
    with installed(monkeypatch, tmp_path, request.param) as fake:
        yield fake


def order(graph: bytes, **changes: Any) -> Order:
    made = make_order(graph, read_io(graph), 1, "fp32", False, frozenset(), Options(), 8 << 30)
    return msgspec.structs.replace(made, **changes)


def built(graph: bytes, order: Order, timing: bytes = b"") -> bytes:
    from edgeco.engines.cuda import open_cuda
    from edgeco.engines.tensorrt.api import find_tensorrt
    from edgeco.engines.tensorrt.build import build_plan

    with open_cuda():
        made = build_plan(find_tensorrt(), graph, order, timing, lambda text: None, lambda: False)
    assert made.timing.endswith(b"t")
    return made.plan


def said_of(plan: bytes) -> dict[str, Any]:
    """What the fake was told, which its plans hold."""
    size = struct.unpack_from("<I", plan, 28)[0]
    return json.loads(plan[32 : 32 + size])


def written_in(opset: int) -> bytes:
    model = onnx.load_from_string(NET.onnx)
    model.opset_import[0].version = opset
    return model.SerializeToString()


def test_only_what_is_meant_is_told_of_precision(fake: Fake) -> None:
    from edgeco.engines.tensorrt.api import find_tensorrt

    api = find_tensorrt()
    strong = api.strong
    exact = said_of(built(NET.onnx, order(NET.onnx, strong=strong)))
    assert exact["flags"] == [] and exact["strong"] == strong
    half = said_of(built(NET.onnx, order(NET.onnx, strong=strong, precision="fp16", half=("h000_slots_new",))))
    assert half["flags"] == (["TF32"] if strong else ["FP16", "TF32"])
    assert half["half"] == ([] if strong else ["h000_slots_new"])


def test_layers_are_kept_in_fp32_where_the_flags_would_let_them_go(fake: Fake) -> None:
    from edgeco.engines.tensorrt.api import find_tensorrt

    strong = find_tensorrt().strong
    names = tuple(node.output[0] for node in onnx.load_from_string(NET.onnx).graph.node[:3])
    asked = {"strong": strong, "full": (*names, "h000_slots_new"), "half": ("h000_slots_new",)}
    half = said_of(built(NET.onnx, order(NET.onnx, precision="fp16", **asked)))
    assert half["full"] == ([] if strong else [*names, "h000_slots_new"])
    assert half["given full"] == ([] if strong else list(names))  # a state is written in the type it is kept in
    assert ("PREFER_PRECISION_CONSTRAINTS" in half["flags"]) == (not strong)
    exact = said_of(built(NET.onnx, order(NET.onnx, strong=strong, full=names)))
    assert exact["full"] == [] and exact["flags"] == []


def test_int8_flags_beside_types_are_refused(fake: Fake) -> None:
    from edgeco.engines.tensorrt.api import find_tensorrt

    api = find_tensorrt()
    quantised = order(NET.onnx, strong=api.strong, precision="int8", int8=True)
    said = said_of(built(NET.onnx, quantised))
    assert said["flags"] == (["TF32"] if api.strong else ["FP16", "INT8", "TF32"])


def test_a_flag_beside_types_is_refused(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeco.engines.tensorrt.api import Api, find_tensorrt

    api = find_tensorrt()
    if not api.weak or api.version < (10,):
        pytest.skip("this version has types or flags, never both")
    typed = 1 << int(api.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    monkeypatch.setattr(Api, "creation_flags", lambda self, strong: typed)
    with pytest.raises(EngineError, match="flags cannot be set for a strongly typed"):
        built(NET.onnx, order(NET.onnx, precision="fp16"))


def test_a_typed_graph_needs_a_typed_network_or_the_flag(fake: Fake) -> None:
    from edgeco.engines.tensorrt.api import find_tensorrt

    model = onnx.load_from_string(NET.onnx)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["x"], ["x32"], to=1))
    for node in model.graph.node[1:]:
        node.input[:] = ["x32" if name == "x" else name for name in node.input]
    graph = model.SerializeToString()
    if find_tensorrt().weak:
        with pytest.raises(EngineError, match="FP16"):
            built(graph, order(graph))
    if find_tensorrt().version >= (10,):
        assert said_of(built(graph, order(graph, strong=True, precision="fp16")))["strong"]


def test_an_opset_beyond_the_ceiling_is_refused(fake: Fake) -> None:
    from edgeco.engines.tensorrt.api import find_tensorrt

    api = find_tensorrt()
    built(written_in(api.ceiling), order(NET.onnx, strong=api.strong))
    with pytest.raises(EngineError, match=f"opset {api.ceiling + 1} is beyond {api.ceiling}"):
        built(written_in(api.ceiling + 1), order(NET.onnx, strong=api.strong))


def test_a_plan_of_another_version_is_refused(fake: Fake) -> None:
    from edgeco.engines.cuda import open_cuda
    from edgeco.engines.tensorrt.api import find_tensorrt
    from edgeco.engines.tensorrt.logger import last_words, make_logger

    api = find_tensorrt()
    plan = built(NET.onnx, order(NET.onnx, strong=api.strong))
    logger = make_logger(api.trt)
    with open_cuda():
        runtime = api.trt.Runtime(logger)
        assert runtime.deserialize_cuda_engine(plan) is not None
        assert runtime.deserialize_cuda_engine(plan[:25] + bytes([plan[25] + 1]) + plan[26:]) is None
    assert "of version" in last_words(logger)


def test_addresses_that_clash_or_are_odd_and_a_recording_before_a_run_are_refused(fake: Fake) -> None:
    from edgeco.engines.cuda import open_cuda
    from edgeco.engines.tensorrt.api import find_tensorrt
    from edgeco.engines.tensorrt.logger import make_logger

    api, cuda = find_tensorrt(), open_cuda()
    plan = built(NET.onnx, order(NET.onnx, strong=api.strong))
    with cuda:
        engine = api.trt.Runtime(make_logger(api.trt)).deserialize_cuda_engine(plan)
        context, stream = engine.create_execution_context(), cuda.stream()
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        addresses = {name: cuda.allocate(256) for name in names}
        for name, address in addresses.items():
            assert not context.set_tensor_address(name, address + 128)
            assert context.set_tensor_address(name, address)
        cuda.graphs.begin(stream.handle)
        assert not context.execute_async_v3(stream.handle)
        cuda.graphs.abort(stream.handle)
        assert context.execute_async_v3(stream.handle)
        context.set_tensor_address("h000_slots_new", addresses["h000_slots_age1"])
        assert not context.execute_async_v3(stream.handle)
        cuda.synchronize(stream)


def test_a_build_asks_whether_to_go_on(fake: Fake) -> None:
    from edgeco.engines.cuda import open_cuda
    from edgeco.engines.tensorrt.api import find_tensorrt
    from edgeco.engines.tensorrt.build import build_plan

    api = find_tensorrt()
    if not api.monitored:
        pytest.skip("this version does not ask")
    with open_cuda(), pytest.raises(EngineError, match="cancelled"):
        build_plan(api, NET.onnx, order(NET.onnx, strong=api.strong), b"", lambda text: None, lambda: True)


@pytest.mark.parametrize("kept", [b"damaged", b"of another GPU"])
def test_timings_that_do_not_serve_are_begun_anew(fake: Fake, kept: bytes) -> None:
    from edgeco.engines.tensorrt.api import find_tensorrt

    assert built(NET.onnx, order(NET.onnx, strong=find_tensorrt().strong), kept)


def test_an_engine_of_other_types_is_not_bound(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeco.engines.session import Session

    monkeypatch.setattr("edgeco.engines.tensorrt.plans.compile_in_child", compile_here)
    from edgeco.engines.tensorrt.api import find_tensorrt

    monkeypatch.setattr(find_tensorrt().trt.ICudaEngine, "get_tensor_dtype", lambda self, name: "BF16")
    with pytest.raises(EngineError, match=r"'x' is BF16\(1, 2\) in the plan, and its buffer float32"):
        Session(open_engine(NET, "fp32"), NET.manifest)
    assert fake.gpu.live == {}
    assert fake.gpu.depth == 0
