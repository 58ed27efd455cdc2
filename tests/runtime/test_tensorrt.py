"""Bundles on TensorRT, on a fake GPU: the path of each version against the torch runner; choices and refusals."""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boards import ORIN_NANO, plant
from click.testing import CliRunner
from gpu_fixtures import Fake, compile_here, installed

pytest.importorskip("torch", reason="bundles are built here")

from device_nets import NAMES

import edgeco
import edgeco.bundle
from edgeco.building import build
from edgeco.cli import main
from edgeco.engines.cuda.foreign import Managed
from edgeco.errors import EngineError, FrameError
from edgeco.runtime.verify import verify

NETS = Path(__file__).resolve().parents[1] / "helpers" / "device_nets.py"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Bundles whose golden answers are the torch runner's over more than a hundred steps."""
    folder = tmp_path_factory.mktemp("bundles")
    made = {}
    for name in NAMES:
        made[name] = str(folder / f"{name}.edgeco")
        build({"model": f"{NETS}:{name}", "tensorrt": True, "golden": 100}, made[name])
    made["plain"] = str(folder / "plain.edgeco")
    build({"model": f"{NETS}:camera"}, made["plain"])
    made["readings"] = str(folder / "readings.edgeco")
    build({"model": f"{NETS}:sensors"}, made["readings"])
    return made


def test_the_networks_use_every_storage_and_phases(bundles: dict[str, str]) -> None:
    manifests = [edgeco.bundle.open_bundle(bundles[name]).manifest for name in NAMES]
    assert {history.storage for m in manifests for history in m.histories} == {"slots", "ring", "mirror"}
    assert any(manifest.timeline.stride > 1 for manifest in manifests)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", NAMES)
def test_every_version_and_package_answers_as_the_torch_runner(bundles: dict[str, str], fake: Fake, name: str) -> None:
    report = verify(bundles[name], engine="tensorrt")
    assert report.steps > 100 and len(report.variants) == 3
    for check in report.variants:
        assert check.skipped is None, check.skipped
        for output in check.outputs:
            assert output.difference < (check.tolerance if check.variant == "trt-fp16" else 1e-5), check
    assert fake.gpu.live == {}


@pytest.mark.parametrize(
    ("version", "variant", "said"),
    [
        ("8.6.1", "trt-fp32", "layer by layer"),
        ("10.3.0", "trt-fp32", "layer by layer"),
        ("10.16.1.11", "trt-fp16", "typed in the graph"),
        ("11.4.0.106", "trt-fp16", "typed in the graph"),
    ],
)
def test_auto_takes_tensorrt_in_fp16_and_says_so(
    bundles: dict[str, str], version: str, variant: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("edgeco.engines.tensorrt.plans.compile_in_child", compile_here)
    with installed(monkeypatch, tmp_path, version):
        model = edgeco.load(bundles["camera"])
        assert (model.engine.name, model.variant) == ("tensorrt", "trt-fp16")
        for word in (version, "the fastest here", "Fake GPU", f"variant {variant}", said):
            assert word in model.why
        exact = edgeco.load(bundles["camera"], precision="fp32")
        assert exact.variant == "fp32" and "fp32, as asked" in exact.why


def test_states_are_halved_save_those_that_add_up(bundles: dict[str, str], fake: Fake) -> None:
    """In FP32 stay the one window over which camera and dilated take a mean, and what goes round."""
    for name, whole in (("camera", 1), ("dilated", 1), ("recurrent", None)):
        model = edgeco.load(bundles[name], engine="tensorrt")
        with model.stream() as stream:
            kept = [array.dtype.name for array in stream._session.past().values()]
        assert set(kept) <= {"float16", "float32"}
        assert kept.count("float32") == (len(kept) if whole is None else whole)


def test_what_the_typed_form_computes_in_fp32_is_kept_so_by_flags_too(
    bundles: dict[str, str], fake: Fake, tmp_path: Path
) -> None:
    """What is read off the typed graph is what ONNX's own inference of types says of it."""
    onnx = pytest.importorskip("onnx")
    for name in NAMES:
        bundle = edgeco.bundle.open_bundle(bundles[name])
        model = edgeco.load(bundles[name], engine="tensorrt")
        expected: set[str] = set()
        for data in (graph for graph in bundle.phases("trt-fp16") if graph is not None):
            graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(data), strict_mode=True).graph
            kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
            turned = ("Cast", "QuantizeLinear", "DequantizeLinear")
            made = [name for node in graph.node if node.op_type not in turned for name in node.output]
            expected |= {name.removesuffix("_made") for name in made if kinds[name] == onnx.TensorProto.FLOAT}
        weak = model.engine._plans.api.weak and not model.engine._strong  # type: ignore[attr-defined]
        for plan in model.engine.compile(1):  # type: ignore[attr-defined]
            meta = plan.engine._program.meta
            assert set(meta["full"]) <= expected if weak else not meta["full"]
            assert expected <= set(plan.sidecar.order.full) if weak else not plan.sidecar.order.full
        if name in ("attending", "recurrent") and weak:
            assert meta["full"], "a softmax, a norm and what goes round are in FP32"


