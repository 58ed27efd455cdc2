"""Several cameras in one process, one network in memory: python two_cameras.py NET.edgeco SOURCE SOURCE …"""

import sys
import threading
from queue import SimpleQueue

import edgeco
from edgeco.runtime.model import Model

Answer = tuple[int, float, str] | Exception | None


def watch(model: Model, camera: int, uri: str, answers: "SimpleQueue[Answer]") -> None:
    """One camera from its first frame to its last; a stream belongs to the thread that steps it."""
    try:
        with model.stream() as stream, edgeco.open_source(uri) as source:
            for frame in source:
                result = stream.step(frame)
                if result.valid:
                    answers.put((camera, frame.stamp, result.top(1)[0].label))
        answers.put(None)
    except Exception as error:  # a thread's exception ends in nobody's hands
        answers.put(error)


def main() -> None:
    bundle, *sources = sys.argv[1:]
    model = edgeco.load(bundle, threads=1)  # one thread each: cameras that share cores should not fight for them
    answers: SimpleQueue[Answer] = SimpleQueue()
    for camera, uri in enumerate(sources):
        threading.Thread(target=watch, args=(model, camera, uri, answers), daemon=True).start()
    running = len(sources)
    while running:
        answer = answers.get()
        if isinstance(answer, Exception):
            raise SystemExit(str(answer))
        if answer is None:
            running -= 1
            continue
        camera, stamp, label = answer
        print(f"camera {camera}, {stamp:.2f} s: {label}", flush=True)


if __name__ == "__main__":
    main()
