"""Several cameras in one process, one network in memory: python two_cameras.py NET.edgeco SOURCE SOURCE …"""

import sys
import threading
from queue import SimpleQueue

import edgeco
from edgeco.runtime.model import Model

Answer = tuple[int, float, str] | Exception | None


def watch(model: Model, camera: int, uri: str, answers: "SimpleQueue[Answer]", stop: threading.Event) -> None:
    """One camera from its first frame to its last; a stream belongs to the thread that steps it."""
    pacer = edgeco.Pacer(model.manifest.timeline.fps)  # each camera has a rate of its own, the network one
    try:
        with model.stream() as stream, edgeco.open_source(uri) as source:
            while not stop.is_set():
                over = source.state.final  # asked first: the last frame may come just before the end
                frame = source.wait(0.5)  # raises where the camera has failed
                if frame is None and over:
                    break
                if frame is None or not pacer.decide(frame.stamp).times:
                    continue
                result = stream.step(frame)
                if result.valid:
                    answers.put((camera, frame.stamp, result.top(1)[0].label))
        # A recording ends; a camera that does has failed, and whoever waits for it must hear that.
        answers.put(edgeco.EdgecoError(f"camera {camera} ended ({source.uri})") if source.live else None)
    except Exception as error:  # a thread's exception ends in nobody's hands
        answers.put(error)


def main() -> None:
    bundle, *sources = sys.argv[1:]
    model = edgeco.load(bundle, threads=1)  # one thread each: cameras that share cores should not fight for them
    answers: SimpleQueue[Answer] = SimpleQueue()
    stop = threading.Event()
    for camera, uri in enumerate(sources):
        threading.Thread(target=watch, args=(model, camera, uri, answers, stop)).start()
    try:
        show(answers, len(sources))
    finally:
        stop.set()  # the process ends when all threads have: one killed within a step would take it down


def show(answers: "SimpleQueue[Answer]", running: int) -> None:
    """Print answers until all cameras are done. The first that fails ends this, with exit code 1."""
    while running:
        answer = answers.get()
        if isinstance(answer, Exception):
            raise SystemExit(str(answer) or repr(answer))
        if answer is None:
            running -= 1
            continue
        camera, stamp, label = answer
        print(f"camera {camera}, {stamp:.2f} s: {label}", flush=True)


if __name__ == "__main__":
    main()
