"""The skeleton example, run as its README says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the example builds its network")
pytest.importorskip("onnx", reason="the example builds its network")
pytest.importorskip("onnxruntime", reason="networks are run by ONNX Runtime")

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "06_skeleton"


def test_the_readmes_commands(tmp_path: Path) -> None:
    for name in ("network.py", "pose.py"):
        (tmp_path / name).write_text((EXAMPLE / name).read_text())
    blocks = re.findall(r"```sh\n(.*?)```", (EXAMPLE / "README.md").read_text(), re.DOTALL)
    commands = [shlex.split(line) for line in blocks[0].replace("\\\n", " ").splitlines()]
    assert [command[:2] for command in commands] == [["edgeco", "build"], ["edgeco", "run"]]
    for command in commands:
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from edgeco.cli import main; main()"
        ran = subprocess.run([sys.executable, "-c", code, *command[1:]], cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(60))
    away = [line["index"] for line in lines if line.get("why") == "no input"]
    # Lost from 1.0 s on, held for 0.4 s since 14/15 s, back at 2.0 s.
    assert away == list(range(21, 30))
    assert {line["stepped"] for line in lines if line["index"] not in away} == {1}
    assert [line["index"] for line in lines if "reset" in line] == [30]
    assert lines[29]["valid"] is False and lines[-1]["warm"] is True
    assert {line["top"][0]["label"] for line in lines if line["valid"]} <= {"wave", "rest"}
