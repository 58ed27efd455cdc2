"""Graphs that reach outside the bundle, smuggle a compiled engine, or are no graphs; all with right hashes."""

from __future__ import annotations

from collections.abc import Iterator

from forging import Attack, forge
from onnx_bytes import EXTERNAL, attribute, graph, many, message, node, tensor, texts, whole
from toy_bundle import Toy

from edgeco.bundle.protobuf import head

NAME = "graphs/fp32.onnx"
PLAN = b"ftrt" + bytes(range(64))
"""As a compiled TensorRT engine begins."""


def external_data_attacks(toy: Toy) -> Iterator[Attack]:
    """A path in every place where ONNX allows a tensor. Concatenated messages merge, so what is appended counts."""
    outside = tensor("k", [3], location=EXTERNAL, places=[("location", "/etc/passwd")])
    unmarked = tensor("k", [3], places=[("location", "../x")])
    marked = tensor("k", [3], location=EXTERNAL)
    sparse = message(1, outside) + message(2, tensor("i", [3]))
    inner = graph([node("Relu", ["k"], ["r"])], initializers=[outside], name="inner")

    def constant(number: int, data: bytes, kind: int) -> bytes:
        return message(7, message(1, node("Constant", [], ["c"], [attribute("value", number, [data], kind)])))

    branches = [attribute(name, 6, [inner], 5) for name in ("then_branch", "else_branch")]
    held = [attribute("value", 5, [outside], 4)]
    function = texts(1, ["f"]) + texts(5, ["c"]) + many(7, [node("Constant", [], ["c"], held)]) + texts(10, ["d"])
    for title, added in {
        "an initializer": message(7, message(5, outside)),
        "a place without mark": message(7, message(5, unmarked)),
        "a mark without place": message(7, message(5, marked)),
        "a constant": constant(5, outside, 4),
        "a list of constants": constant(10, outside, 9),
        "a sparse constant": constant(22, sparse, 11),
        "a list of sparse constants": constant(23, sparse, 12),
        "an inner graph": message(7, message(1, node("If", ["frame"], ["c"], branches))),
        "a list of inner graphs": constant(11, inner, 10),
        "a sparse initializer": message(7, message(15, sparse)),
        "a function": message(25, function),
        "a training graph": message(20, message(1, inner)),
    }.items():
        data = forge(toy, {NAME: toy.members[NAME] + added})
        yield Attack(f"external data in {title}", data, "data lie in another file, which a bundle forbids")


def foreign_plan_attacks(toy: Toy) -> Iterator[Attack]:
    """A compiled engine is native code: it never comes from a bundle."""
    good = toy.members[NAME]

    def context(name: str, *attributes: bytes, domain: str = "com.microsoft") -> Attack:
        made = node("EPContext", ["frame"], ["score2"], attributes, domain)
        sentence = f"an operator is of the domain '{domain}', and a bundle takes ONNX's own only"
        return Attack(name, forge(toy, {NAME: good + message(7, message(1, made))}), sentence)

    cache = texts(1, ["ep_cache_context"])
    yield context("plan inside an operator", whole("embed_mode", 1), cache + message(4, PLAN))
    yield context("plan named by an operator", whole("embed_mode", 0), cache + texts(4, ["../../evil.engine"]))
    yield context("operator of a custom library", domain="my.own")
    hidden = graph([node("EPContext", ["frame"], ["r"], domain="com.microsoft")], name="inner")
    branches = [attribute(name, 6, [hidden], 5) for name in ("then_branch", "else_branch")]
    deeper = message(7, message(1, node("If", ["frame"], ["c"], branches)))
    yield Attack("plan in an inner graph", forge(toy, {NAME: good + deeper}), "an operator is of the domain 'com.mic")
    yield Attack("plan as a graph", forge(toy, {NAME: PLAN}), "graphs/fp32.onnx is not a usable ONNX model")

    def edit(manifest: dict[str, dict[str, dict[str, object]]]) -> None:
        manifest["variants"]["fp32"]["plan"] = "plans/fp32.plan"

    listed = forge(toy, {"plans/fp32.plan": PLAN}, edit)
    yield Attack("plan listed for a variant", listed, "Object contains unknown field `plan`")


def graph_attacks(toy: Toy) -> Iterator[Attack]:
    good = toy.members[NAME]
    nested = b""
    for _ in range(40):
        for number in (6, 5, 1):  # a graph in an attribute in a node
            nested = head(number, len(nested)) + nested
    yield Attack("deep graphs", forge(toy, {NAME: good + message(7, nested)}), "nested deeper than 32")
    for title, data, sentence in (
        ("empty graph", b"", "holds no node"),
        ("cut graph", good[:-1], "cut short"),
        ("group in a graph", good + b"\x0b\x0c", "structure is damaged"),
        ("field zero", good + b"\x00\x00", "structure is damaged"),
        ("endless number", good + b"\x08" + b"\xff" * 11, "cut short"),
        ("graph as a number", good + b"\x38\x01", "structure is damaged"),
        ("broken name", good + b"\x3a\x05\x0a\x03\x0a\x01\xff", "is not UTF-8"),
        ("text as a graph", b"graph toy { }\n", "not a usable ONNX model"),
    ):
        yield Attack(title, forge(toy, {NAME: data}), sentence)
    weight = tensor("w", [3], bytes(12))
    shadow = good + message(7, message(5, weight))
    yield Attack("weight in the graph too", forge(toy, {NAME: shadow}), "makes 'w' itself")
