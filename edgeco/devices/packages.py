"""Which package of Debian or Ubuntu holds a library that a program did not find."""

from __future__ import annotations

import re
from collections.abc import Iterable

from edgeco.devices.profile import version

_DLA = "libnvdla_compiler.so"

_KNOWN: tuple[tuple[str, str], ...] = (
    (r"libGL\.so\.1", "libgl1"),
    (r"libEGL\.so\.1", "libegl1"),
    (r"lib(glib|gthread|gobject|gio)-2\.0\.so\.0", "libglib2.0-0"),
    (r"libSM\.so\.6", "libsm6"),
    (r"libICE\.so\.6", "libice6"),
    (r"libX11\.so\.6", "libx11-6"),
    (r"libXext\.so\.6", "libxext6"),
    (r"libXrender\.so\.1", "libxrender1"),
    (r"libgtk-3\.so\.0", "libgtk-3-0"),
    (r"libgst(reamer|base|controller|net)-1\.0\.so\.0", "libgstreamer1.0-0"),
    (r"libgst\w+-1\.0\.so\.0", "libgstreamer-plugins-base1.0-0"),
    (r"lib(avcodec|avformat|avutil|avdevice|avfilter|swscale|swresample)\.so\.(\d+)", r"lib\1\2"),
    (r"libtbb\.so\.(\d+)", r"libtbb\1"),
    (r"libv4l2\.so\.0", "libv4l-0"),
    (r"libgomp\.so\.1", "libgomp1"),
    (r"libstdc\+\+\.so\.6", "libstdc++6"),
    (r"libopenblas\.so\.0", "libopenblas0"),
    (r"libopencv_\w+\.so\..*", "libopencv"),
    (r"libnvinfer\.so\.(\d+)", r"libnvinfer\1"),
    (r"libnvinfer_(\w+)\.so\.(\d+)", r"libnvinfer-\1\2"),
    (r"libnvonnxparser\.so\.(\d+)", r"libnvonnxparsers\1"),
    (r"libcudnn\w*\.so\.8", "libcudnn8"),
    (r"libcudnn\w*\.so\.9", "libcudnn9-cuda-12"),
    (r"libnvdla_compiler\.so", "nvidia-l4t-dla-compiler"),
)


def package_of(library: str) -> str | None:
    """The package that holds a shared library, None where it is not known.

    Example:
        >>> package_of("libGL.so.1"), package_of("libavcodec.so.58"), package_of("libmine.so")
        ('libgl1', 'libavcodec58', None)
    """
    for pattern, name in _KNOWN:
        found = re.fullmatch(pattern, library)
        if found:
            return found.expand(name).replace("_", "-")
    return None


def install(libraries: Iterable[str], l4t: str | None) -> str:
    """What to do where libraries are missing.

    Args:
        libraries: names of shared libraries.
        l4t: a Jetson's Linux, where the driver's library comes with the board.
    """
    wanted: list[str] = []
    unknown: list[str] = []
    others: list[str] = []
    for library in libraries:
        if library == _DLA and l4t is not None and version(l4t) >= (39,):
            others.append(f"L4T {l4t} has no {_DLA}: use a TensorRT, or a container image, made for JetPack 7.2")
            continue
        if library.startswith("libcuda.so"):
            wanted.append("nvidia-l4t-cuda" if l4t is not None else "nvidia-driver")
            continue
        package = package_of(library)
        (wanted if package else unknown).append(package or library)
    steps = [f"sudo apt install {' '.join(dict.fromkeys(wanted))}"] if wanted else []
    if "libglib2.0-0" in wanted:
        steps[0] += " (libglib2.0-0t64 from Ubuntu 24.04 and Debian 13 on)"
    if unknown:
        steps.append(f"find what holds {', '.join(dict.fromkeys(unknown))} with 'apt-file search'")
    return "; ".join([*steps, *others])
