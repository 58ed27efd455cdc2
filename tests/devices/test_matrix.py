"""docs/devices.md says what the profiles say, and names what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgeco.devices.catalogue import find_profile, profiles
from edgeco.devices.matrix import device_table, jetpack_table, unsupported_table

PAGE = (Path(__file__).parents[2] / "docs" / "devices.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("table", [device_table(), unsupported_table(), jetpack_table()])
def test_the_page_holds_the_tables(table: str) -> None:
    assert table in PAGE, "print them with: python -m edgeco.devices.matrix"


def test_every_device_is_in_one_table() -> None:
    for profile in profiles():
        assert (f"`{profile.name}`" in device_table()) != (f"`{profile.name}`" in unsupported_table())


def test_devices_and_options_of_its_examples_exist() -> None:
    from edgeco.cli import main

    for name in re.findall(r"--device ([a-z][\w-]+)", PAGE):
        find_profile(name)
    for command, rest in re.findall(r"^edgeco (\w+)(.*)$", PAGE, re.MULTILINE):
        options = {option for parameter in main.commands[command].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= options, command
