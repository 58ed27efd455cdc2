"""Every name of TensorRT's that the package uses, against what each version has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from gpu_fixtures import VERSIONS

PACKAGE = Path(__file__).resolve().parents[2] / "edgeco" / "engines" / "tensorrt"
FACTS = json.loads((Path(__file__).resolve().parents[1] / "data" / "tensorrt_names.json").read_text())

CLASSES = {
    "Builder": ("create_network", "create_builder_config", "build_serialized_network"),
    "INetworkDefinition": ("num_inputs", "num_outputs", "get_input", "get_output"),
    "OnnxParser": ("parse", "num_errors", "get_error"),
    "ITensor": ("name", "shape", "dtype", "allowed_formats"),
    "IBuilderConfig": (
        "set_memory_pool_limit", "profiling_verbosity", "builder_optimization_level", "max_aux_streams",
        "set_tactic_sources", "clear_flag", "set_flag", "create_timing_cache", "set_timing_cache", "get_timing_cache",
        "progress_monitor",
    ),
    "ITimingCache": ("serialize",),
    "Runtime": ("deserialize_cuda_engine",),
    "ICudaEngine": (
        "num_io_tensors", "get_tensor_name", "get_tensor_shape", "create_execution_context", "create_engine_inspector",
    ),
    "EngineInspector": ("get_engine_information",),
    "IExecutionContext": ("set_tensor_address", "execute_async_v3"),
    "ILogger": ("log",),
    "IProgressMonitor": ("phase_start", "step_complete", "phase_finish"),
}  # fmt: skip
ENUMS = {
    "BuilderFlag": ("FP16", "INT8", "TF32"),
    "NetworkDefinitionCreationFlag": ("EXPLICIT_BATCH", "STRONGLY_TYPED"),
    "DataType": ("FLOAT", "HALF", "INT8", "UINT8", "INT32"),
    "TensorFormat": ("LINEAR",),
    "MemoryPoolType": ("WORKSPACE",),
    "ProfilingVerbosity": ("DETAILED",),
    "LayerInformationFormat": ("JSON",),
    "TacticSource": (),  # by the user's name, looked up before it is used
}
ONLY_FROM = {"progress_monitor": 10, "IProgressMonitor": 10, "STRONGLY_TYPED": 10}
ONLY_TO = {"BuilderFlag.FP16": 10, "BuilderFlag.INT8": 10, "EXPLICIT_BATCH": 10}
"""What the code asks for, by an attribute or by the major version, before it uses it."""


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
    facts, major = FACTS[version], int(version.split(".")[0])
    for kind, members in CLASSES.items():
        if ONLY_FROM.get(kind, 0) > major:
            assert kind not in facts["classes"]
            continue
        for member in members:
            there = member in facts["classes"][kind]
            assert there == (ONLY_FROM.get(member, 0) <= major), f"{kind}.{member} in {version}"
    for kind, members in ENUMS.items():
        for member in members:
            last = ONLY_TO.get(f"{kind}.{member}", ONLY_TO.get(member, 99))
            due = ONLY_FROM.get(member, 0) <= major <= last
            assert (member in facts["enums"][kind]) == due, f"{kind}.{member} in {version}"


@pytest.mark.parametrize(
    ("version", "strong", "flags", "ceiling", "monitored"),
    [
        ("8.6.1", False, 1 << 0, 17, False),
        ("10.3.0", False, 0, 20, True),
        ("10.16.1.11", True, 1 << 1, 22, True),
        ("11.4.0.106", True, 0, 22, True),
    ],
)
def test_each_version_takes_its_path(
    version: str,
    strong: bool,
    flags: int,
    ceiling: int,
    monitored: bool,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    pytest.importorskip("onnx", reason="the fake TensorRT reads graphs with the onnx package")
    from gpu_fixtures import installed

    from edgeco.engines.tensorrt.api import find_tensorrt

    with installed(monkeypatch, tmp_path, version):
        api = find_tensorrt()
        assert (api.strong, api.ceiling, api.monitored) == (strong, ceiling, monitored)
        assert api.creation_flags(api.strong) == flags
        assert api.weak == (api.version[0] < 11)
