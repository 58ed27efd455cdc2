"""The build specification: where its fields come from, which of them wins, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "helpers"))

from builders import one_sentence, written

from edgeco.building import resolve
from edgeco.errors import SpecError
from edgeco.spec import BuildSpec, make_spec, read_labels, read_spec

FACTORY = """
from torch import nn

def make():
    return nn.Conv3d(3, 4, (3, 1, 1))

make.clip = (3, 8, 16, 16)
make.fps = 10.0
make.mean = (0.5,)
make.colour = "bgr"
"""


@pytest.fixture
def factory(tmp_path: Path) -> str:
    return f"{written(tmp_path / 'net.py', FACTORY)}:make"


class TestPrecedence:
    def test_the_factory_fills_what_nothing_else_gives(self, factory: str) -> None:
        spec, _ = resolve({"model": factory})
        assert (spec.clip, spec.fps, spec.mean, spec.colour) == ((3, 8, 16, 16), 10.0, (0.5,), "bgr")
        assert (spec.std, spec.resize, spec.golden) == (None, None, 16)

    def test_a_file_outweighs_the_factory_and_a_flag_outweighs_the_file(self, factory: str, tmp_path: Path) -> None:
        toml = written(tmp_path / "build.toml", f'model = "{factory}"\nfps = 20.0\nmean = [0.25]\ngolden = 3\n')
        spec, _ = resolve({**read_spec(toml), "fps": 30.0})
        assert (spec.fps, spec.mean, spec.golden, spec.colour) == (30.0, (0.25,), 3, "bgr")

    def test_recordings_to_calibrate_on_are_taken_from_the_files_folder(self, factory: str, tmp_path: Path) -> None:
        written(tmp_path / "tape.csv", "1,2")
        text = f'model = "{factory}"\nprecision = ["int8"]\ncalibrate = ["tape.csv", "rtsp://camera/live", "0"]\n'
        spec, _ = resolve(read_spec(written(tmp_path / "build.toml", text + 'calibration_method = "mse"\n')))
        assert spec.calibrate == (str(tmp_path / "tape.csv"), "rtsp://camera/live", "0")
        assert (spec.precision, spec.calibration_method) == (("int8",), "mse")

    def test_a_flag_not_given_outweighs_nothing(self, factory: str) -> None:
        assert resolve({"model": factory, "fps": None})[0].fps == 10.0

    def test_methods_and_properties_of_a_class_are_no_fields(self, tmp_path: Path) -> None:
        code = """
from torch import nn

class Net(nn.Conv3d):
    clip = (3, 8, 16, 16)
    def window(self): ...
    @property
    def mean(self): ...
    def __init__(self):
        super().__init__(3, 4, (3, 1, 1))
