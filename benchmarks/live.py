"""How old an answer is when the consumer is slower than the camera: edgeco's source beside a plain capture loop.

A loopback server makes MJPEG whose pictures carry the time at which they were made; the consumer needs a tenth of a
second for each. Age is the present time, when the consumer is done with a picture, less the time in the picture.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

HELPERS = Path(__file__).resolve().parents[1] / "tests" / "helpers"
sys.path.insert(0, str(HELPERS))

from mjpeg import stamp_of  # noqa: E402

from edgeco.runtime.sources import open_source  # noqa: E402


@contextmanager
def server(fps: float, width: int, height: int) -> Iterator[str]:
    """The address of a server in a process of its own."""
    command = [sys.executable, str(HELPERS / "mjpeg.py"), str(fps), str(width), str(height)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def consume(read: Callable[[], np.ndarray | None], seconds: float, work: float) -> tuple[list[float], list[float]]:
    """Ages in seconds of every picture taken: when it was handed over, and when the work on it was done."""
    taken, done = [], []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        picture = read()
        if picture is None:
            raise SystemExit("the stream ended")
        made = stamp_of(picture)
        taken.append((time.monotonic_ns() - made) * 1e-9)
        time.sleep(work)
        done.append((time.monotonic_ns() - made) * 1e-9)
    return taken, done


def with_edgeco(url: str, seconds: float, work: float) -> dict[str, object]:
    with open_source(url) as source:
        next(source)
        taken, done = consume(lambda: next(source).image, seconds, work)
        status = source.status()
    counts = {"captured": status.captured, "handed_out": status.frames, "drops": dict(status.drops)}
    return {**report(taken, done), **counts, "measured_fps": status.measured_fps}


def with_plain_loop(url: str, seconds: float, work: float) -> dict[str, object]:
    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG)

    def read() -> np.ndarray | None:
        return capture.read()[1]

    try:
        read()
        return report(*consume(read, seconds, work))
    finally:
        capture.release()


def report(taken: list[float], done: list[float]) -> dict[str, object]:
    """Milliseconds. ``first`` and ``last`` are medians of the first and last ten."""
    ages = {"taken": np.array(taken) * 1e3, "done": np.array(done) * 1e3}
    figures: dict[str, object] = {"pictures": len(done)}
    for name, values in ages.items():
        p50, p99 = np.percentile(values, (50, 99))
        first, last = np.median(values[:10]), np.median(values[-10:])
        told = {"p50": p50, "p99": p99, "max": values.max(), "first": first, "last": last}
        figures[name] = {key: round(float(value), 1) for key, value in told.items()}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="of edgeco's source (60)")
    parser.add_argument("--plain-seconds", type=float, default=15, help="of the plain loop (15)")
    parser.add_argument("--fps", type=float, default=30, help="of the server (30)")
    parser.add_argument("--work", type=float, default=0.1, help="seconds the consumer needs for a picture (0.1)")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--json", action="store_true", help="one JSON document in place of the table")
    given = parser.parse_args()
    found: dict[str, dict[str, object]] = {}
    with server(given.fps, *given.size) as url:
        found["edgeco"] = with_edgeco(url, given.seconds, given.work)
    with server(given.fps, *given.size) as url:
        found["plain loop"] = with_plain_loop(url, given.plain_seconds, given.work)
    if given.json:
        print(json.dumps({"opencv": cv2.__version__, **found}, indent=1))
        return
    print(
        f"{given.fps:g} fps, {given.size[0]}x{given.size[1]}, {given.work * 1e3:g} ms a picture; ages in ms when done"
    )
    for name, figures in found.items():
        done = figures["done"]
        assert isinstance(done, dict)
        row = "  ".join(f"{key} {value:9.1f}" for key, value in done.items())
        print(f"{name:11} {figures['pictures']:5} pictures  {row}")
    print(f"edgeco: {found['edgeco']['captured']} captured, dropped {found['edgeco']['drops']}")


if __name__ == "__main__":
    main()
