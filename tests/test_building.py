"""The build from end to end: a stream of the bundle answers what the clip network answers to the frames it has seen."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "helpers"))

import builders
from builders import PictureNet, one_sentence, written
from torch import Tensor, nn

import edgeco
from edgeco.building import build
from edgeco.bundle import open_bundle
from edgeco.errors import CheckFailed, ConversionError, EdgecoError, SpecError, WeightsError, WriteError
from edgeco.runtime.frame import Frame
from edgeco.runtime.verify import verify

TOLERANCE = 1e-4
MEAN, STD = (0.3, 0.4, 0.6), (0.2, 0.25, 0.5)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Any]:
    """Builds a network of `builders` and loads it."""

    def make(network: str, **fields: Any) -> Any:
        path = tmp_path / f"{network}.edgeco"
        spec = {"model": f"{builders.__file__}:{network}", "golden": 3, **fields}
        report = build(spec, path)
        return report, edgeco.load(path, threads=1)

    return make


def sliding(net: nn.Module, frames: Tensor, length: int) -> list[Any]:
    """The clip network's answers to the last `length` of (steps, *frame), from the first whole clip on."""
    with torch.no_grad():
        return [net(frames[end - length : end].movedim(0, 1)[None]) for end in range(length, len(frames) + 1)]


def assert_close(given: np.ndarray[Any, Any], expected: Tensor) -> None:
    """Equal to four digits of the greatest answer."""
    wanted = expected[0].numpy()
    assert given.shape == wanted.shape
    assert np.abs(given - wanted).max() <= TOLERANCE * np.abs(wanted).max()


def assert_streams(model: Any, inputs: list[Any], answers: list[Any], output: str = "output") -> None:
    """A stream over the inputs is silent until the first answer, and right from there to the end."""
    silent = len(inputs) - len(answers)
    with model.stream() as stream:
        for step, given in enumerate(inputs):
            result = stream.step(given)
            assert result.valid == (step >= silent)
            if result.valid:
                expected = answers[step - silent]
                assert_close(result.outputs[output], expected[output] if isinstance(expected, dict) else expected)


def pictures(steps: int, height: int = 12, width: int = 16, seed: int = 0) -> list[Frame]:
    """Frames as a camera gives them: BGR, the channels unlike."""
    rng = np.random.default_rng(seed)
    images = rng.integers((0, 40, 90), (120, 200, 256), (steps, height, width, 3)).astype(np.uint8)
    return [Frame(image=image, stamp=i / 10, clock="media", index=i, gap=0) for i, image in enumerate(images)]


def normalised(frames: list[Frame], order: str, mean: Any = MEAN, std: Any = STD) -> Tensor:
    """What the clip network was trained on: (steps, channels, height, width)."""
    bgr = np.stack([frame.image for frame in frames])
    channels = {"bgr": bgr, "rgb": bgr[..., ::-1], "gray": bgr[..., :1]}[order]
    pixels = torch.from_numpy(channels.copy()).permute(0, 3, 1, 2).double() / 255
    column = (-1, 1, 1)
    return ((pixels - torch.tensor(mean).reshape(column)) / torch.tensor(std).reshape(column)).float()