def test_without_its_forms_a_bundle_is_refused_or_exact(bundles: dict[str, str], one: Fake) -> None:
    with pytest.raises(EngineError, match="edgeco build … --tensorrt"):
        edgeco.load(bundles["plain"], engine="tensorrt")
    model = edgeco.load(bundles["plain"])
    assert model.engine.name == "onnxruntime" and "not TensorRT: camera takes its pictures" in model.why
    model = edgeco.load(bundles["readings"], engine="tensorrt")
    assert model.variant == "fp32" and "fp32, for sensornet has no variant" in model.why
    with pytest.raises(EngineError, match="no variant trt-"):
        edgeco.load(bundles["readings"], engine="tensorrt", precision="fp16")


def test_the_opset_ceiling_is_told(bundles: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (
        installed(monkeypatch, tmp_path, "8.6.1"),
        pytest.raises(EngineError, match=r"opset 20, and TensorRT 8.6.1 reads 17"),
    ):
        edgeco.load(bundles["readings"], engine="tensorrt", precision="fp32")


@pytest.mark.parametrize(
    ("missing", "said"),
    [("package", "pip install cuda-bindings"), ("driver", "libcuda.so.1"), ("gpu", "no NVIDIA GPU is visible")],
)
@pytest.mark.parametrize("backend", ["cuda.bindings", "pycuda"])
def test_what_is_missing_is_one_sentence(
    bundles: dict[str, str], one: Fake, monkeypatch: pytest.MonkeyPatch, missing: str, said: str, backend: str
) -> None:
    monkeypatch.setenv("EDGECO_CUDA", backend)
    if missing == "package":
        from gpu_fixtures import without

        monkeypatch.setattr("builtins.__import__", without("cuda", "pycuda"))
    else:
        monkeypatch.setenv(f"EDGECO_FAKE_NO_{missing.upper()}", "1")
    with pytest.raises(EngineError, match=said) as caught:
        edgeco.load(bundles["sensors"], engine="tensorrt")
    assert "\n" not in str(caught.value)
    model = edgeco.load(bundles["sensors"])
    assert model.engine.name == "onnxruntime" and said in model.why


def test_without_tensorrt(bundles: dict[str, str]) -> None:
    with pytest.raises(EngineError, match="TensorRT is not installed"):
        edgeco.load(bundles["sensors"], engine="tensorrt")
    assert "not TensorRT: TensorRT is not installed" in edgeco.load(bundles["sensors"]).why
    with pytest.raises(EngineError, match=r"\(fp32, trt-fp16, trt-fp32: TensorRT is not installed") as caught:
        verify(bundles["sensors"], engine="tensorrt")
    assert str(caught.value).count("JetPack") == 1  # the same reason is said once


def test_a_broken_tensorrt_is_told(bundles: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for kind in ("ImportError", "OSError", "AttributeError"):
        (tmp_path / "tensorrt.py").write_text(f"raise {kind}('libnvdla_compiler.so: cannot open\\nmore')")
        monkeypatch.syspath_prepend(str(tmp_path))
        with pytest.raises(EngineError, match=r"libnvdla_compiler.so: cannot open\); install its libraries"):
            edgeco.load(bundles["sensors"], engine="tensorrt")
    assert edgeco.load(bundles["sensors"]).engine.name == "onnxruntime"


def test_a_folder_of_that_name_is_no_tensorrt(
    bundles: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        with pytest.raises(EngineError, match=rf"not TensorRT but {tmp_path}/tensorrt; rename"):
            edgeco.load(bundles["sensors"], engine="tensorrt")
    finally:
        sys.modules.pop("tensorrt", None)


@pytest.mark.parametrize("package", ["cuda.bindings", "pycuda"])
def test_a_broken_cuda_package_is_told(
    bundles: dict[str, str], one: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str
) -> None:
    """A compiled module that does not load, or another numpy, is not the same as nothing installed."""
    folder = tmp_path / package.replace(".", "/")
    folder.mkdir(parents=True)
    for part in (folder, tmp_path / package.split(".")[0]):
        (part / "__init__.py").write_text("")
    (folder / "driver.py").write_text("raise ValueError('numpy.dtype size changed\\nmore')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("EDGECO_CUDA", package)
    with pytest.raises(EngineError, match=rf"{package} \(numpy.dtype size changed\)") as caught:
        edgeco.load(bundles["sensors"], engine="tensorrt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("provider", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_a_provider_that_is_not_there(bundles: dict[str, str], provider: str) -> None:
    with pytest.raises(EngineError, match="pip install onnxruntime-gpu"):
        edgeco.load(bundles["sensors"], engine=provider)


@pytest.mark.parametrize(("asked", "taken"), [([], (512, 2)), (["--level", "4", "--workspace", "64"], (64, 4))])
def test_a_compilation_suits_the_board(
    bundles: dict[str, str], one: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: list[str],
    taken: tuple[int, int],
) -> None:  # fmt: skip
    least = {**ORIN_NANO, "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0004\0nvidia,p3767-0004\0"}
    monkeypatch.setattr("edgeco.devices.detect.ROOT", plant(tmp_path / "board", least))
    ran = CliRunner().invoke(main, ["compile", bundles["sensors"], "--json", *asked])
    assert ran.exit_code == 0, ran.output
    (plan,) = json.loads(ran.stdout)["plans"]
    order = json.loads(Path(plan["path"]).with_suffix(".json").read_text())["order"]
    assert (order["workspace"] >> 20, order["level"]) == taken


def test_rows_in_lock_step_equal_single_streams(bundles: dict[str, str], one: Fake) -> None:
    model = edgeco.load(bundles["sensors"], engine="tensorrt", precision="fp32")
    frames = np.random.default_rng(0).standard_normal((40, 3, 4)).astype(np.float32)
    with model.stream(3) as together:
        answers = np.stack([together.step(frame).outputs["output"] for frame in frames])
    for row in range(3):
        with model.stream() as alone:
            single = np.stack([alone.step(frame[row]).outputs["output"] for frame in frames])
        np.testing.assert_allclose(answers[:, row], single, rtol=1e-5, atol=1e-6)
    assert one.gpu.live == {}


@pytest.mark.parametrize("name", ["sensors", "strided", "dilated", "attending"])
def test_rows_join_pause_and_leave_as_on_the_processor(bundles: dict[str, str], one: Fake, name: str) -> None:
    on_gpu = edgeco.load(bundles[name], engine="tensorrt", precision="fp32")
    on_cpu = edgeco.load(bundles[name], engine="onnxruntime")
    shape, rng = on_gpu.manifest.inputs[0].shape, np.random.default_rng(0)
    with on_gpu.streams(3) as left, on_cpu.streams(3) as right:
        for tick in range(90):
            if tick % 17 in (0, 3) and len(left.live) < 3:
                assert left.join() == right.join()
            if tick % 29 == 28:
                left.reset(left.live[0])
                right.reset(right.live[0])
            if tick % 37 == 36:
                row = left.live[-1]
                left.leave(row)
                right.leave(row)
            assert left.ready == right.ready
            stepping = [row for row in left.ready if left.stride > 1 or rng.random() < 0.7]
            frames = {row: rng.standard_normal(shape).astype(np.float32) for row in stepping}
            given, expected = left.tick(frames), right.tick(frames)
            for row, result in expected.items():
                assert given[row].valid == result.valid
                if result.valid:
                    np.testing.assert_allclose(
                        given[row].outputs["output"], result.outputs["output"], rtol=1e-4, atol=1e-5
                    )
        assert left.held == right.held and (left.held > 0 or left.stride > 1)
    assert one.gpu.live == {}


def test_snapshots_move_between_engines_of_one_variant(bundles: dict[str, str], one: Fake) -> None:
    frames = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    on_gpu = edgeco.load(bundles["sensors"], engine="tensorrt", precision="fp32")
    on_cpu = edgeco.load(bundles["sensors"], engine="onnxruntime")
    with on_gpu.stream() as first, on_cpu.stream() as second:
        for frame in frames[:17]:
            first.step(frame)
        second.restore(first.snapshot())
        for frame in frames[17:]:
            left, right = first.step(frame).outputs["output"], second.step(frame).outputs["output"]
            np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
    half = edgeco.load(bundles["sensors"], engine="tensorrt")
    with half.stream() as stream, pytest.raises(edgeco.EdgecoError, match="another variant"):
        stream.restore(on_cpu.stream().snapshot())


class OnGpu:
    """Another library's array on the fake GPU, told in either way."""

    def __init__(self, gpu: object, array: np.ndarray, how: str, strided: bool = False) -> None:
        gpu.push()
        self.stream = gpu.stream()
        self.address = gpu.allocate(array.nbytes)
        if how == "old interface":
            self.stream = 1
        # Still to be done by the producer's stream when the array is handed over.
        gpu.enqueue(
            self.stream,
            lambda: gpu.view(self.address, array.nbytes).__setitem__(slice(None), array.view(np.uint8).ravel()),
        )
        if how == "dlpack":
            gpu.synchronize(self.stream)
        gpu.pop()
        self.shape, self.dtype, self.gpu = array.shape, array.dtype, gpu
        self.device = 2, 0
        if "interface" in how:
            strides = tuple(2 * n for n in array.strides) if strided else None
            self.__cuda_array_interface__ = {
                "shape": array.shape, "typestr": array.dtype.str, "data": (self.address, False), "version": 3,
                "stream": self.stream, "strides": strides,
            }  # fmt: skip
            if how == "old interface":  # as torch gives it, of version 2
                del self.__cuda_array_interface__["stream"]
                self.__cuda_array_interface__["version"] = 2
        else:
            self.__dlpack__ = self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def _capsule(self, stream: int) -> object:
        assert stream in self.gpu.streams
        managed = self.managed = Managed()
        managed.tensor.data, managed.tensor.ndim = self.address, len(self.shape)
        managed.tensor.dtype.code, managed.tensor.dtype.bits, managed.tensor.dtype.lanes = 2, 32, 1
        self.sizes = (ctypes.c_int64 * len(self.shape))(*self.shape)
        managed.tensor.shape = self.sizes
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        self.name = b"dltensor"
        return new(ctypes.addressof(managed), self.name, None)


@pytest.mark.parametrize("backend", ["cuda.bindings", "pycuda"])
@pytest.mark.parametrize("how", ["interface", "old interface", "dlpack"])
def test_frames_may_lie_on_the_gpu(
    bundles: dict[str, str], one: Fake, monkeypatch: pytest.MonkeyPatch, how: str, backend: str
) -> None:
    monkeypatch.setenv("EDGECO_CUDA", backend)
    model = edgeco.load(bundles["sensors"], engine="tensorrt", precision="fp32")
    frames = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    with model.stream() as stream, model.stream() as other:
        for frame in frames:
            given = stream.step(OnGpu(one.gpu, frame, how)).outputs["output"]
            np.testing.assert_array_equal(given, other.step(frame).outputs["output"])
        with pytest.raises(FrameError, match="expects float32"):
            stream.step(OnGpu(one.gpu, frames[0, :2], how))
        if how == "interface":
            with pytest.raises(FrameError, match="cannot write float64"):
                stream.step(OnGpu(one.gpu, frames[0].astype(np.float64), how))
            with pytest.raises(FrameError, match="not contiguous"):
                stream.step(OnGpu(one.gpu, frames[0], how, strided=True))
        if how == "dlpack":
            elsewhere, learning = OnGpu(one.gpu, frames[0], how), OnGpu(one.gpu, frames[0], how)
            elsewhere.device = 2, 1
            with pytest.raises(FrameError, match="does not lie on the GPU that the network runs on"):
                stream.step(elsewhere)
            learning.__dlpack__ = refuse
            with pytest.raises(FrameError, match="wants a gradient"):
                stream.step(learning)
        assert stream.steps == 20


def refuse(stream: int) -> None:
    raise BufferError("it wants a gradient")


def test_torch_frames_on_the_host(bundles: dict[str, str]) -> None:
    import torch

    frames = torch.randn(12, 4)
    model = edgeco.load(bundles["sensors"], engine="onnxruntime")
    with model.stream() as stream, model.stream() as other:
        for frame in frames:
            given = stream.step(frame).outputs["output"]
            np.testing.assert_array_equal(given, other.step(frame.numpy()).outputs["output"])
        with pytest.raises(FrameError, match="expects float32"):
            stream.step(frames)
        with pytest.raises(FrameError, match="cannot write float64"):
            stream.step(frames[0].double())


def test_compile_and_run_on_the_command_line(bundles: dict[str, str], one: Fake, tmp_path: Path) -> None:
    made = CliRunner().invoke(main, ["compile", bundles["strided"], "--rows", "1", "--rows", "2", "--json"])
    assert made.exit_code == 0, made.output
    report = json.loads(made.stdout)
    assert {plan["rows"] for plan in report["plans"]} == {1, 2} and not any(p["cached"] for p in report["plans"])
    assert "compiling strided for Fake GPU (fp16), once" in made.stderr
    again = CliRunner().invoke(main, ["compile", bundles["strided"]])
    assert again.exit_code == 0 and "was there already" in again.stdout and not again.stderr
    fresh = CliRunner().invoke(main, ["compile", bundles["strided"], "--fresh", "--precision", "fp32"])
    assert fresh.exit_code == 0 and "fp32, as asked" in " ".join(fresh.stdout.split())
    refused = CliRunner().invoke(main, ["compile", bundles["strided"], "--dla"])
    assert refused.exit_code == 4 and "does not use the DLA" in refused.stderr
    bench = CliRunner().invoke(main, ["bench", bundles["strided"], "--engine", "tensorrt", "--rows", "2", "--json"])
    assert bench.exit_code == 0 and json.loads(bench.stdout)["variant"] == "trt-fp16"
    verified = CliRunner().invoke(main, ["verify", bundles["strided"], "--engine", "tensorrt"])
    assert verified.exit_code == 0, verified.output


@pytest.mark.parametrize("backend", ["cuda.bindings", "pycuda"])
def test_bench_tells_where_the_gpu_waits_for_the_processor(
    bundles: dict[str, str], one: Fake, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setenv("EDGECO_CUDA", backend)

    def benched(*more: str) -> dict[str, Any]:
        arguments = ["bench", bundles["dilated"], "--engine", "tensorrt", "--steps", "20", "--energy", "0", *more]
        ran = CliRunner().invoke(main, [*arguments, "--json"])
        assert ran.exit_code == 0, ran.output
        shown = CliRunner().invoke(main, arguments)
        report = json.loads(ran.stdout)
        assert ("slow" in shown.stdout) == (report["advice"] is not None)
        assert one.gpu.live == {}
        return report

    one.gpu.elapsed = 1e3  # a second of the GPU's time for a step
    report = benched()
    assert report["advice"] is None and report["plain"] is None
    assert report["device"]["p50"] == 1.0 and 0 < report["queued"]["p50"] <= report["run"]["p50"]
    one.gpu.elapsed = 1e-6
    assert benched()["advice"].endswith("; step several streams together (--rows)")
    one.gpu.refuse_capture = True
    assert "no CUDA graph could be recorded: the GPU reports" in benched()["advice"]
    one.gpu.refuse_capture = False
    if backend == "pycuda":
        monkeypatch.setattr("edgeco.engines.cuda.pycuda._graphs", lambda: None)
        import edgeco.engines.cuda as cuda

        cuda._opened.clear()
        advice = benched("--rows", "2")["advice"]
        assert "with them a step is one call: pip install cuda-bindings" in advice
    own = CliRunner().invoke(main, ["bench", bundles["dilated"], "--engine", "onnxruntime", "--steps", "5", "--json"])
    report = json.loads(own.stdout)
    assert report["device"] is report["queued"] is report["advice"] is None


def test_a_tick_of_many_rows_waits_once(bundles: dict[str, str], one: Fake) -> None:
    model = edgeco.load(bundles["sensors"], engine="tensorrt")
    frames = np.random.default_rng(0).standard_normal((6, 5, 4)).astype(np.float32)
    with model.streams(5) as streams:
        rows = [streams.join() for _ in range(5)]
        streams.tick(dict(zip(rows, frames[0], strict=True)))
        for given in frames[1:]:
            before = streams._memory._waits
            streams.tick(dict(zip(rows, given, strict=True)))
            assert streams._memory._waits == before + 1


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "camera"])
@pytest.mark.parametrize("backend", ["cuda.bindings", "pycuda"])
def test_rows_come_pause_and_go_as_streams_of_their_own(
    bundles: dict[str, str], one: Fake, monkeypatch: pytest.MonkeyPatch, name: str, backend: str
) -> None:
    """Recordings hold the copies of rings and mirrors; a row that is held or begins wants them done by themselves."""
    monkeypatch.setenv("EDGECO_CUDA", backend)
    model, own = (edgeco.load(bundles[name], engine=e, precision="fp32") for e in ("tensorrt", "onnxruntime"))
    rng, alone, answered = np.random.default_rng(0), {}, 0
    many = len(model.manifest.inputs)
    with model.streams(3) as streams:
        for tick in range(160):
            if tick in (0, 7, 40, 90) and len(alone) < 3:
                alone[streams.join()] = own.stream()
            if tick == 60:
                streams.leave(1)
                del alone[1]
            frames = {
                row: {
                    entry.name: rng.standard_normal(entry.shape).astype(entry.dtype) for entry in model.manifest.inputs
                }
                for row in streams.ready
                if tick % 3 or rng.random() < 0.7
            }
            results = streams.tick(frames if many > 1 else {row: next(iter(f.values())) for row, f in frames.items()})
            for row, given in results.items():
                right = alone[row].step(frames[row])
                assert given.valid == right.valid
                answered += right.valid
                for answer in right.outputs if right.valid else ():
                    scale = max(float(np.abs(right.outputs[answer]).max()), 1e-6)
                    np.testing.assert_allclose(given.outputs[answer], right.outputs[answer], atol=1e-5 * scale)
    assert answered > 20 and one.gpu.live == {}


@pytest.mark.parametrize("version", ["8.6.1", "11.4.0.106"])
def test_the_shipped_network_runs_on_a_gpu_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str) -> None:
    monkeypatch.setattr("edgeco.engines.tensorrt.plans.compile_in_child", compile_here)
    with installed(monkeypatch, tmp_path, version):
        ran = CliRunner().invoke(main, ["demo", "--json"])
        assert ran.exit_code == 0, ran.output
        assert "compiling camera_motion for Fake GPU (fp16), once" in ran.stderr
        assert f"tensorrt {version} (the fastest here)" in json.loads(ran.stdout)["why"]


def test_build_and_compile_in_one(one: Fake, tmp_path: Path) -> None:
    out = tmp_path / "sensors.edgeco"
    made = CliRunner().invoke(main, ["build", f"{NETS}:sensors", "-o", str(out), "--compile"])
    assert made.exit_code == 0, made.output
    assert "FP16" in made.stdout or "fp16" in "".join(made.stdout.split())
    assert any((tmp_path / "plans").glob("*.plan"))
