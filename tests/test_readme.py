"""The README does what it says: its examples run, its commands and links exist.

Blocks are taken in their order, in one folder. A Python block that begins with the name of a file becomes that file,
any other runs; shell blocks run with ``edgeco`` at hand. What downloads (``make``, ``pip``) is not run, but must exist.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
NEEDED = ("torch", "onnx", "onnxruntime", "cv2")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its lines, and where it begins in the README."""

    language: str
    text: str
    line: int

    @property
    def commands(self) -> list[list[str]]:
        """Shell commands as words, without comments and environment."""
        joined = self.text.replace("\\\n", " ")
        lines = [shlex.split(line, comments=True) for line in joined.splitlines()]
        return [[w for i, w in enumerate(words) if i or "=" not in w] if words else [] for words in lines]

    @property
    def needs_network(self) -> bool:
        return any(command[:1] in (["make"], ["pip"]) for command in self.commands)


def blocks() -> list[Block]:
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [Block(m[1], m[2], README.count("\n", 0, m.start()) + 1) for m in found]


def write_clip(path: Path, frames: int = 40) -> None:
    """A recording such as a user has: 160 x 120 pixels, 15 frames per second."""
    import cv2
    import numpy as np

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 15.0, (160, 120))
    assert writer.isOpened(), "OpenCV cannot write an MP4 file"
    noise = np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    for index in range(frames):
        writer.write(np.roll(noise, 2 * index, 1))
    writer.release()


def write_checkpoint(folder: Path) -> None:
    """What the README's reader brings: a checkpoint of ``net.py`` and its labels."""
    code = "import torch; from net import make; torch.save({'epoch': 3, 'state_dict': make().state_dict()}, 'net.pt')"
    run_in(folder, [sys.executable, "-c", code])
    (folder / "labels.txt").write_text("nothing\nwave\npoint\n")


def run_in(folder: Path, command: list[str]) -> str:
    """Output of a command that must succeed, in a folder where ``edgeco`` is this tree's."""
    path = os.pathsep.join([str(folder / "bin"), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with ``edgeco`` on its path."""
    made = tmp_path_factory.mktemp("readme")
    command = made / "bin" / "edgeco"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom edgeco.cli import main\n\nmain()\n")
    command.chmod(0o755)
    return made


def test_examples(folder: Path) -> None:
    """From a network's file to answers over a recording, and the same from Python."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the README builds and runs a network, which needs {', '.join(missing)}")
    write_clip(folder / "clip.mp4")
    outputs = []
    for block in blocks():
        if block.language == "python":
            name = re.match(r"# (\S+\.py)\n", block.text)
            if name:
                (folder / name[1]).write_text(block.text)
                write_checkpoint(folder)
            else:
                outputs.append(run_in(folder, [sys.executable, "-c", block.text]))
        elif block.language == "bash" and not block.needs_network:
            outputs.append(run_in(folder, ["sh", "-e", "-c", block.text]))
    commands, program = outputs
    assert (folder / "net.edgeco").is_file()
    assert "FAILED" not in commands
    assert "40 decoded, 40 stepped" in commands
    lines = [msgspec.json.decode(line) for line in (folder / "answers.jsonl").read_bytes().splitlines()]
    assert len(lines) == 40
    answered = [line for line in lines if line["valid"]]
    assert answered
    assert {score["label"] for score in answered[-1]["top"]} == {"nothing", "wave", "point"}
    assert len(re.findall(r"^\d+\.\d\d s: (?:nothing|wave|point) \(\d+%\) in ", program, re.MULTILINE)) == len(answered)


def test_every_block_is_checked() -> None:
    assert {block.language for block in blocks()} == {"bash", "python"}
    assert sum(block.needs_network for block in blocks() if block.language == "bash") >= 3


def test_what_it_asks_to_make_and_install_exists() -> None:
    section = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1].split("\n[")[0]
    known = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))
    for block in blocks():
        for command in block.commands if block.language == "bash" else []:
            if command[:1] == ["make"]:
                assert set(command[1:]) <= TARGETS, f"README.md:{block.line}"
            if command[:2] == ["pip", "install"]:
                (what,) = command[2:]
                asked = re.fullmatch(r"\.(?:\[([\w,]+)\])?", what)
                assert asked, f"README.md:{block.line}: {what}"
                assert set((asked[1] or "").split(",")) - {""} <= known, f"README.md:{block.line}"
    mentioned = set(re.findall(r"`make ([a-z-]+)`", README))
    assert mentioned <= TARGETS


PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "docs/index.md",
    "docs/devices.md",
    "docs/robots.md",
)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    assert not [link for link in targets if not (ROOT / page).parent.joinpath(link).exists()]


def test_it_names_every_command_and_no_other() -> None:
    pytest.importorskip("click", reason="commands are listed by click")
    from edgeco.cli import main

    named = set(re.findall(r"`(\w+)`", README.split("`edgeco COMMAND --help` explains")[1].split(".")[0]))
    commands: dict[str, Any] = main.commands
    assert named == set(commands)