class TestPictures:
    @pytest.mark.parametrize("order", ["rgb", "bgr"])
    @pytest.mark.parametrize("network", ["PictureNet", "PooledPictureNet"])
    def test_colour_order_and_normalisation(self, made: Any, network: str, order: str) -> None:
        pytest.importorskip("cv2", reason="pictures are prepared by OpenCV")
        _, model = made(network, mean=MEAN, std=STD, colour=order)
        frames = pictures(11)
        net = getattr(builders, network)()
        expected = sliding(net, normalised(frames, order), 6)
        assert_streams(model, frames, expected)
        # The other order must be told apart, or this test could not fail.
        other = sliding(net, normalised(frames, "bgr" if order == "rgb" else "rgb"), 6)
        assert (expected[0] - other[0]).abs().max() > 100 * TOLERANCE * expected[0].abs().max()

    def test_gray(self, made: Any) -> None:
        pytest.importorskip("cv2", reason="pictures are prepared by OpenCV")
        _, model = made("PictureNet", arguments={"channels": 1}, clip=(1, 6, 12, 16), mean=(0.4,), std=(0.3,))
        assert model.manifest.preprocessing.colour == "gray"
        gray = [Frame(f.image[..., :1].repeat(3, 2), f.stamp, f.clock, f.index, f.gap) for f in pictures(9)]
        net = PictureNet(channels=1)
        assert_streams(model, gray, sliding(net, normalised(gray, "gray", (0.4,), (0.3,)), 6))

    def test_pictures_of_another_size_are_prepared_as_the_bundle_says(self, made: Any) -> None:
        cv2 = pytest.importorskip("cv2", reason="pictures are prepared by OpenCV")
        _, model = made("PictureNet", mean=MEAN, std=STD, resize="stretch", interpolation="area")
        large = pictures(8, height=24, width=32)
        small = [
            Frame(cv2.resize(f.image, (16, 12), interpolation=cv2.INTER_AREA), f.stamp, f.clock, f.index, f.gap)
            for f in large
        ]
        assert_streams(model, large, sliding(PictureNet(), normalised(small, "rgb"), 6))

    def test_an_array_is_what_the_preprocessor_makes(self, made: Any) -> None:
        pytest.importorskip("cv2", reason="pictures are prepared by OpenCV")
        _, model = made("PictureNet", mean=MEAN, std=STD)
        frames = pictures(7)
        prepare = model.preprocessor()
        arrays = [prepare(frame.image).copy() for frame in frames]
        assert arrays[0].shape == model.manifest.inputs[0].shape == (12, 16, 3)
        assert_streams(model, arrays, sliding(PictureNet(), normalised(frames, "rgb"), 6))


class TestArrays:
    @pytest.mark.parametrize("network", ["SensorNet", "SkeletonNet"])
    def test_readings_and_joints(self, made: Any, network: str) -> None:
        report, model = made(network)
        net = getattr(builders, network)()
        length = net.clip[1]
        frames = torch.randn(length + 9, net.clip[0], *net.clip[2:], generator=torch.Generator().manual_seed(3))
        assert (report.receptive_field, report.valid_from) == (length, length - 1)
        assert model.manifest.inputs[0].kind == "array" and model.manifest.preprocessing is None
        assert_streams(model, list(frames.numpy()), sliding(net, frames, length))

    def test_a_small_picture_given_as_an_array(self, made: Any) -> None:
        _, model = made("PictureNet", input="array")
        frames = torch.randn(8, 3, 12, 16, generator=torch.Generator().manual_seed(3))
        assert_streams(model, list(frames.numpy()), sliding(PictureNet(), frames, 6))

    def test_several_answers_by_name(self, made: Any) -> None:
        _, model = made("TwoAnswers", input="array")
        frames = torch.randn(9, 3, 12, 16, generator=torch.Generator().manual_seed(4))
        expected = sliding(builders.TwoAnswers(), frames, 6)
        assert {output.name for output in model.manifest.outputs} == {"label", "features"}
        for name in ("label", "features"):
            assert_streams(model, list(frames.numpy()), expected, name)

    @pytest.mark.parametrize("window", [1, 2, 7])
    def test_a_window_of_another_length(self, made: Any, window: int) -> None:
        report, model = made("PictureNet", input="array", window=window)
        frames = torch.randn(window + 8, 3, 12, 16, generator=torch.Generator().manual_seed(5))
        assert report.receptive_field == window + 2
        assert_streams(model, list(frames.numpy()), sliding(PictureNet(), frames, window + 2))


class Resized(nn.Module):
    """Frames enlarged smoothly: ONNX's Resize leaves one of its inputs out."""

    clip = (3, 6, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3, padding=(0, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        frames = y.transpose(1, 2).flatten(0, 1)
        large = nn.functional.interpolate(frames, scale_factor=2, mode="bilinear")
        return large.unflatten(0, (y.shape[0], y.shape[2])).mean((1, 3, 4))


class Masked(nn.Module):
    """A mask that waits for a convolution, and one multiplied as a number."""

    clip = (2, 9)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.where(x > 0, self.conv(x), x) + self.conv(x) * (x > 0.5)
        return (y[:, :, 1:] * ((x > 0)[:, :, 1:] & (x > 0)[:, :, :-1])).mean(2)


class Strided(nn.Module):
    """Answers every fourth frame."""

    clip = (2, 17)

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(2, 4, 3, stride=2), nn.Conv1d(4, 3, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x))).mean(2)


