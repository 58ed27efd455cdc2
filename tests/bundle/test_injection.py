"""Weights injected by concatenation are what any ONNX reader sees, and safetensors are read as they are written."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis.extra import numpy as arrays
from safetensors.numpy import save
from toy_bundle import Toy

from edgeco.bundle import weights
from edgeco.bundle.protobuf import read_varint, varint
from edgeco.bundle.tensors import NUMPY_TYPES, read_tensors
from edgeco.bundle.weights import inject_weights
from edgeco.errors import BundleError

TENSORS = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12).filter(
        lambda name: name != "__metadata__"
    ),
    st.sampled_from(sorted(NUMPY_TYPES.values())).flatmap(
        lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, max_side=4))
    ),
    max_size=5,
)


@hypothesis.given(TENSORS)
@hypothesis.settings(max_examples=100, deadline=None)
def test_tensors_are_what_the_safetensors_library_wrote(tensors: dict[str, np.ndarray]) -> None:
    found = read_tensors(memoryview(save(tensors, {"made": "here"})), "member")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        again = found[name].array()
        assert (again.dtype, again.shape, again.tobytes()) == (tensor.dtype, tensor.shape, tensor.tobytes())
        assert again.flags.writeable


@hypothesis.given(TENSORS)
@hypothesis.settings(max_examples=100, deadline=None)
def test_the_onnx_package_reads_back_every_initializer(tensors: dict[str, np.ndarray]) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import numpy_helper

    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [], [])
    model = onnx.helper.make_model(graph)
    held = read_tensors(memoryview(save(tensors)), "member")
    merged = onnx.load_from_string(inject_weights(model.SerializeToString(), held, tensors))
    assert [entry.name for entry in merged.graph.initializer] == list(tensors)
    for entry in merged.graph.initializer:
        array = numpy_helper.to_array(entry)
        assert (array.dtype, array.shape) == (tensors[entry.name].dtype, tensors[entry.name].shape)
        assert array.tobytes() == tensors[entry.name].tobytes()
    del merged.graph.initializer[:]
    assert merged == model, "nothing but initializers was added"


def test_only_what_the_graph_reads_is_injected(toy: Toy) -> None:
    onnx = pytest.importorskip("onnx")
    from edgeco.bundle import open_bundle

    model = onnx.load_from_string(open_bundle(toy.path).onnx("fp32"))
    onnx.checker.check_model(model)
    assert [entry.name for entry in model.graph.initializer] == ["w"]


def test_a_model_beyond_protobuf_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MAX_BUNDLE", 100)
    held = read_tensors(memoryview(save({"w": np.zeros(25, np.float32)})), "member")
    with pytest.raises(BundleError, match="more than 100 bytes"):
        inject_weights(b"", held, ["w"])


@hypothesis.given(st.integers(0, 2**64 - 1))
def test_integers_survive(value: int) -> None:
    encoded = varint(value)
    assert read_varint(memoryview(encoded), 0) == (value, len(encoded))
