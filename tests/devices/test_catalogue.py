"""The profiles: each holds together, each is found by its names, and what is not known is said to be unknown."""

from __future__ import annotations

import pytest

from edgeco.devices.catalogue import check_catalogue, find_board, find_gpu, find_profile, profiles, read_profiles
from edgeco.devices.jetpack import LEAST_PYTHON, release_of, releases
from edgeco.devices.profile import Profile, Range, version, within
from edgeco.errors import SpecError

CARD = """
[[device]]
name = "card"
title = "A card"
family = "desktop"
compute_capability = "8.6"
precisions = ["fp32", "fp16", "int8"]
"""


def one_sentence(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text and text
    return text


@pytest.mark.parametrize("profile", profiles(), ids=lambda profile: profile.name)
class TestEveryProfile:
    def test_versions_are_what_its_jetpacks_bring(self, profile: Profile) -> None:
        """TensorRT begins with the first JetPack that edgeco runs on, and ends with the last."""
        if profile.jetpack is None or profile.unsupported:
            assert profile.tensorrt is None or profile.family == "desktop"
            return
        brought = [entry for entry in releases() if entry.supported and within(entry.jetpack, profile.jetpack)]
        assert profile.tensorrt is not None and profile.tensorrt.first is not None
        named = "Thor" if "thor" in profile.name else "Orin"
        mine = [entry for entry in brought if named in entry.boards]
        assert version(mine[0].tensorrt)[:2] == version(profile.tensorrt.first)
        last = "11.4" if profile.jetpack.last == "7.2.2" else "10.16"
        assert profile.tensorrt.last == last

    def test_an_unsupported_board_says_why_and_has_no_python(self, profile: Profile) -> None:
        if profile.unsupported is None:
            return
        assert profile.jetpack is not None and profile.jetpack.last is not None
        last = [entry for entry in releases() if within(entry.jetpack, profile.jetpack)][-1]
        assert version(last.python) < LEAST_PYTHON
        assert last.python in profile.unsupported

    def test_what_is_unknown_is_listed(self, profile: Profile) -> None:
        assert ("bandwidth" in profile.unknown) == (profile.bandwidth is None)
        assert ("fp16 rate" in profile.unknown) == ("fp16" in profile.precisions and "fp16" not in profile.rates)

    def test_a_derived_figure_says_from_what(self, profile: Profile) -> None:
        figures = [*profile.rates.values(), *filter(None, (profile.memory, profile.bandwidth))]
        assert all(figure.note for figure in figures if figure.basis in ("derived", "bound"))


def test_the_devices_of_the_plan_are_there() -> None:
    named = {profile.name for profile in profiles()}
    for part in ("orin-nano-4gb", "orin-nano-8gb", "super", "orin-nx", "agx-orin", "thor", "xavier", "tx2"):
        assert any(part in name for name in named), part
    for name in ("jetson-nano", "rtx-20-series", "rtx-3090", "rtx-4090", "rtx-5090", "t4", "a100", "h100", "cpu"):
        assert name in named
    assert {p.name for p in profiles() if p.unsupported} == {
        "jetson-nano",
        "jetson-tx2",
        "jetson-xavier-nx",
        "jetson-agx-xavier",
    }


def test_small_boards_compile_with_care() -> None:
    """Their memory is the system's too, and a compilation that takes it all is ended."""
    small = {p.name: (p.workspace, p.optimisation_level) for p in profiles() if p.workspace is not None}
    assert small == {
        "jetson-orin-nano-4gb": (512, 2),
        "jetson-orin-nano-8gb": (1024, 3),
        "jetson-orin-nano-8gb-super": (1024, 3),
    }


class TestNames:
    @pytest.mark.parametrize("name", ["jetson-orin-nano", "Orin Nano", "JETSON_ORIN_NANO_8GB", " orin-nano "])
    def test_however_it_is_written(self, name: str) -> None:
        assert find_profile(name).name == "jetson-orin-nano-8gb"

    def test_an_unknown_name_gets_the_nearest(self) -> None:
        with pytest.raises(SpecError, match="did you mean orin-nano") as caught:
            find_profile("orin-nono")
        assert "edgeco devices" in one_sentence(caught.value)
        with pytest.raises(SpecError, match=r"There is no device 'qqq'; 'edgeco devices' lists"):
            find_profile("qqq")

    @pytest.mark.parametrize(
        ("entries", "name"),
        [
            (["nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005"], "jetson-orin-nano-8gb-super"),
            (["nvidia,p3768-0000+p3767-0005", "nvidia,p3767-0005", "nvidia,tegra234"], "jetson-orin-nano-8gb"),
            (["nvidia,p3737-0000+p3701-0005", "nvidia,p3701-0005", "nvidia,tegra234"], "jetson-agx-orin-64gb"),
            (["nvidia,p4071-0000+p3834-0008", "nvidia,p3834-0008", "nvidia,tegra264"], "jetson-thor-t5000"),
            (["nvidia,p2822-0000+p2888-0001", "nvidia,tegra194"], "jetson-agx-xavier"),
            (["raspberrypi,5-model-b", "brcm,bcm2712"], None),
        ],
    )
    def test_boards_by_their_device_tree(self, entries: list[str], name: str | None) -> None:
        found = find_board(entries)
        assert (found.name if found else None) == name

    @pytest.mark.parametrize(
        ("driver", "name"),
        [
            ("NVIDIA GeForce RTX 4090", "rtx-4090"),
            ("NVIDIA GeForce RTX 4090 Laptop GPU", "rtx-40-series"),
            ("NVIDIA GeForce RTX 2080 Ti", "rtx-20-series"),
            ("NVIDIA A100-SXM4-80GB", "a100"),
            ("NVIDIA H100 80GB HBM3", "h100"),
            ("NVIDIA H100 PCIe", None),
            ("NVIDIA L40S", None),
            ("NVIDIA L4", "l4"),
            ("Tesla T4", "t4"),
        ],
    )
    def test_cards_by_their_drivers_name(self, driver: str, name: str | None) -> None:
        """A card with other figures than its namesake is not taken for it."""
        found = find_gpu(driver)
        assert (found.name if found else None) == name


class TestRefused:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("nonsense", "cannot be read"),
            (CARD + "speed = 3\n", "unknown field `speed`"),
            (CARD.replace('"8.6"', '"ampere"'), "compute_capability"),
            (CARD.replace('compute_capability = "8.6"\n', ""), "a GPU has a compute capability"),
            (CARD.replace('"fp32", ', ""), "every device computes in fp32"),
            (CARD + 'rates = { fp8 = { value = 3, basis = "vendor" } }\n', "rate of fp8"),
            (CARD + 'rates = { fp16 = { value = 3, basis = "guess" } }\n', "guess"),
            (CARD + 'bandwidth = { value = 0, basis = "vendor" }\n', "bandwidth"),
            (
                CARD + 'rates = { fp16 = { value = 3, basis = "vendor" }, int8 = { value = 2, basis = "vendor" } }\n',
                "narrower precision is slower",
            ),
            (CARD + 'tensorrt = { first = "10.3", last = "8.6" }\n', "ends before it begins"),
            (CARD + "dla = 2\n", "only a Jetson"),
            (CARD + "workspace = 512\n", "given together"),
            (CARD + "workspace = 512\noptimisation_level = 6\n", "optimisation_level"),
        ],
    )
    def test_a_damaged_file_is_named(self, text: str, said: str) -> None:
        with pytest.raises(SpecError, match=said) as caught:
            read_profiles(text.encode(), "cards.toml")
        assert "cards.toml" in one_sentence(caught.value)

    def test_one_name_for_two_devices(self) -> None:
        (card,) = read_profiles(CARD.encode(), "cards.toml")
        with pytest.raises(SpecError, match="both called 'card'"):
            check_catalogue([card, card])


class TestVersions:
    def test_order(self) -> None:
        assert version("10.16.1.11") > version("10.3.0") > version("8.6.2")
        assert version("8.6.2b1") == (8, 6) and version("") == ()

    def test_a_range_counts_as_many_places_as_it_gives(self) -> None:
        limits = Range(first="8.6", last="10.16")
        assert within("8.6.1", limits) and within("10.16.2.3", limits)
        assert not within("8.5.3", limits) and not within("10.17", limits) and not within("11.0", limits)
        assert within("99", Range(first="8.6")) and within("1.0", Range(last="8.6"))

    @pytest.mark.parametrize(
        ("l4t", "jetpack"),
        [("36.4.4", "6.2"), ("36.4", "6.1"), ("36.4.0", "6.1"), ("36.3.0", "6.0"), ("38.2.1", "7.0"), ("39.2", "7.2"),
         ("35.4.1", "5.1"), ("32.7.4", "4.6"), ("36.2", None), ("40.0", None)],
    )  # fmt: skip
    def test_the_jetpack_of_a_linux(self, l4t: str, jetpack: str | None) -> None:
        found = release_of(l4t)
        assert (found.jetpack if found else None) == jetpack
