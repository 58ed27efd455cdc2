"""Every name of TensorRT's that the package uses, against what each version has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from gpu_fixtures import VERSIONS
from trt_names import CLASSES, ENUMS, FACTS, PATHS, surprises

PACKAGE = Path(__file__).resolve().parents[2] / "edgeco" / "engines" / "tensorrt"


def used() -> set[str]:
    """``trt.A`` and ``trt.A.B`` in the sources."""
    texts = [re.sub(r'""".*?"""', "", path.read_text(), flags=re.S) for path in sorted(PACKAGE.glob("*.py"))]
    return {name for text in texts for name in re.findall(r"\btrt\.([A-Z]\w+(?:\.[A-Z]\w+)?)", text)}


def test_the_list_is_what_the_sources_use() -> None:
    """Members are held by the fake, which has no others; enumerations and classes by this list."""
    known = {*CLASSES, *ENUMS} | {f"{kind}.{member}" for kind, members in ENUMS.items() for member in members}
    assert used() <= known
    sources = "".join(path.read_text() for path in PACKAGE.glob("*.py"))
    missing = [m for members in (*CLASSES.values(), *ENUMS.values()) for m in members if m not in sources]
    assert not missing


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_is_there_or_asked_for_first(version: str) -> None:
    facts = FACTS[version]

    def has(kind: str, member: str | None) -> bool:
        table = {**facts["classes"], **facts["enums"]}
        return kind in table and (member is None or member in table[kind])

    assert not list(surprises(version, has))


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_takes_its_path(version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the fake TensorRT reads graphs with the onnx package")
    from gpu_fixtures import installed

    from edgeco.engines.tensorrt.api import find_tensorrt

    strong, flags, ceiling, monitored = PATHS[version]
    with installed(monkeypatch, tmp_path, version):
        api = find_tensorrt()
        assert (api.strong, api.ceiling, api.monitored) == (strong, ceiling, monitored)
        assert api.creation_flags(api.strong) == flags
        assert api.weak == (api.version[0] < 11)
