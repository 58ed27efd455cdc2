"""What the answers of libraries mean on a device: findings, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator

from edgeco.devices.child import Outcome
from edgeco.devices.detect import Device
from edgeco.devices.finding import Finding
from edgeco.devices.jetpack import release_of
from edgeco.devices.packages import install
from edgeco.devices.profile import version, within

LEAST_ONNXRUNTIME = (1, 23)
EXACT_ONNXRUNTIME = (1, 30)
"""Before, its processor kernels round FP16 QuantizeLinear wrongly by one step."""
LEAST_TENSORRT = (8, 6)
BAD_TENSORRT = ((10, 2, 0),)
VENV = "make the environment with: python3 -m venv --system-site-packages"
_ABI = ("compiled using NumPy 1.x", "_ARRAY_API not found", "multiarray failed to import", "numpy.dtype size changed")


def numpy(told: Outcome) -> Finding:
    """numpy, without which nothing runs."""
    if told.error or not told.present:
        return Finding("numpy", "wrong", told.error or "not installed", "pip install --force-reinstall numpy")
    return Finding("numpy", "well", _version(told))


def onnxruntime(told: Outcome) -> Finding:
    """The engine of every device."""
    if told.error or not told.present:
        remedy = _remedy(told, None) or "pip install --force-reinstall onnxruntime"
        return Finding("ONNX Runtime", "wrong", told.error or "not installed", remedy)
    found = f"{_version(told)} with {', '.join(told.facts.get('providers', []))}"
    number = version(str(told.facts.get("version", "")))
    if number and number < LEAST_ONNXRUNTIME:
        return Finding("ONNX Runtime", "wrong", found, "pip install --upgrade 'onnxruntime>=1.23'")
    if number and number < EXACT_ONNXRUNTIME:
        text = "nothing for FP32; where Python 3.11 or newer is at hand, 1.30 rounds quantised FP16 exactly"
        return Finding("ONNX Runtime", "note", found, text)
    return Finding("ONNX Runtime", "well", found)


def opencv(told: Outcome, device: Device, numbers: Outcome) -> Iterator[Finding]:
    """OpenCV itself, and whether it has GStreamer where a camera may need it."""
    wheels = told.facts.get("distributions", [])
    if not told.present:
        board = f"sudo apt install libopencv-python (JetPack's, with GStreamer), and {VENV}"
        remedy = board if device.is_jetson else "pip install 'edgeco[camera]', or sudo apt install python3-opencv"
        yield Finding("OpenCV", "note", "not installed; without it only arrays and test patterns can be run", remedy)
        return
    found = f"{_version(told)} ({', '.join(wheels) or 'no wheel: built for this system'}) at {told.facts.get('file')}"
    if told.error:
        yield Finding("OpenCV", "wrong", f"{found}: {told.error}", _opencv_remedy(told, device, numbers))
        return
    if len(wheels) > 1:
        names = " ".join(wheel.split()[0] for wheel in wheels)
        remedy = f"several wheels overwrite or hide one another: pip uninstall {names}, then install one"
        yield Finding("OpenCV", "note", found, remedy)
    else:
        yield Finding("OpenCV", "well", found)
    if told.facts.get("gstreamer"):
        yield Finding("GStreamer in OpenCV", "well", str(told.facts.get("gstreamer_text")))
    elif device.is_jetson:
        names = " ".join(wheel.split()[0] for wheel in wheels)
        away = f"pip uninstall {names}; " if names else ""
        remedy = f"{away}sudo apt install libopencv-python, and {VENV}"
        yield Finding("GStreamer in OpenCV", "wrong", "none: CSI cameras and pipelines cannot be opened", remedy)
    else:
        remedy = "sudo apt install python3-opencv, without pip's wheel, if pipelines are to be opened"
        yield Finding("GStreamer in OpenCV", "note", "none: files can be read, pipelines cannot be opened", remedy)


def _opencv_remedy(told: Outcome, device: Device, numbers: Outcome) -> str:
    if any(text in (told.error or "") + told.messages for text in _ABI):
        newest = f"numpy {_version(numbers)} is loaded; " if numbers.present else ""
        return f"{newest}this OpenCV was built for numpy 1: pip install 'numpy<2'"
    libraries = _remedy(told, device)
    if libraries:
        headless = "" if device.is_jetson else "; or pip install opencv-python-headless in place of opencv-python"
        return libraries + headless
    if device.is_jetson:
        return f"use the board's own: pip uninstall opencv-python, and {VENV}"
    return "pip install --force-reinstall opencv-python-headless"


def cuda_driver(told: Outcome, device: Device) -> Finding:
    """The driver, where there is a GPU for it."""
    if not told.present:
        if not (device.is_jetson or device.gpus):
            return Finding("CUDA driver", "well", "none, and no GPU: networks run on the processor")
        if device.container:
            remedy = "start the container with --runtime nvidia (Jetson) or --gpus all"
        else:
            remedy = install(["libcuda.so.1"], device.l4t)
        return Finding("CUDA driver", "wrong", "libcuda.so.1 is not found", remedy)
    if told.error or not told.facts.get("gpus"):
        code = told.facts.get("code")
        if code == 100 and not (device.is_jetson or device.gpus):
            return Finding("CUDA driver", "well", "there, and no GPU: networks run on the processor")
        remedy = "restart; if that does not help, install the driver again"
        if device.container:
            remedy = "start the container with --runtime nvidia (Jetson) or --gpus all"
        return Finding("CUDA driver", "wrong", told.error or "it finds no GPU", remedy)
    gpus = ", ".join(f"{gpu['name']} ({gpu['compute_capability']})" for gpu in told.facts["gpus"])
    return Finding("CUDA driver", "well", f"for CUDA {_version(told)}: {gpus}")


def tensorrt(told: Outcome, device: Device) -> Finding:
    """TensorRT, and whether its version suits the device."""
    release = release_of(device.l4t) if device.l4t is not None else None
    if not told.present:
        if device.is_jetson:
            brought = f" ({release.tensorrt} with JetPack {release.jetpack})" if release is not None else ""
            remedy = f"sudo apt install tensorrt python3-libnvinfer{brought}, and {VENV}"
            return Finding("TensorRT", "wrong", "not installed, or not visible in this environment", remedy)
        if device.gpus:
            return Finding("TensorRT", "note", "not installed: networks run on the processor", "pip install tensorrt")
        return Finding("TensorRT", "well", "not installed; there is no GPU for it")
    found = f"{_version(told)} at {told.facts.get('file')}"
    if told.error:
        remedy = _remedy(told, device) or "install TensorRT again; it must be of this system's CUDA version"
        return Finding("TensorRT", "wrong", f"{found}: {told.error}", remedy)
    number = version(str(told.facts.get("version", "")))
    if number and number < LEAST_TENSORRT:
        remedy = "flash JetPack 6 or newer" if device.is_jetson else "pip install --upgrade tensorrt"
        return Finding("TensorRT", "wrong", f"{found}: older than 8.6", remedy)
    if number[:3] in BAD_TENSORRT:
        remedy = "install another: pip install 'tensorrt!=10.2.0'"
        return Finding("TensorRT", "wrong", f"{found}: this version is known to be bad", remedy)
    limits = device.profile.tensorrt if device.profile is not None else None
    if number and limits is not None and not within(".".join(map(str, number)), limits):
        known = f"{limits.first or '…'} to {limits.last or '…'}"
        return Finding("TensorRT", "note", f"{found}: edgeco knows {known} on this device", "report how it goes")
    return Finding("TensorRT", "well", found)


def cuda_python(bindings: Outcome, pycuda: Outcome, device: Device) -> Finding:
    """Either package suffices; one that is there and broken is told even so."""
    subject = "CUDA for Python"
    working = [
        f"{name} {_version(told)}"
        for name, told in (("cuda.bindings", bindings), ("pycuda", pycuda))
        if told.present and not told.error
    ]
    broken = [f"{name}: {told.error}" for name, told in (("cuda.bindings", bindings), ("pycuda", pycuda)) if told.error]
    on_gpu = device.is_jetson or bool(device.gpus)
    release = release_of(device.l4t) if device.l4t is not None else None
    wanted = "cuda-bindings"
    if release is not None:
        wanted = "'cuda-bindings==12.9.*'" if version(release.cuda) < (13,) else "'cuda-bindings>=13'"
    if working:
        found = ", ".join(working + broken)
        if on_gpu and not any(name.startswith("cuda.bindings") for name in working):
            found += "; without CUDA graphs, so that the processor hands every kernel over by itself"
            return Finding(subject, "note", found, f"pip install {wanted} beside it")
        return Finding(subject, "well", found)
    if not on_gpu:
        return Finding(subject, "well", "not needed without a GPU")
    remedy = f"pip install {wanted}; pycuda does as well, without CUDA graphs"
    needed = device.is_jetson or bool(broken)
    return Finding(subject, "wrong" if needed else "note", "; ".join(broken) or "not installed", remedy)


def _remedy(told: Outcome, device: Device | None) -> str | None:
    missing = told.facts.get("missing") or []
    return install(missing, device.l4t if device is not None else None) if missing else None


def _version(told: Outcome) -> str:
    return str(told.facts.get("version") or "unknown version")
