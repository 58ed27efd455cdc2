"""The lint of TensorRT's rules: each broken by itself."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeco.errors import ConversionError
from edgeco.export.lint import RULES, check_lint, lint


def model(
    nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], opset: int = 17, kind: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def pair(**changes: np.ndarray) -> onnx.ModelProto:
    constants = {"s": np.float32(0.1), "z": np.int8(0)} | changes
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    return model(nodes, constants)


def test_a_symmetric_pair_is_taken_by_every_version() -> None:
    for version in ("8.6.1", "10.3.0", "10.16.1", "11.4.0"):
        assert lint(pair(), version) == []


@pytest.mark.parametrize(
    ("given", "version", "rule", "why"),
    [
        (pair(z=np.int8(3)), "10.3.0", "zero points", "not 0"),
        (pair(z=np.uint8(128)), "10.3.0", "zero points", "not int8"),
        (pair(s=np.float32([0.1, 0.1, 0.2, 0.1]), z=np.zeros(4, np.int8)), "10.3.0", "scales", "for weights alone"),
        (pair(s=np.float32(0)), "10.3.0", "scales", "not above 0"),
        (pair(s=np.float16(0.1)), "10.12.0", "typed scales", "from 19 on"),
        (model([helper.make_node("Relu", ["x"], ["y"])], {}, 20), "8.6.1", "opset", "17 is read"),
        (model([helper.make_node("Relu", ["x"], ["y"])], {}, 23), "11.4.0", "opset", "22 is read"),
        (model([helper.make_node("LayerNormalization", ["x", "g"], ["y"])], {"g": np.ones(4, np.float32)}), "8.5.3",
         "operators", "from 8.6 on"),
        (model([helper.make_node("ScatterND", ["x", "i", "u"], ["y"])], {}), "10.3.0", "operators", "no place"),
        (model([helper.make_node("Cast", ["x"], ["r"], to=1), helper.make_node("Transpose", ["x"], ["y"])], {},
               kind=TensorProto.UINT8), "10.3.0", "bytes", "not by Transpose"),
        (model([helper.make_node("Relu", ["x"], ["y"])], {}, kind=TensorProto.INT8), "10.3.0", "pairs",
         "read by Relu"),
        (model([helper.make_node("CumSum", ["x", "x"], ["y"])], {}), "10.3.0", "constants", "must be a constant"),
        (model([helper.make_node("Relu", ["x"], ["y"])], {}, kind=TensorProto.INT64), "8.6.1", "ends", "narrowed"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_told_by_its_name(given: onnx.ModelProto, version: str, rule: str, why: str) -> None:
    found = lint(given, version)
    assert any(one.rule == rule and why in one.why for one in found), found
    with pytest.raises(ConversionError, match=r"form weak breaks a rule of TensorRT"):
        check_lint(given, version, "weak")


def test_every_rule_has_a_source() -> None:
    assert all(rule.source for rule in RULES) and len({rule.name for rule in RULES}) == len(RULES)
    assert not lint(model([helper.make_node("CumSum", ["x", "x"], ["y"])], {}), "10.8.0")
