"""INT8 on TensorRT, on a fake GPU: every version's form through either CUDA package against ONNX Runtime and the torch
runner; and what is remembered of a TensorRT that takes no INT8 at the ends of a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from gpu_fixtures import Fake, compile_here, installed

pytest.importorskip("torch", reason="bundles are built here")

import torch
from quant_nets import NETS, Mobile

import edgeco
from edgeco.building import build
from edgeco.bundle import open_bundle
from edgeco.cli import main
from edgeco.engines.tensorrt import plans
from edgeco.errors import EngineError, SpecError
from edgeco.runtime.verify import verify

FILE = Path(__file__).resolve().parents[1] / "helpers" / "quant_nets.py"
STEPS = 110


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Slots, rings, mirrors, a carry and strides in INT8; golden answers of the torch runner."""
    folder, rng, made = tmp_path_factory.mktemp("int8"), np.random.default_rng(0), {}
    for net in NETS:
        clip, axis = list(net.clip), getattr(net, "time_dim", 2) - 1  # type: ignore[attr-defined]
        shape = (2, clip[axis] + 60, *clip[:axis], *clip[axis + 1 :])
        np.savez(folder / "cases.npz", x=rng.standard_normal(shape).astype(np.float32), y=np.zeros(2, np.int64))
        fields = {"model": f"{FILE}:{net.__name__}", "clip": clip, "time_dim": axis + 1, "precision": ["fp32", "int8"]}
        made[net.__name__] = str(folder / f"{net.__name__}.edgeco")
        calibrate = {"calibrate": [str(folder / "cases.npz")], "tensorrt": True, "golden": STEPS}
        torch.manual_seed(0)
        build({**fields, **calibrate}, made[net.__name__])
    return made


def answers(stream: Any, frames: np.ndarray) -> np.ndarray:
    return np.stack([stream.step(frame).outputs["output"] for frame in frames])


@pytest.mark.sampled(5)
@pytest.mark.parametrize("ends", ["int8", "float"])
@pytest.mark.parametrize("name", [net.__name__ for net in NETS])
def test_every_version_and_package_computes_the_codes_of_its_form(
    bundles: dict[str, str], fake: Fake, monkeypatch: pytest.MonkeyPatch, name: str, ends: str
) -> None:
    if ends == "float":
        monkeypatch.setenv("EDGECO_FAKE_INT8_ENDS", "no")
    model = edgeco.load(bundles[name], engine="tensorrt", precision="int8")
    assert model.variant.endswith("-float-states") == (ends == "float")
    report = verify(bundles[name], engine="tensorrt", variants=[model.variant])
    assert report.passed and report.steps > 100
    own = edgeco.load(bundles[name], engine="onnxruntime", variant=model.variant)
    for rows in (1, 4):
        shape = (STEPS, *([rows] if rows > 1 else []), *model.manifest.inputs[0].shape)
        frames = np.random.default_rng(rows).standard_normal(shape).astype(np.float32)
        with model.stream(rows) as stream, own.stream(rows) as other:
            given, right = answers(stream, frames), answers(other, frames)
            kinds = {past.dtype.name for past in stream._session.past().values()}
        assert ("int8" in kinds) == (ends == "int8")
        halved = kinds != {past.dtype.name for past in own.stream()._session.past().values()}
        if halved:  # below 10.12 a state that is no code is kept in FP16 although the graph computes in FP32
            np.testing.assert_allclose(given, right, atol=0.01 * float(np.abs(right).max()))
        else:
            np.testing.assert_array_equal(given, right)
    assert fake.gpu.live == {}


@pytest.mark.parametrize("ends", ["int8", "float"])
@pytest.mark.parametrize("name", ["Mobile", "Greatest"])
def test_rows_that_pause_and_pasts_that_move(
    bundles: dict[str, str], one: Fake, monkeypatch: pytest.MonkeyPatch, name: str, ends: str
) -> None:
    """Held rows are held in codes; a stream's past goes on in ONNX Runtime and comes back."""
    if ends == "float":
        monkeypatch.setenv("EDGECO_FAKE_INT8_ENDS", "no")
    model = edgeco.load(bundles[name], engine="tensorrt", precision="int8")
    own = edgeco.load(bundles[name], engine="onnxruntime", variant=model.variant)
    rng, shape = np.random.default_rng(0), model.manifest.inputs[0].shape
    with model.streams(3) as streams:
        alone = {streams.join(): own.stream() for _ in range(3)}
        for tick in range(90):
            ready = [row for row in streams.ready if tick % 4 or row != 1]  # row 1 sits every fourth tick out
            frames = {row: rng.standard_normal(shape).astype(np.float32) for row in ready}
            for row, given in streams.tick(frames).items():
                right = alone[row].step(frames[row])
                assert given.valid == right.valid
                if right.valid:
                    scale = float(np.abs(right.outputs["output"]).max())
                    np.testing.assert_allclose(given.outputs["output"], right.outputs["output"], atol=0.01 * scale)
            if tick == 60:
                alone[0].restore(streams.snapshot(0))
                streams.restore(2, alone[2].snapshot())
    assert one.gpu.live == {}


