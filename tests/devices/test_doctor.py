"""What the doctor finds on machines that are well, and on machines of which every part is broken in turn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from boards import DESKTOP, ORIN_NANO, THOR, XAVIER, plant

from edgeco.devices.child import Outcome, Probe
from edgeco.devices.doctor import ASKED, Examination, examine
from edgeco.devices.finding import Finding
from edgeco.devices.packages import install, package_of
from edgeco.devices.probe import PROBES
from edgeco.errors import EngineError

ORIN_GPU = {"name": "Orin", "compute_capability": "8.7", "memory": 8 * 10**9, "free": None}
CARD = {"name": "NVIDIA GeForce RTX 4090", "compute_capability": "8.9", "memory": 24 * 2**30, "free": 20 * 2**30}


def there(version: str = "", **facts: Any) -> Outcome:
    return Outcome({"present": True, "version": version, "file": "/usr/lib/x/__init__.py", **facts})


MISSING = Outcome({"present": False})
BOARD = {
    "numpy": there("1.26.4"),
    "onnxruntime": there("1.30.0", providers=["CPUExecutionProvider"]),
    "cv2": there("4.8.0", distributions=[], gstreamer=True, gstreamer_text="YES (1.20.3)", works=True),
    "tensorrt": there("10.3.0"),
    "cuda": there("12.6", gpus=[ORIN_GPU]),
    "cuda.bindings": there("12.9.1"),
    "pycuda": MISSING,
    "nvml": MISSING,
    "nvidia-smi": MISSING,
}
FULL_SPEED = {
    **ORIN_NANO,
    "var/lib/nvpmodel/status": "pmode:0002 fmode:fanNull\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "1020000000\n",
}


def answering(answers: dict[str, Outcome]) -> Probe:
    return lambda name: answers[name]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGECO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def board(tmp_path: Path, files: dict[str, str] | None = None, **changes: Outcome) -> Examination:
    answers = {**BOARD, **{name.replace("cuda_bindings", "cuda.bindings"): told for name, told in changes.items()}}
    return examine(plant(tmp_path / "root", files or FULL_SPEED), answering(answers))


def finding(examination: Examination, subject: str) -> Finding:
    (found,) = [entry for entry in examination.findings if entry.subject == subject]
    return found


def wrong(examination: Examination) -> list[str]:
    return [entry.subject for entry in examination.findings if entry.state == "wrong"]


def test_every_probe_that_is_asked_exists() -> None:
    assert set(ASKED) <= set(PROBES)


def test_a_board_that_is_well(tmp_path: Path) -> None:
    examination = board(tmp_path)
    assert {entry.state for entry in examination.findings} == {"well"}, examination.findings
    assert examination.passed and examination.device.jetpack == "6.2"
    examination.check()
    assert json.loads(json.dumps(examination.to_json()))["findings"][0]["state"] == "well"


BROKEN = {
    "numpy": ("numpy", {"numpy": Outcome({"present": True}, "it crashes (SIGILL)")}, "--force-reinstall numpy"),
    "onnxruntime missing": ("ONNX Runtime", {"onnxruntime": MISSING}, "pip install --force-reinstall onnxruntime"),
    "onnxruntime old": ("ONNX Runtime", {"onnxruntime": there("1.22.1", providers=[])}, "onnxruntime>=1.23"),
    "cv2 of pip": (
        "GStreamer in OpenCV",
        {"cv2": there("5.0.0", distributions=["opencv-python 5.0.0.93"], gstreamer=False, works=True)},
        "pip uninstall opencv-python; sudo apt install libopencv-python",
    ),
    "cv2 without its libraries": (
        "OpenCV",
        {"cv2": there(error="ImportError: libGL.so.1: cannot open", missing=["libGL.so.1", "libgthread-2.0.so.0"])},
        "sudo apt install libgl1 libglib2.0-0 (libglib2.0-0t64 from Ubuntu 24.04",
    ),
    "cv2 for numpy 1": (
        "OpenCV",
        {
            "cv2": Outcome(
                {"present": True, "error": "ImportError: numpy.core.multiarray failed to import"},
                messages="A module that was compiled using NumPy 1.x cannot be run in NumPy 2.2.6",
            ),
            "numpy": there("2.2.6"),
        },
        "numpy 2.2.6 is loaded; this OpenCV was built for numpy 1: pip install 'numpy<2'",
    ),
    "cv2 crashing": ("OpenCV", {"cv2": Outcome({"present": True}, "it crashes (SIGSEGV)")}, "use the board's own"),
    "TensorRT missing": ("TensorRT", {"tensorrt": MISSING}, "apt install tensorrt python3-libnvinfer (10.3.0 with"),
    "TensorRT crashing": (
        "TensorRT",
        {"tensorrt": Outcome({"present": True}, "it crashes (SIGSEGV)")},
        "install TensorRT again",
    ),
    "TensorRT without DLA": (
        "TensorRT",
        {"tensorrt": there(error="ImportError: libnvdla_compiler.so", missing=["libnvdla_compiler.so"])},
        "sudo apt install nvidia-l4t-dla-compiler",
    ),
    "TensorRT old": ("TensorRT", {"tensorrt": there("8.5.2.2")}, "flash JetPack 6"),
    "TensorRT bad": ("TensorRT", {"tensorrt": there("10.2.0.19")}, "tensorrt!=10.2.0"),
    "no driver": ("CUDA driver", {"cuda": MISSING}, "sudo apt install nvidia-l4t-cuda"),
    "driver failing": ("CUDA driver", {"cuda": there(error="cuInit gave 999", code=999)}, "restart"),
    "no CUDA for Python": ("CUDA for Python", {"cuda_bindings": MISSING}, "pip install 'cuda-bindings==12.9.*'"),
    "pycuda broken": (
        "CUDA for Python",
        {"cuda_bindings": MISSING, "pycuda": there(error="ImportError: libcurand.so.10")},
        "cuda-bindings==12.9",
    ),
}


@pytest.mark.parametrize(("subject", "changes", "remedy"), BROKEN.values(), ids=BROKEN.keys())
def test_one_thing_wrong_has_its_remedy(tmp_path: Path, subject: str, changes: dict[str, Outcome], remedy: str) -> None:
    examination = board(tmp_path, **changes)
    assert wrong(examination) == [subject]
    assert remedy in str(finding(examination, subject).remedy)
    with pytest.raises(EngineError, match=subject) as caught:
        examination.check()
    assert caught.value.exit_code == 4


def test_pycuda_alone_suffices(tmp_path: Path) -> None:
    found = finding(board(tmp_path, cuda_bindings=MISSING, pycuda=there("2026.1")), "CUDA for Python")
    assert (found.state, found.remedy) == ("note", "pip install 'cuda-bindings==12.9.*' beside it")
    assert found.found.startswith("pycuda 2026.1; without CUDA graphs")
    both = finding(board(tmp_path, cuda_bindings=there("12.9.10"), pycuda=there("2026.1")), "CUDA for Python")
    assert (both.state, both.found) == ("well", "cuda.bindings 12.9.10, pycuda 2026.1")


def test_thor_wants_the_bindings_of_cuda_13(tmp_path: Path) -> None:
    examination = board(tmp_path, THOR, cuda_bindings=MISSING, tensorrt=there("10.13.3"))
    assert "'cuda-bindings>=13'" in str(finding(examination, "CUDA for Python").remedy)
    assert finding(examination, "TensorRT").state == "well"
    assert finding(examination, "power mode").state == "note"


def test_an_unsupported_board(tmp_path: Path) -> None:
    examination = board(tmp_path, XAVIER)
    assert "device" in wrong(examination)
    assert "Python 3.8" in finding(examination, "device").found


def test_an_orin_on_jetpack_5(tmp_path: Path) -> None:
    old = {**FULL_SPEED, "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 3, BOARD: t186ref\n"}
    found = finding(board(tmp_path, old), "device")
    assert found.state == "wrong" and found.remedy == "flash JetPack 6 or newer"


def test_notes_do_not_fail(tmp_path: Path) -> None:
    """A limited power mode, idling clocks, little memory."""
    tight = {**ORIN_NANO, "proc/meminfo": "MemTotal: 7802928 kB\nMemAvailable: 900000 kB\n"}
    examination = board(tmp_path, tight)
    mode, memory = finding(examination, "power mode"), finding(examination, "memory")
    assert (mode.state, memory.state, examination.passed) == ("note", "note", True)
    assert mode.found == "25W (mode 1), GPU at 306 of 1020 MHz"
    assert "sudo nvpmodel -m 2 for MAXN_SUPER" in str(mode.remedy)
    assert "multi-user.target" in str(memory.remedy)


def test_clocks_that_idle(tmp_path: Path) -> None:
    slow = {**FULL_SPEED, "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n"}
    assert "jetson_clocks" in str(finding(board(tmp_path, slow), "power mode").remedy)


def test_a_container_without_its_devices(tmp_path: Path) -> None:
    files = {**FULL_SPEED, ".dockerenv": ""}
    assert "--runtime nvidia" in str(finding(board(tmp_path, files, cuda=MISSING), "CUDA driver").remedy)


class TestDesktop:
    def desktop(self, tmp_path: Path, **changes: Outcome) -> Examination:
        return board(tmp_path, DESKTOP, **changes)

    def test_a_processor_alone_needs_nothing_of_a_gpu(self, tmp_path: Path) -> None:
        absent = {"cuda": MISSING, "cuda_bindings": MISSING, "tensorrt": MISSING}
        examination = self.desktop(tmp_path, cv2=MISSING, **absent)
        assert examination.passed
        assert finding(examination, "OpenCV").state == "note"
        assert "edgeco[camera]" in str(finding(examination, "OpenCV").remedy)

    def test_a_driver_without_a_card(self, tmp_path: Path) -> None:
        told = there(error="cuInit gave 100", code=100)
        assert finding(self.desktop(tmp_path, cuda=told, tensorrt=MISSING), "CUDA driver").state == "well"

    def test_a_card_without_tensorrt(self, tmp_path: Path) -> None:
        absent = {"tensorrt": MISSING, "cuda_bindings": MISSING}
        examination = self.desktop(tmp_path, nvml=there("570.1", gpus=[CARD]), **absent)
        assert examination.passed
        assert finding(examination, "TensorRT").remedy == "pip install tensorrt"
        assert finding(examination, "CUDA for Python").state == "note"

    def test_a_version_beyond_what_is_known(self, tmp_path: Path) -> None:
        examination = self.desktop(tmp_path, nvml=there("570.1", gpus=[CARD]), tensorrt=there("12.0.1"))
        assert "edgeco knows 8.6 to 11.4" in finding(examination, "TensorRT").found

    def test_graphics_libraries_that_a_server_lacks(self, tmp_path: Path) -> None:
        told = there(error="ImportError: libGL.so.1", missing=["libGL.so.1"], distributions=["opencv-python 5.0"])
        remedy = str(finding(self.desktop(tmp_path, cv2=told), "OpenCV").remedy)
        assert remedy.startswith("sudo apt install libgl1") and "opencv-python-headless" in remedy

    def test_two_wheels_of_opencv(self, tmp_path: Path) -> None:
        both = ["opencv-python 4.11", "opencv-python-headless 5.0"]
        found = finding(self.desktop(tmp_path, cv2=there("5.0", distributions=both, works=True)), "OpenCV")
        assert found.state == "note" and "pip uninstall opencv-python opencv-python-headless" in str(found.remedy)

    def test_an_older_onnx_runtime_is_said_to_round(self, tmp_path: Path) -> None:
        found = finding(self.desktop(tmp_path, onnxruntime=there("1.23.2", providers=[])), "ONNX Runtime")
        assert found.state == "note" and "1.30" in str(found.remedy)


class TestCache:
    def test_a_folder_that_does_not_exist_yet(self, tmp_path: Path, cache: Path) -> None:
        found = finding(board(tmp_path), "cache")
        assert found.state == "well" and "made when it is needed" in found.found
        assert not cache.exists() and list(tmp_path.iterdir()) == [tmp_path / "root"]

    def test_what_cannot_be_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EDGECO_CACHE", "/proc/edgeco")
        found = finding(board(tmp_path), "cache")
        assert found.state == "wrong" and "export EDGECO_CACHE=" in str(found.remedy)


def test_packages() -> None:
    assert package_of("libnvinfer_plugin.so.10") == "libnvinfer-plugin10"
    assert package_of("libavcodec.so.59") == "libavcodec59"
    assert package_of("libgstapp-1.0.so.0") == "libgstreamer-plugins-base1.0-0"
    assert package_of("libcudnn.so.9") == "libcudnn9-cuda-12"
    assert install(["libmine.so.3"], None) == "find what holds libmine.so.3 with 'apt-file search'"
    assert install(["libcuda.so.1"], None) == "sudo apt install nvidia-driver"
    assert install(["libGL.so.1", "libX.so", "libGL.so.1"], "36.4") == (
        "sudo apt install libgl1; find what holds libX.so with 'apt-file search'"
    )
    assert install(["libnvdla_compiler.so"], "36.4.3") == "sudo apt install nvidia-l4t-dla-compiler"
    assert install(["libnvdla_compiler.so"], "39.2.0").startswith("L4T 39.2.0 has no libnvdla_compiler.so")