"""
        spec, _ = resolve({"model": f"{written(tmp_path / 'net.py', code)}:Net"})
        assert (spec.clip, spec.window, spec.mean) == ((3, 8, 16, 16), None, None)


class TestFields:
    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"clip": "3,8,16,16"}, "clip"),
            ({"clip": (3, 0, 16, 16)}, "clip"),
            ({"clip": (3, 8, -16, 16)}, "clip"),
            ({"clip": (3, 8.5, 16, 16)}, "clip"),
            ({"fps": 0}, "fps"),
            ({"fps": float("inf")}, "fps"),
            ({"colour": "green"}, "green"),
            ({"mean": "grey"}, "mean"),
            ({"mean": (float("nan"),)}, "mean"),
            ({"std": (0.2, 0.0, 0.2)}, "std"),
            ({"roi": (0.1, 0.2, 0.3)}, "roi"),
            ({"roi": (0.5, 0.0, 0.2, 1.0)}, "roi"),
            ({"golden": 0}, "golden"),
            ({"window": 0}, "window"),
            ({"arguments": 3}, "arguments"),
            ({"precision": ("int3",)}, "int3"),
            ({"name": "two\nlines"}, "name"),
            ({"name": ""}, "name"),
            ({"colour_order": "rgb"}, "colour_order"),
        ],
    )
    def test_a_value_that_does_not_fit_is_named(self, fields: dict[str, Any], named: str) -> None:
        with pytest.raises(SpecError) as caught:
            make_spec({"model": "x3d_s", **fields})
        assert caught.value.exit_code == 2
        assert named in one_sentence(caught.value)

    def test_a_model_is_needed(self) -> None:
        with pytest.raises(SpecError, match="No model was given"):
            resolve({"clip": (3, 8, 16, 16)})

    def test_a_clip_is_needed(self, tmp_path: Path) -> None:
        code = "from torch import nn\ndef make(): return nn.Conv3d(3, 4, 1)\n"
        with pytest.raises(SpecError, match="The clip's shape is not known: give --clip") as caught:
            resolve({"model": f"{written(tmp_path / 'net.py', code)}:make"})
        one_sentence(caught.value)

    @pytest.mark.parametrize("time_dim", [0, -1, 5])
    def test_time_must_be_an_axis_of_the_clip(self, factory: str, time_dim: int) -> None:
        with pytest.raises(SpecError, match=f"time_dim {time_dim} does not fit") as caught:
            resolve({"model": factory, "time_dim": time_dim})
        one_sentence(caught.value)

    def test_what_is_reserved_is_refused(self, factory: str) -> None:
        with pytest.raises(SpecError, match="exact"):
            resolve({"model": factory, "exact": "nearly"})

    def test_it_cannot_be_changed(self) -> None:
        with pytest.raises(AttributeError):
            BuildSpec(model="x3d_s").fps = 3.0  # type: ignore[misc]


class TestFile:
    def test_paths_are_taken_from_the_folder_of_the_file(self, tmp_path: Path) -> None:
        text = 'model = "net.py:make"\nweights = "w/a.safetensors"\nlabels = "names.txt"\n'
        fields = read_spec(written(tmp_path / "build.toml", text))
        assert fields == {
            "model": str(tmp_path / "net.py:make"),
            "weights": str(tmp_path / "w/a.safetensors"),
            "labels": str(tmp_path / "names.txt"),
        }

    def test_absolute_paths_zoo_names_modules_and_listed_labels_stay(self, tmp_path: Path) -> None:
        text = 'model = "{}"\nweights = "/w.pt"\nlabels = ["a", "b"]\n'
        for model in ("x3d_s", "package.module:make", "/nets/net.py:make", "/nets/net.pt2"):
            fields = read_spec(written(tmp_path / "build.toml", text.format(model)))
            assert fields == {"model": model, "weights": "/w.pt", "labels": ["a", "b"]}

    @pytest.mark.parametrize(
        ("contents", "said"),
        [
            (b"model = ", "not valid TOML"),
            (b"\xff\xfe\x00", "not valid TOML"),
            (b'model = "a"\nmodel = "b"\n', "not valid TOML"),
            (b'modle = "x3d_s"\n', "unknown field 'modle'"),
            (b'[build]\nmodel = "x3d_s"\n', "unknown field 'build'"),
        ],
    )
    def test_a_file_that_cannot_be_used(self, tmp_path: Path, contents: bytes, said: str) -> None:
        (tmp_path / "build.toml").write_bytes(contents)
        with pytest.raises(SpecError, match=said) as caught:
            read_spec(tmp_path / "build.toml")
        assert "build.toml" in one_sentence(caught.value)

    @pytest.mark.parametrize("name", ["nowhere.toml", "."])
    def test_no_file_at_all(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(SpecError, match="cannot be read") as caught:
            read_spec(tmp_path / name)
        one_sentence(caught.value)


class TestLabels:
    def test_one_per_line_however_the_file_was_saved(self, tmp_path: Path) -> None:
        (tmp_path / "names.txt").write_bytes("\ufeffstill\r\n pan left \r\n\r\nzoom é\r\n".encode())
        assert read_labels(str(tmp_path / "names.txt")) == ("still", "pan left", "zoom é")
        assert read_labels(("a", "b")) == ("a", "b")
        assert read_labels(None) is None

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
        for name, said in (("latin.txt", "not UTF-8"), ("nowhere.txt", "cannot be read"), (".", "cannot be read")):
            with pytest.raises(SpecError, match=said) as caught:
                read_labels(str(tmp_path / name))
            one_sentence(caught.value)
