"""What a child process of ``child`` runs: asks one library what it is, and says so line by line.

The text of this file is the child's whole program, so it uses nothing but the standard library. Importing a library or
asking its driver can end the process; what was said before it did is known all the same.
"""

import ctypes
import importlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Say = Callable[..., None]
DISTRIBUTIONS = ("opencv-python", "opencv-contrib-python", "opencv-python-headless", "opencv-contrib-python-headless")


def package(say: Say, name: str) -> Any:
    """Import a package; its place is said first, what its libraries lack if it fails."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:  # the parent of a dotted name
        spec = None
    if spec is None:
        say(present=False)
        return None
    say(present=True, file=spec.origin)
    try:
        module = importlib.import_module(name)
    except Exception as error:
        say(error=f"{type(error).__name__}: {error}", missing=_missing_libraries(spec, str(error)))
        return None
    say(version=str(getattr(module, "__version__", getattr(module, "VERSION_TEXT", ""))))
    return module


def _missing_libraries(spec: Any, error: str) -> list[str]:
    """Libraries of the system that a package's own ones do not find: the loader names only the first."""
    named = [error.split(": ")[0].split()[-1]] if "cannot open shared object file" in error else []
    if not named or shutil.which("ldd") is None:
        return named
    place = Path(spec.origin)
    folder = place.parent
    for library in [place] if place.suffix == ".so" else sorted(folder.rglob("*.so*"))[:64]:
        ran = subprocess.run(["ldd", str(library)], capture_output=True, text=True, check=False, timeout=10)
        lost = [line.split()[0] for line in ran.stdout.splitlines() if line.rstrip().endswith("=> not found")]
        named += [name for name in lost if name not in named and not any(folder.parent.glob(f"*/{name}"))]
    return named


def cv2(say: Say) -> None:
    """OpenCV: which one, whether it has GStreamer, and whether it and numpy understand each other."""
    module = package(say, "cv2")
    installed = []
    for name in DISTRIBUTIONS:
        try:
            installed.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    say(distributions=installed)
    if module is None:
        return
    lines = module.getBuildInformation().splitlines()
    said = [line.split(":", 1)[1].strip() for line in lines if line.strip().startswith("GStreamer:")]
    say(gstreamer=bool(said) and said[0].upper().startswith("YES"), gstreamer_text=said[0] if said else "")
    import numpy

    picture = numpy.zeros((4, 4, 3), numpy.uint8)
    say(works=module.cvtColor(picture, module.COLOR_BGR2GRAY).shape == (4, 4))


def onnxruntime(say: Say) -> None:
    """ONNX Runtime and what it can run on."""
    module = package(say, "onnxruntime")
    if module is not None:
        say(providers=list(module.get_available_providers()))


def tensorrt(say: Say) -> None:
    """TensorRT by its import alone: without a device, constructing an object of it can end the process."""
    package(say, "tensorrt")


def pycuda(say: Say) -> None:
    """pycuda and its driver module, which needs the driver's library."""
    module = package(say, "pycuda")
    if module is not None:
        package(say, "pycuda.driver")
        say(version=str(module.VERSION_TEXT))


def cuda_bindings(say: Say) -> None:
    """NVIDIA's own bindings of CUDA."""
    package(say, "cuda.bindings")


def numpy(say: Say) -> None:
    """numpy."""
    package(say, "numpy")


def cuda(say: Say) -> None:
    """The CUDA driver: its version and the GPUs it has."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        say(present=False, error=str(error))
        return
    say(present=True)
    code = driver.cuInit(0)
    if code:
        say(error=f"cuInit gave {code}", code=code)
        return
    number = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(number))
    say(version=f"{number.value // 1000}.{number.value % 1000 // 10}")
    driver.cuDeviceGetCount(ctypes.byref(number))
    devices = []
    for index in range(number.value):
        name, memory = ctypes.create_string_buffer(128), ctypes.c_size_t()
        major, minor = ctypes.c_int(), ctypes.c_int()
        driver.cuDeviceGetName(name, 128, index)
        driver.cuDeviceTotalMem_v2(ctypes.byref(memory), index)
        driver.cuDeviceGetAttribute(ctypes.byref(major), 75, index)
        driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, index)
        devices.append(_gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}", memory.value, None))
    say(gpus=devices)


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def nvml(say: Say) -> None:
    """NVML: GPUs, their memory and the driver's version; it needs no CUDA context."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as error:
        say(present=False, error=str(error))
        return
    code = library.nvmlInit_v2()
    say(present=True, code=code)
    if code:
        return
    text, count = ctypes.create_string_buffer(96), ctypes.c_uint()
    library.nvmlSystemGetDriverVersion(text, 96)
    say(version=text.value.decode(errors="replace"))
    library.nvmlDeviceGetCount_v2(ctypes.byref(count))
    devices = []
    for index in range(count.value):
        handle, memory, major, minor = ctypes.c_void_p(), _Memory(), ctypes.c_int(), ctypes.c_int()
        if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)):
            continue
        name = ctypes.create_string_buffer(96)
        library.nvmlDeviceGetName(handle, name, 96)
        if library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)):
            memory = _Memory()
        known = library.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor)) == 0
        capability = f"{major.value}.{minor.value}" if known else None
        devices.append(_gpu(name.value.decode(errors="replace"), capability, memory.total or None, memory.free or None))
    say(gpus=devices)
    library.nvmlShutdown()


def nvidia_smi(say: Say) -> None:
    """The driver's own command, where its library cannot be loaded (some containers)."""
    command = shutil.which("nvidia-smi")
    say(present=command is not None)
    if command is None:
        return
    asked = "name,compute_cap,memory.total,memory.free,driver_version"
    query = [command, f"--query-gpu={asked}", "--format=csv,noheader,nounits"]
    ran = subprocess.run(query, capture_output=True, text=True, check=False, timeout=20)
    if ran.returncode:
        say(error=(ran.stderr or ran.stdout).strip().splitlines()[-1] if ran.stderr or ran.stdout else "it failed")
        return
    devices = []
    for line in ran.stdout.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 5:
            total, free = (int(text) * 2**20 if text.isdigit() else None for text in fields[2:4])
            devices.append(_gpu(fields[0], fields[1] if fields[1][:1].isdigit() else None, total, free))
            say(version=fields[4])
    say(gpus=devices)


def _gpu(name: str, capability: str | None, memory: int | None, free: int | None) -> dict[str, Any]:
    return {"name": name, "compute_capability": capability, "memory": memory, "free": free}


PROBES: dict[str, Callable[[Say], None]] = {
    "cv2": cv2,
    "onnxruntime": onnxruntime,
    "tensorrt": tensorrt,
    "pycuda": pycuda,
    "cuda.bindings": cuda_bindings,
    "numpy": numpy,
    "cuda": cuda,
    "nvml": nvml,
    "nvidia-smi": nvidia_smi,
}


def main(arguments: list[str]) -> None:
    """Run one probe; facts go to standard output as lines of JSON, whatever libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)

        def say(**facts: Any) -> None:
            out.write(json.dumps(facts) + "\n")
            out.flush()

        PROBES[arguments[0]](say)


if __name__ == "__main__":
    sys.path[:] = json.loads(sys.argv[1])
    main(sys.argv[2:])