def test_both_ways_to_float_states_keep_the_same_in_fp16(
    bundles: dict[str, str], monkeypatch: pytest.MonkeyPatch, one: Fake
) -> None:
    monkeypatch.setenv("EDGECO_FAKE_INT8_ENDS", "no")
    for path in bundles.values():
        found = edgeco.load(path, engine="tensorrt", precision="int8")
        named = edgeco.load(path, engine="tensorrt", variant=found.variant)
        assert found.variant == named.variant == "trt-int8-float-states"
        assert found.engine.half == named.engine.half != frozenset()  # type: ignore[attr-defined]


@pytest.mark.parametrize("ends", ["no", "float"])
def test_a_refusal_is_found_out_once_and_remembered(
    bundles: dict[str, str], monkeypatch: pytest.MonkeyPatch, one: Fake, tmp_path: Path, ends: str
) -> None:
    compiled: list[str] = []

    def counted(onnx: bytes, order: Any, *args: Any) -> tuple[bytes, str, float]:
        compiled.append(order.precision)
        return compile_here(onnx, order, *args)

    monkeypatch.setattr(plans, "compile_in_child", counted)
    monkeypatch.setenv("EDGECO_FAKE_INT8_ENDS", ends)
    first = edgeco.load(bundles["Mobile"], engine="tensorrt", precision="int8")
    assert first.variant == "trt-int8-float-states" and len(compiled) == 1
    said = "INT8 is not supported at the ends" if ends == "no" else "it makes float32 of 'h0"
    assert said in first.why
    again = edgeco.load(bundles["Mobile"], engine="tensorrt", precision="int8")
    assert again.why == first.why and len(compiled) == 1
    verdict = json.loads(next(tmp_path.glob("plans/*.verdict.json")).read_text())
    assert verdict["tensorrt"] == "10.3.0" and said in verdict["refused"]
    # What another driver takes is found out when somebody asks.
    monkeypatch.delenv("EDGECO_FAKE_INT8_ENDS")
    for path in tmp_path.glob("plans/*.plan"):
        path.unlink()
    ran = CliRunner().invoke(main, ["compile", bundles["Mobile"], "--precision", "int8", "--fresh", "--rows", "4"])
    assert ran.exit_code == 0 and "variant trt-int8 " in " ".join(ran.stdout.split()), ran.output
    assert edgeco.load(bundles["Mobile"], engine="tensorrt", precision="int8").variant == "trt-int8"


