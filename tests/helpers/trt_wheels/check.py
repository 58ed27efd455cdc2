"""The bindings of one TensorRT, imported over the stub, against what the package and the tests' table say of them.

Prints the version; whatever is wrong is an exception.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tensorrt as trt
from trt_names import FACTS, PATHS, surprises

from edgeco.engines.tensorrt.api import find_tensorrt
from edgeco.engines.tensorrt.logger import last_words, make_logger
from edgeco.engines.tensorrt.progress import make_monitor


def has(kind: str, member: str | None) -> bool:
    found = getattr(trt, kind, None)
    return found is not None and (member is None or hasattr(found, member))


def check_table(version: str) -> None:
    """The table that the fake TensorRT is made of says what the bindings have."""
    facts = FACTS[version]
    for kind, members in facts["classes"].items():
        assert set(members) <= set(dir(getattr(trt, kind))), kind
        others = {name for name in dir(getattr(trt, kind)) if not name.startswith(("_", "add_"))} - set(members)
        assert not others, (kind, others)
    for kind, members in facts["enums"].items():
        assert {name: int(value) for name, value in getattr(trt, kind).__members__.items()} == members, kind


def main() -> None:
    api = find_tensorrt()
    version = api.text
    strong, flags, ceiling, monitored = PATHS[version]
    assert (api.strong, api.ceiling, api.monitored) == (strong, ceiling, monitored)
    assert api.creation_flags(api.strong) == flags and len(api.dtypes) == 5
    assert not list(surprises(version, has)), list(surprises(version, has))
    check_table(version)
    logger = make_logger(trt)
    logger.log(trt.ILogger.Severity.WARNING, "not kept")
    logger.log(trt.ILogger.Severity.ERROR, "of  two\nlines")
    assert last_words(logger) == "of two lines"
    if api.monitored:
        said: list[str] = []
        monitor = make_monitor(trt, said.append, lambda: False)
        monitor.phase_start("Building Engine", None, 10)
        assert monitor.step_complete("Building Engine", 5) and said == ["Building Engine: 50 %"]
    # The one keyword that the package passes.
    assert "ignore_mismatch: bool" in trt.IBuilderConfig.set_timing_cache.__doc__
    try:
        trt.Builder(logger)
    except TypeError as error:
        assert "nullptr" in str(error)
    else:
        raise AssertionError("the stub builds")
    print(version)


main()
