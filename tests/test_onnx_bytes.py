"""Models that tests write field by field are what the onnx package reads."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "helpers"))
from onnx_bytes import constant, graph, model, operation, tensor, value, weighted
from picturenet import write_picturenet
from stepnets import mixed
from toy_bundle import write_toy

from edgeco.bundle import open_bundle


def test_the_checker_takes_them(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    toy = write_toy(tmp_path / "toy.edgeco")
    bundles = [toy.path, write_picturenet(tmp_path / "picture.edgeco")]
    for made in (mixed().onnx, *(open_bundle(path).onnx("fp32") for path in bundles)):
        onnx.checker.check_model(onnx.load_from_string(made), full_check=True)


def test_every_field_is_where_the_package_has_it() -> None:
    onnx = pytest.importorskip("onnx")
    helper, array = onnx.helper, np.arange(6, dtype=np.float16).reshape(2, 3)
    inputs, outputs = [value("x", ("rows", 3))], [value("y", (3, "rows"), "float16")]
    nodes = [operation("Cast", ["x"], ["c"], to=10), operation("Transpose", ["c"], ["y"], perm=[1, 0])]
    bare = model(graph(nodes, inputs, outputs, [constant("k", array)], name="g"), opset=17)
    found = onnx.load_from_string(weighted(bare, tensor("w", [1], bytes(4))))
    expected = helper.make_model(
        helper.make_graph(
            [helper.make_node("Cast", ["x"], ["c"], to=10), helper.make_node("Transpose", ["c"], ["y"], perm=[1, 0])],
            "g",
            [helper.make_tensor_value_info("x", 1, ["rows", 3])],
            [helper.make_tensor_value_info("y", 10, [3, "rows"])],
            [
                onnx.numpy_helper.from_array(array, "k"),
                onnx.numpy_helper.from_array(np.zeros(1, np.float32), "w"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    assert onnx.printer.to_text(found) == onnx.printer.to_text(expected)
