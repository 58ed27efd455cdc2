"""The ONNX Runtime engine: what it refuses and how it says so."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from onnx_bytes import TYPES, graph, operation
from onnx_bytes import model as model_of
from onnx_bytes import value as value_of
from stepnets import history, stepnet

from edgeco.engines import open_engine
from edgeco.engines.host import HostBuffer
from edgeco.engines.onnxruntime import HostBinding, OnnxRuntimeEngine
from edgeco.engines.protocol import Engine, Tensor
from edgeco.errors import EngineError

NET = stepnet(history("slots", 1, channels=3))  # x (rows, 3), past and new (rows, 3), y0 (rows, 1, 1, 3)


@pytest.fixture(scope="module")
def engine() -> OnnxRuntimeEngine:
    return OnnxRuntimeEngine(NET.onnx, threads=1)


def buffers(engine: OnnxRuntimeEngine, rows: int = 1) -> tuple[dict[str, HostBuffer], dict[str, HostBuffer]]:
    def make(tensors: tuple[Tensor, ...]) -> dict[str, HostBuffer]:
        shapes = {tensor.name: [rows if size is None else size for size in tensor.shape] for tensor in tensors}
        return {tensor.name: engine.memory.allocate(shapes[tensor.name], tensor.dtype) for tensor in tensors}

    return make(engine.inputs), make(engine.outputs)


def test_it_tells_what_the_graph_takes_and_gives(engine: OnnxRuntimeEngine) -> None:
    conforming: Engine = engine
    assert conforming.name == "onnxruntime"
    assert engine.threads == 1
    assert engine.inputs == (Tensor("x", (None, 3), "float32"), Tensor("h000_slots_age1", (None, 3), "float32"))
    assert [tensor.name for tensor in engine.outputs] == ["y0", "h000_slots_new"]


def test_it_runs_in_place(engine: OnnxRuntimeEngine) -> None:
    inputs, outputs = buffers(engine, rows=2)
    binding = engine.bind(inputs, outputs)
    for factor in (1, 2):  # two different frames must give two different answers
        inputs["x"].array[:] = factor * np.arange(6).reshape(2, 3)
        engine.run(binding)
        np.testing.assert_array_equal(outputs["h000_slots_new"].array, 3 * inputs["x"].array)


def test_aliasing_is_refused(engine: OnnxRuntimeEngine) -> None:
    memory = engine.memory
    inputs, outputs = buffers(engine)
    shared = memory.allocate((5,), "float32")
    first, second = (HostBuffer(shared.array[at : at + 3].reshape(1, 3)) for at in (0, 2))
    with pytest.raises(EngineError, match="share memory"):
        engine.bind(inputs, {**outputs, "h000_slots_new": inputs["h000_slots_age1"]})
    with pytest.raises(EngineError, match=r"'h000_slots_new' and 'x'|'x' and 'h000_slots_new'"):
        engine.bind({**inputs, "x": first}, {**outputs, "h000_slots_new": second})
    with pytest.raises(EngineError, match="share memory"):
        engine.bind({**inputs, "x": second}, {**outputs, "h000_slots_new": first})
    with pytest.raises(EngineError, match="share memory"):
        engine.bind(inputs, {"h000_slots_new": first, "y0": HostBuffer(second.array.reshape(1, 1, 1, 3))})


def test_a_wide_input_over_a_narrow_output_is_refused() -> None:
    # The overlap is not between neighbours in order of address.
    net = stepnet(history("mirror", 4, channels=1), history("slots", 1, number=1, channels=1))
    engine = OnnxRuntimeEngine(net.onnx, threads=1)
    inputs, outputs = buffers(engine)
    wide = engine.memory.allocate((4, 1, 1), "float32")
    inputs["h000_mirror_past"] = wide
    inputs["h001_slots_age1"] = engine.memory.element(wide, 1)
    engine.bind(inputs, outputs)  # inputs may share: they are only read
    outputs["h001_slots_new"] = engine.memory.element(wide, 3)
    with pytest.raises(EngineError, match="share memory"):
        engine.bind(inputs, outputs)


def test_neighbours_do_not_share(engine: OnnxRuntimeEngine) -> None:
    inputs, outputs = buffers(engine)
    block = engine.memory.allocate((4, 1, 3), "float32")
    inputs = {"x": engine.memory.element(block, 1), "h000_slots_age1": engine.memory.element(block, 3)}
    outputs["h000_slots_new"] = engine.memory.element(block, 2)
    engine.bind(inputs, outputs)


def test_rebinding_is_checked_every_time_something_new_comes(engine: OnnxRuntimeEngine) -> None:
    inputs, outputs = buffers(engine)
    binding = engine.bind(inputs, outputs)
    other = engine.memory.allocate((1, 3), "float32", 5)
    for _ in range(3):
        binding.rebind("x", other)
        engine.run(binding)
        assert (outputs["h000_slots_new"].array == 15).all()
        with pytest.raises(EngineError, match="share memory"):
            binding.rebind("x", outputs["h000_slots_new"])
    with pytest.raises(EngineError, match="takes"):
        binding.rebind("x", engine.memory.allocate((2, 3), "float32"))
    with pytest.raises(EngineError, match="takes"):
        binding.rebind("x", engine.memory.allocate((1, 3), "float16"))
    with pytest.raises(EngineError, match="not an input"):
        binding.rebind("y0", other)
    engine.run(binding)
    assert (outputs["h000_slots_new"].array == 15).all()


@pytest.mark.parametrize("side", [0, 1])
def test_names_shapes_and_types_must_fit(engine: OnnxRuntimeEngine, side: int) -> None:
    name = ("x", "h000_slots_new")[side]

    def bind(**changes: HostBuffer | None) -> HostBinding:
        sides = buffers(engine)
        for key, buffer in changes.items():
            if buffer is None:
                del sides[side][key]
            else:
                sides[side][key] = buffer
        return engine.bind(*sides)

    bind()
    with pytest.raises(EngineError, match=f"'{name}' is not bound"):
        bind(**{name: None})
    with pytest.raises(EngineError, match=r"the graph has no .* 'more'"):
        bind(more=engine.memory.allocate((1, 3), "float32"))
    with pytest.raises(EngineError, match=rf"'{name}' of the graph is float32"):
        bind(**{name: engine.memory.allocate((1, 4), "float32")})
    with pytest.raises(EngineError, match=r"float16\(1, 3\)"):
        bind(**{name: engine.memory.allocate((1, 3), "float16")})
    with pytest.raises(EngineError, match="float32"):
        bind(**{name: engine.memory.allocate((3,), "float32")})


def unknown_operator() -> bytes:
    nothing = operation("Nothing", ["a"], ["b"])
    return model_of(graph([nothing], [value_of("a", (1,))], [value_of("b", (1,))]), opset=17)


@pytest.mark.parametrize("model", [b"", b"no model", unknown_operator(), NET.onnx[: len(NET.onnx) // 2]])
def test_a_refused_graph_is_one_sentence(model: bytes) -> None:
    with pytest.raises(EngineError, match="refuses the graph") as caught:
        open_engine(model, threads=1)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_failing_run_is_one_sentence() -> None:
    nodes = [operation("Cast", ["a"], ["shape"], to=TYPES["int64"]), operation("Reshape", ["a", "shape"], ["b"])]
    made = model_of(graph(nodes, [value_of("a", (1,))], [value_of("b", (1,))]), opset=17)
    engine = OnnxRuntimeEngine(made, threads=1)
    inputs = {"a": engine.memory.allocate((1,), "float32", 1)}
    outputs = {"b": engine.memory.allocate((1,), "float32")}
    binding = engine.bind(inputs, outputs)
    engine.run(binding)
    assert outputs["b"].array[0] == 1
    engine.memory.fill(inputs["a"], 7)
    with pytest.raises(EngineError, match="failed while running") as caught:
        engine.run(binding)
    assert "\n" not in str(caught.value)


def test_a_missing_onnxruntime_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match="pip install onnxruntime"):
        open_engine(NET.onnx)


@pytest.mark.parametrize("version", ["1.22.1", "0.9", "1.9.0", ""])
def test_an_old_onnxruntime_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    old = types.ModuleType("onnxruntime")
    old.__version__ = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "onnxruntime", old)
    with pytest.raises(EngineError, match="too old"):
        open_engine(NET.onnx)


def test_unknown_engines_and_no_threads_are_refused() -> None:
    with pytest.raises(EngineError, match="no engine named 'abacus'"):
        open_engine(NET.onnx, engine="abacus")
    with pytest.raises(EngineError, match="at least one thread"):
        open_engine(NET.onnx, threads=0)
    assert open_engine(NET.onnx, engine="onnxruntime", threads=2).threads == 2
    assert open_engine(NET.onnx).threads >= 1


def test_a_foreign_binding_or_buffer_is_refused(engine: OnnxRuntimeEngine) -> None:
    with pytest.raises(EngineError, match="no binding of ONNX Runtime"):
        engine.run(object())  # type: ignore[arg-type]

    class Elsewhere:
        shape, dtype, address = (1, 3), np.dtype("float32"), 64

    inputs, outputs = buffers(engine)
    with pytest.raises(EngineError, match="host memory"):
        engine.bind({**inputs, "x": Elsewhere()}, outputs)
