"""The tables of docs/zoo.md, drawn from what `zoo_table.py` measured. Nothing here measures, or needs PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Result = Mapping[str, Any]
"""One network's figures: see ``zoo_table.py``. Times are seconds, costs multiply-accumulates, sizes bytes."""

CLIPS = ("torch", "onnxruntime", "openvino")
"""Who runs the clip network, in the order of the columns."""
STEPS = ("edgeco", "openvino")
"""Who runs edgeco's step graph: its own engine over ONNX Runtime, and OpenVINO over the same graph and buffers."""


@dataclass(frozen=True)
class Published:
    """What the papers print: GFLOPs (multiply-accumulates, with norms and activations) of a clip and of a step."""

    clip: float | None = None
    step: float | None = None
    per_answer: bool = False
    """Whether the step's figure is for an answer, which takes several steps."""


PUBLISHED = {
    # Hedegaard and Iosifidis (2022, arXiv:2106.00050)
    "x3d-xs": Published(0.64),
    "x3d-s": Published(2.06, 0.17),
    "x3d-m": Published(4.97, 0.33),
    "x3d-l": Published(19.17, 1.25),
    "slow-r50": Published(54.87, 6.90),
    "i3d-r50": Published(28.61, 5.68, per_answer=True),
    "r2plus1d-18": Published(40.71),
    "slowfast-4x16": Published(36.46),
    "slowfast-8x8": Published(66.25),
    # Hedegaard et al. (2022, arXiv:2203.11009)
    "st-gcn": Published(16.73, 0.27, per_answer=True),
    "st-gcn-star": Published(36.90, 0.16),
    "agcn": Published(18.69, 0.30, per_answer=True),
    "agcn-star": Published(40.87, 0.17),
    "s-tr": Published(16.14, 0.22, per_answer=True),
    "s-tr-star": Published(35.65, 0.15),
    # Hedegaard et al. (2022, arXiv:2201.06268): features of ActivityNet
    "oad-b1": Published(0.6057, 0.0096),
    "oad-b2": Published(1.0081, 0.4108),
    # Kondratyuk et al. (2021, arXiv:2103.11511): 50 frames
    "movinet-a0": Published(2.7, 2.7 / 50),
    "movinet-a1": Published(6.0, 6.0 / 50),
    "movinet-a2": Published(10.0, 10.0 / 50),
}


def operations_ratio(result: Result, executed: bool) -> float:
    """How many times the operations of an answer a clip costs: an answer takes `rate` steps."""
    step = result["step_macs_executed"] if executed else result["step_macs"]
    return float(result["clip_macs"] / (step * result["rate"]))


def least(times: Mapping[str, Any]) -> float | None:
    """The fastest of those that run: a contestant that does not holds the reason in place of its time."""
    running = [value for value in times.values() if isinstance(value, (int, float))]
    return min(running, default=None)


def speed_ratio(result: Result, clip: str | None = None) -> float | None:
    """How many times an answer's time a clip takes.

    Of one engine's clip over edgeco's step; if none is named, of the fastest clip over the fastest step.
    """
    slow = least(result["clip"]) if clip is None else result["clip"].get(clip)
    fast = least(result["step"]) if clip is None else result["step"].get("edgeco")
    if not isinstance(slow, (int, float)) or not isinstance(fast, (int, float)):
        return None
    return float(slow / (fast * result["rate"]))


def peer_ratio(result: Result) -> float | None:
    """How many times longer the reference library's step takes than edgeco's, each as it is run."""
    seconds = result["peer"].get("seconds")
    return None if seconds is None else float(seconds / result["step"]["edgeco"])


