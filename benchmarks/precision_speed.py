"""What a step takes in FP32 and in INT8 on this processor, for the forms that ``precision.py --keep FOLDER`` made.

``python benchmarks/precision_speed.py FOLDER --threads 1 2 -o precision.json``: all forms of a network are stepped in
turn, so that a busy machine is busy for all; only ratios within a line count. The figures are written into the file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from precision import written

from edgeco.bundle.codec import decode_manifest
from edgeco.engines import open_engine
from edgeco.engines.session import Session

SECONDS = 4.0
"""Of stepping for each network and number of threads."""


def opened(folder: Path, threads: int) -> Session:
    """A session of a form, with the histories as it stores them."""
    manifest = decode_manifest((folder / "manifest.json").read_bytes())
    graphs = [folder / f"{number}.onnx" for number in range(manifest.timeline.stride)]
    phases = [graph.read_bytes() if graph.exists() else None for graph in graphs]
    return Session(open_engine(phases, engine="onnxruntime", threads=threads), manifest)


def timed(folder: Path, threads: int) -> dict[str, dict[str, float]]:
    """Median and least milliseconds of a step of every form of a network."""
    sessions = {form.name: opened(form, threads) for form in sorted(folder.iterdir())}
    taken: dict[str, list[float]] = {name: [] for name in sessions}
    end = time.perf_counter() + SECONDS
    turn = 0
    while time.perf_counter() < end or turn < 4:
        for name, session in sessions.items():
            for _ in range(20):
                start = time.perf_counter()
                session.run()
                if turn:
                    taken[name].append(1e3 * (time.perf_counter() - start))
        turn += 1
    return {name: {"median": statistics.median(times), "least": min(times)} for name, times in taken.items()}


def main() -> None:
    """Time the networks of a folder and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("-o", "--out", type=Path, help="a file of precision.py, to add the figures to")
    options = parser.parse_args()
    known = json.loads(options.out.read_text()) if options.out else []
    for network in sorted(options.folder.iterdir()):
        for threads in options.threads:
            found = timed(network, threads)
            ratio = found["fp32"]["median"] / found["int8"]["median"]
            told = ", ".join(f"{name} {times['median']:.4g}" for name, times in found.items())
            print(f"{network.name:20} {threads} thread(s): {told} ms; FP32 / INT8 {ratio:.2f}", flush=True)
            for entry in known:
                if entry["name"] == network.name:
                    entry.setdefault("milliseconds", {})[str(threads)] = found
    if options.out:
        options.out.write_text(written(known))


if __name__ == "__main__":
    main()
