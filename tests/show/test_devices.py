"""Devices and findings as a person reads them."""

from __future__ import annotations

import io
from pathlib import Path

from boards import ORIN_NANO, XAVIER, plant
from rich.console import Console

from edgeco.devices.catalogue import find_profile, profiles
from edgeco.devices.detect import Device, Gpu, detect
from edgeco.devices.doctor import Examination
from edgeco.devices.finding import Finding
from edgeco.devices.system import Memory
from edgeco.show.devices import show_devices, show_examination, show_profile


def paper() -> Console:
    return Console(file=io.StringIO(), width=140, highlight=False, markup=False)


def read(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return " ".join(console.file.getvalue().split())


def test_every_profile_is_in_the_table(tmp_path: Path) -> None:
    console = paper()
    show_devices(detect(plant(tmp_path, ORIN_NANO)), profiles(), console)
    shown = read(console)
    assert all(profile.name in shown for profile in profiles())
    assert "JetPack 6.2 (L4T 36.4.3)" in shown
    assert "jetson-orin-nano-8gb-super 8.7 8 102 16.75 33.5 6.2 – 7.2 10.3 – 10.16 this one" in shown
    assert "≤ 25" in shown and "not supported" in shown


def test_a_board_that_cannot_be_served_says_why(tmp_path: Path) -> None:
    console = paper()
    show_devices(detect(plant(tmp_path, XAVIER)), (), console)
    assert "profile jetson-agx-xavier" in read(console) and "not supported its last JetPack is 5.1" in read(console)


def test_several_gpus_are_numbered() -> None:
    gpus = (Gpu("NVIDIA T4", "7.5", 16 * 2**30, None), Gpu("NVIDIA L4", None, None, None))
    device = Device("NVIDIA T4", find_profile("t4"), "", "cpu", 4, Memory(2**30, 2**29), gpus=gpus)
    console = paper()
    show_devices(device, (), console)
    shown = read(console)
    assert "GPU 0 NVIDIA T4, compute capability 7.5, 16.0 GiB" in shown
    assert "GPU 1 NVIDIA L4, compute capability not told" in shown


def test_a_profile_says_what_its_figures_rest_on() -> None:
    console = paper()
    show_profile(find_profile("jetson-orin-nano"), console)
    shown = read(console)
    assert "68 GB/s (stated by the vendor)" in shown
    assert "fp32 not known" in shown and "compiling 1024 MiB of workspace, optimisation level 3" in shown
    assert "20 x 10^12 operations a second, dense (follows from a stated figure: half of 40 sparse TOPS" in shown
    console = paper()
    show_profile(find_profile("jetson-nano"), console)
    assert "not supported its last JetPack is 4.6" in read(console)


def test_a_finding_is_followed_by_its_remedy() -> None:
    device = Device("d", None, "", "cpu", 1, None)
    findings = (Finding("TensorRT", "wrong", "not\x1b[2J there", "install it"), Finding("cache", "well", "/tmp"))
    console = paper()
    show_examination(Examination(device, findings), console)
    shown = read(console)
    assert "wrong TensorRT not\\x1b[2J there → install it well cache /tmp" in shown