def draw(results: Iterable[Result], machine: str) -> str:
    """The whole page."""
    rows = list(results)
    parts = [_HEAD, _operations(rows), _TIME.format(machine=machine), _times(rows), _notes(rows)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _operations(rows: list[Result]) -> str:
    heads = (
        "network", "published: clip", "step", "clip", "step", "ratio", "executed", "ratio",
        "state MB", "in the reference library",
    )  # fmt: skip
    return _table(heads, map(operations_row, rows))


def operations_row(result: Result) -> list[str]:
    """Published GFLOPs, needed and executed billions of multiply-accumulates, ratios, state."""
    published = PUBLISHED.get(result["name"], Published())
    state = result["peer"].get("state_bytes")
    return [
        _name(result),
        _number(published.clip),
        _number(published.step) + (" an answer" if published.per_answer else ""),
        _number(result["clip_macs"] / 1e9),
        _number(result["step_macs"] / 1e9),
        _number(operations_ratio(result, executed=False)),
        _number(result["step_macs_executed"] / 1e9),
        _number(operations_ratio(result, executed=True)),
        _number(result["state_bytes"] / 1e6),
        _number(None if state is None else state / 1e6),
    ]


def _times(rows: list[Result]) -> str:
    heads = (
        "network", "clip: PyTorch", "ONNX Runtime", "OpenVINO", "step: edgeco", "OpenVINO",
        "answer faster than PyTorch's clip", "than ONNX Runtime's", "than the fastest clip, by the fastest step",
        "reference library's step", "over edgeco's",
    )  # fmt: skip
    return _table(heads, [times_row(result) for result in rows if result["rounds"]])


def times_row(result: Result) -> list[str]:
    """Milliseconds of a clip and of a step by every engine, and what that makes of ratios."""
    seconds = result["peer"].get("seconds")
    return [
        _name(result),
        *(_milliseconds(result["clip"].get(name)) for name in CLIPS),
        *(_milliseconds(result["step"].get(name)) for name in STEPS),
        _number(speed_ratio(result, "torch")),
        _number(speed_ratio(result, "onnxruntime")),
        _number(speed_ratio(result)),
        _milliseconds(seconds),
        _number(peer_ratio(result)),
    ]


def _notes(rows: list[Result]) -> str:
    """Why a cell is empty, each reason once."""
    untimed = [result["name"] for result in rows if not result["rounds"]]
    found: dict[str, list[str]] = {"not timed yet": untimed} if untimed else {}
    for result in rows:
        for who, times in (("clip", result["clip"]), ("step", result["step"])):
            for engine, value in times.items():
                if isinstance(value, str):
                    found.setdefault(f"no {who} in {engine}: {value}", []).append(result["name"])
        if result["peer"].get("reason"):
            found.setdefault(f"no step of the reference library: {result['peer']['reason']}", []).append(result["name"])
    return "\n".join(f"- {', '.join(names)}: {reason}." for reason, names in found.items())


def _name(result: Result) -> str:
    rate = result["rate"]
    return result["name"] + (f" (an answer every {rate} steps)" if rate > 1 else "")


def _milliseconds(value: Any) -> str:
    return _number(value * 1e3) if isinstance(value, (int, float)) else "–"


def _number(value: float | None) -> str:
    """Three figures."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _table(heads: Iterable[str], rows: Iterable[list[str]]) -> str:
    heads = list(heads)
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


_HEAD = """
# The zoo, measured

Written by `benchmarks/zoo_table.py` ([how](../benchmarks/README.md)); do not edit. Receptive fields, delays and
parameters are in `edgeco models`, differences from the papers in [models.md](models.md).

## Operations and state

Billions of multiply-accumulates: what a clip needs, what the mean step needs and what edgeco's step graph executes, and
how often a clip's count holds an answer's (an answer takes `rate` steps). A step executes more than it needs where
depthwise convolutions are widened with zero channels to whole blocks, which processors compute several times faster.
*Published* are the papers' GFLOPs, which count a multiply-accumulate once, and norms and activations besides. State is
of one stream, in MB; that of the reference library, [continual-inference](https://pypi.org/project/continual-inference/),
is all that its modules hold after a stream. edgeco's counts every buffer: slots have one more than a history is deep,
so that nothing is copied in a step.
"""

_TIME = """
## Time

Milliseconds. *clip* is what a new answer costs by running the clip network over its whole clip, *step* a new frame
(the mean over a round, where answers come more seldom). All of a row were measured in one process, in turn within every
round, medians over the rounds; only ratios within a row mean anything on another machine. How many times faster an
answer is than a clip: edgeco's against PyTorch's and ONNX Runtime's clips, and the faster of both steps against the
fastest clip. PyTorch and the reference library run eagerly, as both are used.

{machine}.
"""