@pytest.mark.parametrize(("net", "rate"), [(Resized, 1), (Masked, 1), (Strided, 4)])
def test_a_bundle_answers_as_the_clip_network_does(net: type[nn.Module], rate: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = net().eval()
    torch.save(made.state_dict(), tmp_path / "net.pt")
    spec = {"model": f"{__file__}:{net.__name__}", "weights": str(tmp_path / "net.pt"), "input": "array"}
    report = build(spec, tmp_path / "net.edgeco")
    model = edgeco.load(tmp_path / "net.edgeco")
    field = report.receptive_field
    long = torch.randn(1, made.clip[0], 60, *made.clip[2:], generator=torch.Generator().manual_seed(1))
    given, taken = {}, None
    with model.stream() as stream:
        for step, frame in enumerate(long[0].unbind(1)):
            if step == 30:
                taken = stream.snapshot()
            result = stream.step(frame.numpy())
            if result.valid:
                given[step] = next(iter(result.outputs.values()))
        assert taken is not None
        stream.restore(taken)
        for step in range(30, 60):
            again = stream.step(long[0, :, step].numpy())
            assert again.valid == (step in given)
            assert not again.valid or np.array_equal(next(iter(again.outputs.values())), given[step])
    assert list(given) == list(range(report.valid_from, 60, rate))
    if report.exactness == "exact":
        with torch.no_grad():
            for step, answer in given.items():
                expected = made(long[:, :, step + 1 - field : step + 1])[0].numpy()
                assert np.abs(answer - expected).max() < 1e-5 * max(1.0, np.abs(expected).max())


class TestReport:
    @pytest.mark.parametrize("mode", ["interior", "clip"])
    def test_a_gate_over_the_clip_can_be_exact_and_says_what_it_costs(self, made: Any, mode: str) -> None:
        plain, _ = made("Gated", input="array")
        report, model = made("Gated", input="array", exact=mode)
        assert (plain.exactness, report.exactness != "causal") == ("causal", True)
        assert report.step_difference < 1e-5 and report.step_macs >= plain.step_macs
        assert model.manifest.provenance["spec"]["exact"] == mode
        assert any("live window" in line["form"] for line in report.lines)

    def test_a_causal_network_says_so_and_by_how_much(self, made: Any) -> None:
        report, model = made("Gated", input="array")
        assert report.exactness == "causal"
        assert 1e-4 < report.step_difference < 1
        assert report.engine_difference < TOLERANCE
        kept = model.bundle.report()
        assert (kept["exactness"], kept["step_difference"]) == ("causal", report.step_difference)
        causal = [line for line in kept["lines"] if line["exactness"] == "causal"]
        assert causal and "builders.py:" in causal[0]["where"]

    def test_what_was_built_is_said_and_verifies(self, made: Any) -> None:
        report, model = made("PictureNet", mean=MEAN, std=STD, name="pictures", fps=12.5)
        assert report.exactness != "causal" and report.step_difference < 1e-5
        assert (report.folded_norms, report.parameters) == (1, 3 * 6 * 27 + 12 + 28)
        assert report.clip_macs == 4 * 12 * 16 * 6 * 81 + 24
        assert report.step_macs == 12 * 16 * 6 * 81 + 24
        assert (model.manifest.name, model.manifest.timeline.fps) == ("pictures", 12.5)
        assert verify(model.bundle.path).passed

    def test_nothing_of_the_machine_is_kept(self, made: Any, tmp_path: Path) -> None:
        _, model = made("Gated", input="array", labels=str(written(tmp_path / "names.txt", "a\nb\nc\nd\n")))
        assert model.labels == ("a", "b", "c", "d")
        kept = Path(model.bundle.path).read_bytes()
        for folder in (tmp_path, Path(builders.__file__).parent, Path.home()):
            assert str(folder).encode() not in kept

    def test_arguments_that_are_no_plain_data(self, tmp_path: Path) -> None:
        code = "from builders import PictureNet\ndef make(kind): return kind()\n"
        spec = {
            "model": f"{written(tmp_path / 'net.py', code)}:make",
            "arguments": {"kind": PictureNet},
            "clip": (3, 6, 12, 16),
        }
        build({**spec, "golden": 1}, tmp_path / "net.edgeco")
        assert "PictureNet" in str(open_bundle(tmp_path / "net.edgeco").manifest.provenance["spec"]["arguments"])

    def test_one_build_equals_another(self, tmp_path: Path) -> None:
        spec = {"model": f"{builders.__file__}:SensorNet", "golden": 2}
        build(spec, tmp_path / "net.edgeco")
        first = (tmp_path / "net.edgeco").read_bytes()
        build(spec, tmp_path / "net.edgeco")
        assert (tmp_path / "net.edgeco").read_bytes() == first


FIELDS: dict[str, Any] = {"model": f"{builders.__file__}:PictureNet", "input": "array", "golden": 1}
IMAGE = {"input": "image"}


class TestRefusals:
    """Each says one sentence, ends with its own exit code, and leaves the folder as it was."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        self.out = tmp_path / "net.edgeco"

    def refused(self, kind: type[EdgecoError], **fields: Any) -> str:
        before = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        with pytest.raises(kind) as caught:
            build({**FIELDS, **fields}, self.out)
        assert type(caught.value) is kind
        after = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}
        assert after == before
        return one_sentence(caught.value)

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"labels": ("a", "b", "c")}, "There are 3 labels, but the network's answer has 4 numbers"),
            ({"labels": "/nowhere/names.txt"}, "The label file /nowhere/names.txt cannot be read"),
            ({"mean": MEAN}, "mean says how pictures are prepared, but the input is given as an array"),
            ({**IMAGE, "mean": (0.1, 0.2)}, "mean has 2 numbers for 3 channels"),
            ({**IMAGE, "colour": "gray"}, "colour 'gray' does not fit clips of 3 channels"),
            ({**IMAGE, "clip": (5, 6, 12, 16)}, "An image network takes clips (1 or 3 channels"),
            ({**IMAGE, "clip": (3, 6, 12)}, "An image network takes clips"),
            ({**IMAGE, "time_dim": 3}, "An image network takes clips"),
            ({"clip": (3, 6, 12, 0)}, "clip"),
        ],
    )
    def test_fields_that_do_not_fit_the_network(self, fields: dict[str, Any], said: str) -> None:
        assert said in self.refused(SpecError, **fields)

    def test_a_clip_that_the_network_does_not_take(self) -> None:
        assert "The network cannot be traced at " in self.refused(ConversionError, clip=(2, 6, 12, 16))

    def test_a_factory_that_raises(self) -> None:
        assert "The factory PictureNet raised TypeError" in self.refused(ConversionError, arguments={"layers": 3})

    def test_weights_that_do_not_fit(self) -> None:
        torch.save({"conv.weight": torch.zeros(1)}, self.folder / "w.pt")
        assert "do not fit the network" in self.refused(WeightsError, weights=str(self.folder / "w.pt"))

    def test_weights_that_are_no_numbers(self) -> None:
        state = PictureNet().state_dict()
        state["head.bias"][0] = torch.nan
        torch.save(state, self.folder / "w.pt")
        assert "NaN or infinity; check its weights" in self.refused(ConversionError, weights=str(self.folder / "w.pt"))

    def test_a_forward_that_looks_at_the_data(self) -> None:
        source = Path(builders.__file__)
        line = next(n for n, text in enumerate(source.read_text().splitlines(), 1) if "the data decide here" in text)
        said = self.refused(ConversionError, model=f"{source}:Branching")
        assert f"{source}:{line}" in said and "torch.where" in said

    def test_a_program_saved_for_one_batch(self) -> None:
        program = torch.export.export(PictureNet(), (torch.zeros(2, 3, 6, 12, 16),))
        torch.export.save(program, self.folder / "net.pt2")
        said = self.refused(ConversionError, model=str(self.folder / "net.pt2"), clip=(3, 6, 12, 16))
        assert "was saved for a batch of 2 only" in said and "dynamic_shapes={'x': {0:" in said

    def test_a_gate_that_finds_a_difference(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for limit in ("export.compare.STEP_TOLERANCE", "export.check.ENGINE_TOLERANCE"):
            with monkeypatch.context() as patch:
                patch.setattr(f"edgeco.{limit}", -1.0)
                assert "nothing was written" in self.refused(CheckFailed)

    def test_a_place_that_cannot_be_written_is_found_before_the_work(self) -> None:
        made: list[str] = []
        for out in (self.folder / "nowhere" / "net.edgeco", self.folder):
            with pytest.raises(WriteError) as caught:
                build(FIELDS, out, made.append)
            assert str(out) in one_sentence(caught.value)
        assert made == []
        assert list(self.folder.iterdir()) == []

    @pytest.mark.parametrize("call", ["fsync", "open", "replace"])
    def test_a_full_disk_leaves_no_half_of_a_bundle(self, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        build(FIELDS, self.out)  # the good one must survive
        genuine = getattr(os, call)

        def full(first: Any, *rest: Any, **named: Any) -> Any:
            ours = call == "fsync" or ".tmp" in str(first)
            if ours:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return genuine(first, *rest, **named)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            said = self.refused(WriteError, golden=2)
        assert "the disk is full" in said
        assert verify(self.out).passed

    def test_a_refused_build_leaves_the_bundle_that_was_there(self) -> None:
        build(FIELDS, self.out)
        self.refused(SpecError, labels=("a",))
        assert verify(self.out).passed


def test_a_saved_program_with_a_dynamic_batch(tmp_path: Path) -> None:
    net = PictureNet()
    batch = {"x": {0: torch.export.Dim("batch")}}
    program = torch.export.export(net, (torch.zeros(2, 3, 6, 12, 16),), dynamic_shapes=batch)
    torch.export.save(program, tmp_path / "net.pt2")
    spec = {"model": str(tmp_path / "net.pt2"), "clip": (3, 6, 12, 16), "input": "array", "golden": 1}
    build(spec, tmp_path / "net.edgeco")
    frames = torch.randn(8, 3, 12, 16, generator=torch.Generator().manual_seed(6))
    model = edgeco.load(tmp_path / "net.edgeco", threads=1)
    assert_streams(model, list(frames.numpy()), sliding(net, frames, 6))


class TestDevices:
    def test_the_target_is_in_the_manifest_and_in_the_report(self, made: Any) -> None:
        report, model = made("SensorNet", device="Orin Nano")
        target = model.manifest.provenance["target"]
        assert target["device"] == report.target["device"] == "jetson-orin-nano-8gb"
        assert (target["precision"], target["typings"], target["opset"]) == ("fp16", ["weak", "strong"], 17)
        assert target["tensorrt"] == {"first": "8.6", "last": "10.16"}
        assert model.manifest.provenance["spec"]["device"] == "jetson-orin-nano-8gb"
        assert set(model.manifest.variants) == {"fp32", "trt-fp32", "trt-fp16"}

    def test_a_processor_gets_no_forms_of_tensorrt(self, made: Any) -> None:
        report, model = made("SensorNet", device="cpu")
        assert set(model.manifest.variants) == {"fp32"} and report.target["typings"] == ("cpu",)

    def test_without_a_device_there_is_no_target(self, made: Any) -> None:
        report, model = made("SensorNet")
        assert report.target is None and "target" not in model.manifest.provenance

    def test_layers_are_in_the_manifest(self, made: Any) -> None:
        _, model = made("SensorNet")
        costs = model.manifest.costs
        assert costs.layers and sum(layer.macs for layer in costs.layers) == costs.step_macs

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"device": "jetson-nano"}, "Nothing can be built for Jetson Nano: its last JetPack is 4.6"),
            ({"device": "orin-nanno"}, "There is no device 'orin-nanno'; did you mean orin-nano"),
            ({"device": "orin-nano", "precision": ["fp8"]}, "Jetson Orin Nano 8 GB does not compute in fp8"),
            ({"device": "cpu", "precision": "fp16"}, "A processor does not compute in fp16"),
        ],
    )
    def test_what_the_device_cannot_do_is_refused_first(
        self, made: Any, tmp_path: Path, fields: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(SpecError, match=said) as caught:
            made("SensorNet", **fields)
        one_sentence(caught.value)
        assert not (tmp_path / "SensorNet.edgeco").exists()

    def test_a_networks_own_device_is_another_matter(self) -> None:
        """PyTorch modules often carry the place of their tensors under that name."""
        from edgeco.spec import CARRIED

        assert "device" not in CARRIED
