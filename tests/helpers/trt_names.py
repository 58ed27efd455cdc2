"""Every name of TensorRT's that the package uses, which versions have it, and the path that each version takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FACTS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "tensorrt_names.json").read_text())
"""By version what its bindings have: ``classes`` and their members, ``enums`` and their values, all ``names``."""

CLASSES = {
    "Builder": ("create_network", "create_builder_config", "build_serialized_network"),
    "INetworkDefinition": ("num_inputs", "num_outputs", "get_input", "get_output", "num_layers", "get_layer"),
    "ILayer": ("num_outputs", "get_output", "precision", "set_output_type"),
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
        "num_io_tensors", "get_tensor_name", "get_tensor_shape", "get_tensor_dtype", "create_execution_context",
        "create_engine_inspector",
    ),
    "EngineInspector": ("get_engine_information",),
    "IExecutionContext": ("set_tensor_address", "execute_async_v3"),
    "ILogger": ("log",),
    "IProgressMonitor": ("phase_start", "step_complete", "phase_finish"),
}  # fmt: skip
ENUMS = {
    "BuilderFlag": ("FP16", "INT8", "TF32", "PREFER_PRECISION_CONSTRAINTS"),
    "NetworkDefinitionCreationFlag": ("EXPLICIT_BATCH", "STRONGLY_TYPED"),
    "DataType": ("FLOAT", "HALF", "INT8", "UINT8", "INT32"),
    "TensorFormat": ("LINEAR",),
    "MemoryPoolType": ("WORKSPACE",),
    "ProfilingVerbosity": ("DETAILED",),
    "LayerInformationFormat": ("JSON",),
    "TacticSource": (),  # by the user's name, looked up before it is used
}
ONLY_FROM = {"progress_monitor": 10, "IProgressMonitor": 10, "STRONGLY_TYPED": 10}
ONLY_TO = {
    "BuilderFlag.FP16": 10, "BuilderFlag.INT8": 10, "PREFER_PRECISION_CONSTRAINTS": 10, "EXPLICIT_BATCH": 10,
    "ILayer.precision": 10, "ILayer.set_output_type": 10,
}  # fmt: skip
"""What the code asks for, by an attribute or by the major version, before it uses it."""

PATHS = {
    "8.6.1": (False, 1 << 0, 17, False),
    "10.3.0": (False, 0, 20, True),
    "10.16.1.11": (True, 1 << 1, 22, True),
    "11.4.0.106": (True, 0, 22, True),
}
"""By version: whether it is typed strongly, a network's flags, the newest opset, whether builds tell of progress."""


def surprises(version: str, has: Callable[[str, str | None], bool]) -> Iterator[str]:
    """Names that are missing although the code counts on them, or there although it does not.

    Args:
        version: of TensorRT.
        has: whether there is a class or enumeration, and a member of it.
    """
    major = int(version.split(".")[0])
    for kind, members in {**CLASSES, **ENUMS}.items():
        if ONLY_FROM.get(kind, 0) > major:
            if has(kind, None):
                yield f"{kind} in {version}"
            continue
        for member in members:
            last = ONLY_TO.get(f"{kind}.{member}", ONLY_TO.get(member, 99))
            if has(kind, member) != (ONLY_FROM.get(member, 0) <= major <= last):
                yield f"{kind}.{member} in {version}"
