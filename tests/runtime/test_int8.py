"""INT8 bundles on the processor and on a fake TensorRT: chosen by precision, states in codes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from gpu_fixtures import VERSIONS, Fake, compile_here, installed

pytest.importorskip("torch", reason="bundles are built here")

from quant_nets import Mobile

import edgeco
from edgeco.building import build
from edgeco.bundle import open_bundle
from edgeco.cli import main
from edgeco.errors import BundleError, EngineError, SpecError
from edgeco.runtime.verify import verify

NETS = Path(__file__).resolve().parents[1] / "helpers" / "quant_nets.py"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("int8")
    rng = np.random.default_rng(0)
    np.savez(folder / "cases.npz", x=rng.standard_normal((3, 40, 16, 8, 8)).astype(np.float32), y=np.zeros(3, np.int64))
    fields = {"model": f"{NETS}:Mobile", "clip": list(Mobile.clip), "precision": ["fp32", "int8"], "tensorrt": True}
    path = str(folder / "mobile.edgeco")
    build({**fields, "calibrate": [str(folder / "cases.npz")], "golden": 20}, path)
    return path


@pytest.fixture(params=VERSIONS)
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Fake]:
    monkeypatch.setattr("edgeco.engines.tensorrt.plans.compile_in_child", compile_here)
    with installed(monkeypatch, tmp_path, request.param) as fake:
        yield fake


def frames(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(5).standard_normal((count, 16, 8, 8)).astype(np.float32))


def test_a_precision_chooses_the_variant_and_its_states(bundle: str) -> None:
    exact, small = (edgeco.load(bundle, engine="onnxruntime", precision=p) for p in ("fp32", "int8"))  # type: ignore[arg-type]
    assert (exact.variant, small.variant) == ("fp32", "int8") and "variant int8" in small.why
    with exact.stream() as one, small.stream() as other:
        ring = sum(h.buffers * 32 * 4 + 128 for h in exact.manifest.histories if h.storage == "ring")
        assert other.state_bytes - ring == (one.state_bytes - ring) // 4
        for frame in frames(30):
            right, given = one.step(frame), other.step(frame)
        assert right.valid
        a, b = right.outputs["output"], given.outputs["output"]
        assert 0 < np.linalg.norm(a - b) < 0.1 * np.linalg.norm(a)


def test_rows_and_held_rows_in_codes(bundle: str) -> None:
    model = edgeco.load(bundle, engine="onnxruntime", precision="int8")
    with model.stream() as alone, model.streams(3) as several:
        first, second = several.join(), several.join()
        for number, frame in enumerate(frames(60)):
            several.tick({first: -frame} if number % 3 else {first: -frame, second: frame})  # the other is held
            if number % 3 == 0:
                alone.step(frame)
        answer = several.tick({second: frame})[second]
        right = alone.step(frame).outputs["output"]
        np.testing.assert_allclose(answer.outputs["output"], right, atol=1e-6 * float(np.abs(right).max()))
        assert answer.valid


def test_a_snapshot_of_another_variant_is_refused(bundle: str) -> None:
    exact, small = (edgeco.load(bundle, engine="onnxruntime", precision=p) for p in ("fp32", "int8"))  # type: ignore[arg-type]
    with exact.stream() as one, small.stream() as other, small.stream() as third:
        for frame in frames(9):
            one.step(frame)
            other.step(frame)
        with pytest.raises(BundleError, match="of another variant: fp32"):
            other.restore(one.snapshot())
        third.restore(other.snapshot())
        for frame in frames(4):
            np.testing.assert_array_equal(third.step(frame).outputs["output"], other.step(frame).outputs["output"])


def test_every_variant_verifies_on_the_processor(bundle: str) -> None:
    report = verify(bundle, engine="onnxruntime")
    assert {check.variant for check in report.variants} == set(open_bundle(bundle).manifest.variants)
    assert len(report.variants) == 8 and all(check.passed for check in report.variants)


def test_commands_take_the_precision(bundle: str) -> None:
    run = CliRunner().invoke(main, ["bench", bundle, "--engine", "onnxruntime", "--precision", "int8", "--steps", "3",
                                    "--energy", "0", "--json"])  # fmt: skip
    assert run.exit_code == 0 and '"variant": "int8"' in run.output
    shown = CliRunner().invoke(main, ["inspect", bundle])
    assert shown.exit_code == 0 and "in INT8" in shown.output


def test_a_bundle_without_int8_says_how_to_get_it(tmp_path: Path) -> None:
    path = str(tmp_path / "plain.edgeco")
    build({"model": f"{NETS}:Round", "clip": [16, 6]}, path)
    with pytest.raises(SpecError, match=r"no variant 'int8' for processors; build it with --precision int8"):
        edgeco.load(path, engine="onnxruntime", precision="int8")


def test_every_tensorrt_takes_its_typing_with_states_in_int8(bundle: str, fake: Fake) -> None:
    model = edgeco.load(bundle, engine="tensorrt", precision="int8")
    assert model.variant in ("trt-int8", "trt-int8-typed") and "float-states" not in model.why
    stored = model.manifest.histories[0]
    assert stored.dtype == "int8"
    report = verify(bundle, engine="tensorrt", variants=[model.variant])
    assert report.passed and report.variants[0].outputs[0].difference > 0


def test_a_tensorrt_without_int8_at_its_ends_keeps_float_states(
    bundle: str, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECO_FAKE_INT8_ENDS", "no")
    model = edgeco.load(bundle, engine="tensorrt", precision="int8")
    assert model.variant.endswith("-float-states") and "INT8 states are refused" in model.why
    with model.stream() as stream:
        for frame in frames(12):
            result = stream.step(frame)
    assert np.isfinite(result.outputs["output"]).all()
    assert verify(bundle, engine="tensorrt", variants=[model.variant]).passed


def test_the_other_typing_is_refused(bundle: str, fake: Fake) -> None:
    own = edgeco.load(bundle, engine="tensorrt", precision="int8").variant
    other = "trt-int8" if own == "trt-int8-typed" else "trt-int8-typed"
    with pytest.raises(EngineError, match="wants a network that is"):
        edgeco.load(bundle, engine="tensorrt", variant=other)