def test_a_verdict_stands_for_any_number_of_rows(
    bundles: dict[str, str], one: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = CliRunner().invoke(main, ["compile", bundles["Mobile"], "--precision", "int8", "--rows", "4", "--json"])
    assert ran.exit_code == 0, ran.output
    assert [plan["rows"] for plan in json.loads(ran.stdout)["plans"]] == [4]

    def never(*args: Any) -> None:
        raise AssertionError("compiled for rows that nobody asked for")

    monkeypatch.setattr(plans, "compile_in_child", never)
    model = edgeco.load(bundles["Mobile"], engine="tensorrt", precision="int8")
    with model.stream(4) as stream:
        stream.step(np.zeros((4, *Mobile.clip[:1], *Mobile.clip[2:]), np.float32))


@pytest.mark.parametrize("why", ["lack of memory", "Error Code 2: OutOfMemory (Requested size was 42 bytes.)"])
def test_what_says_nothing_of_the_graph_is_no_refusal(
    bundles: dict[str, str], one: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, why: str
) -> None:
    def killed(*args: Any) -> None:
        from edgeco.engines.tensorrt.verdict import Refused, failure

        error = EngineError(why) if "Code" not in why else failure(f"TensorRT cannot compile: {why}", why)
        assert not isinstance(error, Refused)
        raise error

    monkeypatch.setattr(plans, "compile_in_child", killed)
    with pytest.raises(EngineError, match=why[:10]):
        edgeco.load(bundles["Mobile"], engine="tensorrt", precision="int8")
    assert not list(tmp_path.glob("plans/*.verdict.json"))


def test_a_form_asked_for_by_name_is_not_exchanged(
    bundles: dict[str, str], one: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECO_FAKE_INT8_ENDS", "no")
    model = edgeco.load(bundles["Mobile"], engine="tensorrt", variant="trt-int8")
    assert model.variant == "trt-int8"
    with pytest.raises(EngineError, match="INT8 is not supported at the ends"):
        model.stream()
    with pytest.raises(EngineError, match=r"trt-int8: TensorRT 10\.3\.0 cannot compile"):
        verify(bundles["Mobile"], engine="tensorrt", variants=["trt-int8"])


def test_a_refusal_in_the_child_is_one_too(
    bundles: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with installed(monkeypatch, tmp_path):
        monkeypatch.setenv("EDGECO_FAKE_INT8_ENDS", "no")
        model = edgeco.load(bundles["Mobile"], engine="tensorrt", precision="int8")
        assert model.variant == "trt-int8-float-states"
        assert list(tmp_path.glob("plans/*.verdict.json"))


def test_a_device_has_the_forms_of_its_typings_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edgeco.engines.tensorrt.plans.compile_in_child", compile_here)
    clip = list(Mobile.clip)
    cases = np.random.default_rng(0).standard_normal((2, 40, clip[0], *clip[2:])).astype(np.float32)
    np.savez(tmp_path / "cases.npz", x=cases, y=np.zeros(2, np.int64))
    fields = {
        "model": f"{FILE}:Mobile",
        "clip": clip,
        "precision": ["int8"],
        "calibrate": [str(tmp_path / "cases.npz")],
    }
    build({**fields, "device": "jetson-thor"}, tmp_path / "thor.edgeco")
    variants = set(open_bundle(tmp_path / "thor.edgeco").manifest.variants)
    assert variants == {"fp32", "trt-fp32", "trt-fp16", "trt-int8-typed", "trt-int8-typed-float-states"}
    with installed(monkeypatch, tmp_path / "cache", "11.4.0.106"):
        assert edgeco.load(tmp_path / "thor.edgeco", precision="int8").variant == "trt-int8-typed"
    said = r"no variant trt-int8 for TensorRT 10\.3\.0; build it again"
    with installed(monkeypatch, tmp_path / "cache", "10.3.0"), pytest.raises(EngineError, match=said):
        edgeco.load(tmp_path / "thor.edgeco", engine="tensorrt", precision="int8")
    with pytest.raises(SpecError, match=r"Nothing can be built for Jetson Xavier NX: its last JetPack is 5\.1"):
        build({**fields, "device": "jetson-xavier-nx"}, tmp_path / "xavier.edgeco")


def test_each_form_has_plans_of_its_own(bundles: dict[str, str], one: Fake, tmp_path: Path) -> None:
    for precision in ("fp32", "fp16", "int8"):
        edgeco.load(bundles["Mobile"], engine="tensorrt", precision=precision).stream()  # type: ignore[arg-type]
    edgeco.load(bundles["Mobile"], engine="tensorrt", variant="trt-int8-float-states").stream()
    sidecars = [json.loads(p.read_text()) for p in tmp_path.glob("plans/*.json") if p.name.count(".") == 1]
    assert len(sidecars) == 4 and len({sidecar["plan_sha256"] for sidecar in sidecars}) == 4
    orders = sorted((s["order"]["precision"], s["order"]["int8"], bool(s["order"]["half"])) for s in sidecars)
    assert orders == [("fp16", False, True), ("fp32", False, False), ("int8", True, False), ("int8", True, True)]


def test_scales_are_numbers_of_fp16_and_codes_symmetric(bundles: dict[str, str]) -> None:
    onnx = pytest.importorskip("onnx")
    bundle = open_bundle(bundles["Mobile"])
    for variant in ("trt-int8", "trt-int8-typed"):
        model = onnx.load_from_string(bundle.onnx(variant))
        constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        kinds = {"trt-int8": np.float32, "trt-int8-typed": np.float16}
        for node in model.graph.node:
            if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
                continue
            scale, zero = constants[node.input[1]], constants[node.input[2]]
            assert scale.dtype == kinds[variant] and not zero.any() and zero.dtype == np.int8
            assert np.array_equal(scale.astype(np.float16).astype(np.float32), scale.astype(np.float32))
            codes = constants.get(node.input[0])
            assert codes is None or int(codes.min()) >= -127
