"""Libraries are asked in a process of their own: whatever they do there, the asking one gets an answer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgeco.devices.child import run_probe
from edgeco.devices.detect import detect


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a package in front of the real one of its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, code: str) -> Path:
        path = tmp_path / name.replace(".", "/") / "__init__.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
        return path

    return write


def test_what_is_installed_tells_its_version() -> None:
    found = run_probe("numpy")
    import numpy

    assert (found.present, found.error, found.facts["version"]) == (True, None, numpy.__version__)


def test_what_is_not_installed_is_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    found = run_probe("pycuda")
    assert (found.present, found.error) == (False, None)


@pytest.mark.parametrize("name", ["cv2", "tensorrt"])
def test_a_crash_is_an_answer(library: Any, name: str) -> None:
    path = library(name, "import ctypes\nctypes.string_at(0)\n")
    found = run_probe(name)
    assert found.present and found.facts["file"] == str(path)
    assert found.error == "it crashes (SIGSEGV)"


def test_a_crash_after_the_import_keeps_what_was_said(library: Any) -> None:
    code = "import ctypes\n__version__ = '4.8.0'\ndef getBuildInformation(): ctypes.string_at(0)\n"
    library("cv2", code)
    found = run_probe("cv2")
    assert found.facts["version"] == "4.8.0" and found.error == "it crashes (SIGSEGV)"


def test_a_hang_ends(library: Any) -> None:
    library("tensorrt", "import time\ntime.sleep(60)\n")
    found = run_probe("tensorrt", timeout=2)
    assert found.present and found.error == "it gave no answer within 2 s"


def test_what_a_library_prints_is_kept_apart(library: Any) -> None:
    code = "import os\nprint('{\"version\": \"0\"}')\nos.write(1, b'[TRT] hello\\n')\n"
    library("tensorrt", code + "__version__ = '10.3.0'\n")
    found = run_probe("tensorrt")
    assert found.facts["version"] == "10.3.0" and found.error is None
    assert "[TRT] hello" in found.messages


def test_a_process_that_leaves(library: Any) -> None:
    library("tensorrt", "import sys\nsys.exit('no licence')\n")
    assert run_probe("tensorrt").error == "no licence"


def test_a_library_of_the_system_that_is_missing_is_named(library: Any) -> None:
    code = "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')\n"
    library("cv2", code)
    found = run_probe("cv2")
    assert found.facts["missing"] == ["libGL.so.1"]
    assert found.error is not None and found.error.startswith("ImportError: libGL.so.1")


FAKE_NVML = r"""
#include <string.h>
struct memory { unsigned long long total, free, used; };
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "570.86.10", size); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = (void *)(long)(index + 1); return 0; }
int nvmlDeviceGetName(void *handle, char *text, unsigned size) {
    strncpy(text, (long)handle == 1 ? "NVIDIA GeForce RTX 5090" : "NVIDIA T4", size);
    return 0;
}
int nvmlDeviceGetMemoryInfo(void *handle, struct memory *memory) {
    if ((long)handle == 2) return 3;
    memory->total = 34190917632ull; memory->free = 30000000000ull; memory->used = 4190917632ull;
    return 0;
}
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    *major = (long)handle == 1 ? 12 : 7; *minor = (long)handle == 1 ? 0 : 5;
    return 0;
}
"""
FAKE_CUDA = r"""
#include <string.h>
int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGetName(char *text, int size, int device) { strncpy(text, "Orin", size); return 0; }
int cuDeviceTotalMem_v2(unsigned long *bytes, int device) { *bytes = 7990000000ul; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 8 : 7; return 0; }
"""


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Compiles a library and puts it where the loader of a child looks first."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("a library that stands for a driver needs a C compiler (cc)")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))

    def make(name: str, code: str) -> None:
        source = tmp_path / "fake.c"
        source.write_text(code)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(tmp_path / name), str(source)], check=True)

    return make


def test_nvml(compiled: Any) -> None:
    compiled("libnvidia-ml.so.1", FAKE_NVML)
    found = run_probe("nvml")
    assert found.error is None and found.facts["version"] == "570.86.10"
    first, second = found.facts["gpus"]
    assert first == {
        "name": "NVIDIA GeForce RTX 5090",
        "compute_capability": "12.0",
        "memory": 34190917632,
        "free": 30000000000,
    }
    assert second == {"name": "NVIDIA T4", "compute_capability": "7.5", "memory": None, "free": None}


def test_detection_over_nvml(compiled: Any) -> None:
    if Path("/proc/device-tree/compatible").exists():
        pytest.skip("this machine is a board, which is told by its device tree")
    compiled("libnvidia-ml.so.1", FAKE_NVML)
    found = detect()
    assert found.profile is not None and found.profile.name == "rtx-5090" and found.driver == "570.86.10"


def test_the_cuda_driver(compiled: Any) -> None:
    compiled("libcuda.so.1", FAKE_CUDA)
    found = run_probe("cuda")
    assert (found.error, found.facts["version"]) == (None, "12.6")
    assert found.facts["gpus"] == [{"name": "Orin", "compute_capability": "8.7", "memory": 7990000000, "free": None}]


def test_a_cuda_driver_without_a_device(compiled: Any) -> None:
    compiled("libcuda.so.1", FAKE_CUDA.replace("flags) { return 0; }", "flags) { return 100; }"))
    found = run_probe("cuda")
    assert found.facts["code"] == 100 and "gpus" not in found.facts


def test_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho 'Tesla T4, 7.5, 15360, 15000, 535.1'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = run_probe("nvidia-smi")
    assert found.facts["gpus"] == [
        {"name": "Tesla T4", "compute_capability": "7.5", "memory": 15360 * 2**20, "free": 15000 * 2**20}
    ]
    command.write_text("#!/bin/sh\necho 'has failed because it could not communicate with the driver' >&2\nexit 9\n")
    assert "could not communicate" in str(run_probe("nvidia-smi").error)
