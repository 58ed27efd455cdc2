"""A network stepped for a long time: memory and descriptors stay flat, latency does not creep, answers do not drift.

Every so many steps the resident memory, the open descriptors and the percentiles of the steps are noted. At the end the
last answer must equal that of a fresh stream that saw the last receptive fields of frames alone.

    python benchmarks/soak.py                       # 1,000,000 steps of the shipped network
    python benchmarks/soak.py net.edgeco --steps 50000 --json soak.json
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from edgeco.runtime.model import Model, load
from edgeco.runtime.timing import Percentiles, now

SHIPPED = Path(__file__).parents[1] / "edgeco" / "models" / "bundles" / "camera-motion.edgeco"
TENTHS = 10
LEAST_REPLAY = 3
"""Receptive fields that the replay sees: one may begin a round of the network's strides elsewhere."""
MOST_GROWTH = 4 << 20
"""Bytes that the resident memory may grow from the second tenth to the last."""
MOST_SLOWER = 1.2
"""Greatest ratio of the last tenth's p99 to the second tenth's."""
KEPT = 64
"""Different frames, taken in turn in an order that does not repeat."""


def soak(model: Model, steps: int, seed: int = 0) -> dict[str, Any]:
    """Step a stream so often and compare it with a fresh one.

    Returns:
        ``tenths`` with ``rss`` (bytes), ``descriptors`` and ``p50``, ``p99`` (seconds) each; ``difference``, the
        greatest of the last answers relative to their magnitude; ``finite``, whether every tenth's last answer was.
    """
    frames = _frames(model, seed)
    timeline = model.manifest.timeline
    again = LEAST_REPLAY * max(timeline.receptive_field, timeline.warm_from + 1)
    again += (steps - again) % timeline.stride
    if steps < TENTHS * max(100, again):
        raise SystemExit(f"give at least {TENTHS * max(100, again)} steps")
    order, recent = np.random.default_rng(seed + 1), deque[int](maxlen=again)
    tenths: list[dict[str, Any]] = []
    with model.stream() as stream:
        for _ in range(TENTHS):
            times = Percentiles()
            for _ in range(steps // TENTHS):
                chosen = int(order.integers(KEPT))
                recent.append(chosen)
                before = now()
                result = stream.step(frames[chosen])
                times.add((now() - before) * 1e-9)
            gc.collect()
            finite = all(bool(np.isfinite(values).all()) for values in result.outputs.values())
            tenths.append(
                {"rss": _rss(), "descriptors": _descriptors(), "p50": times.p50, "p99": times.p99, "finite": finite}
            )
    # A stream that begins where the strides begin, so that both stand at the same phase at the end.
    with model.stream() as fresh:
        for chosen in recent:
            replayed = fresh.step(frames[chosen])
    difference = max(
        float(np.abs(result.outputs[name] - values).max() / max(1e-30, float(np.abs(values).max())))
        for name, values in replayed.outputs.items()
    )
    return {"steps": stream_steps(steps), "replayed": again, "tenths": tenths, "difference": difference}


def stream_steps(steps: int) -> int:
    """Steps that are really taken: whole tenths."""
    return steps // TENTHS * TENTHS


def verdicts(report: dict[str, Any], *, timing: bool = True) -> list[str]:
    """What is wrong, in one sentence each; nothing if all is well."""
    second, last = report["tenths"][1], report["tenths"][-1]
    wrong = []
    if (growth := last["rss"] - second["rss"]) > MOST_GROWTH:
        wrong.append(f"memory grew by {growth} bytes from the second tenth to the last")
    if last["descriptors"] != second["descriptors"]:
        wrong.append(f"descriptors went from {second['descriptors']} to {last['descriptors']}")
    if timing and last["p99"] > MOST_SLOWER * second["p99"]:
        wrong.append(f"p99 went from {second['p99'] * 1e6:.1f} to {last['p99'] * 1e6:.1f} microseconds")
    if report["difference"] > 1e-5:
        wrong.append(f"the last answer differs from a fresh replay's by {report['difference']:.1e}")
    if not all(tenth["finite"] for tenth in report["tenths"]):
        wrong.append("an answer is not finite")
    return wrong


def _frames(model: Model, seed: int) -> list[np.ndarray]:
    entry = model.manifest.inputs[0]
    rng = np.random.default_rng(seed)
    if entry.dtype == "uint8":
        return [rng.integers(0, 256, entry.shape, dtype=np.uint8) for _ in range(KEPT)]
    return [rng.standard_normal(entry.shape).astype(entry.dtype) for _ in range(KEPT)]


def _rss() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", nargs="?", type=Path, default=SHIPPED)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report = soak(load(options.bundle, threads=1), options.steps)
    for number, tenth in enumerate(report["tenths"], 1):
        print(
            f"tenth {number:2d}: {tenth['rss'] / 2**20:8.2f} MiB, {tenth['descriptors']} descriptors, "
            f"p50 {tenth['p50'] * 1e6:.1f}, p99 {tenth['p99'] * 1e6:.1f} microseconds"
        )
    print(f"last answer against a replay of {report['replayed']} frames: {report['difference']:.1e}")
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    wrong = verdicts(report)
    print("\n".join(wrong) or "well")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
