"""A stream that goes on where it stood after a restart: python resumable.py NET.edgeco SOURCE STATE"""

import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path

import edgeco

EVERY = 50  # frames between two snapshots
OLDEST = float(os.environ.get("OLDEST", "2"))  # seconds; a camera's past that is older is another scene's


def save(path: Path, snapshot: bytes) -> None:
    """Replace the file whole or not at all: the power may fail at any moment."""
    beside = path.with_suffix(".new")
    with open(beside, "wb") as file:
        file.write(snapshot)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def main() -> None:
    bundle, uri, state = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    with edgeco.load(bundle).stream() as stream, edgeco.open_source(uri) as source:
        if state.exists() and time.time() - state.stat().st_mtime < OLDEST:
            try:
                stream.restore(state.read_bytes())
            except edgeco.EdgecoError as error:  # of another network, say, after an update
                print(f"starting afresh: {error}", file=sys.stderr)
        # A recording goes on where it stopped; a camera, which has no beginning, would leave the islice away.
        for frame in itertools.islice(source, stream.steps, None):
            result = stream.step(frame)
            scores = [[score.label, round(score.score, 6)] for score in result.top(2)]
            print(json.dumps({"index": frame.index, "valid": result.valid, "top": scores}), flush=True)
            if stopping or stream.steps % EVERY == 0:
                save(state, stream.snapshot())
            if stopping:
                return


if __name__ == "__main__":
    main()
