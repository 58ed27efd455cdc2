"""A network as a service of systemd, with a watchdog: python service.py NET.edgeco SOURCE

Frames feed the watchdog and nothing else does: a camera that is away or hangs starves it as surely as a crash, and
systemd starts the service again. SIGTERM is heard meanwhile.
"""

import os
import signal
import socket
import sys
import time

import edgeco

LOOK = 1.0
"""Seconds that a frame is waited for before looking whether to stop."""


class Notifier:
    """The datagrams of sd_notify(3), written by hand; does nothing where systemd does not listen."""

    def __init__(self) -> None:
        place = os.environ.get("NOTIFY_SOCKET", "")
        self._place = "\0" + place[1:] if place.startswith("@") else place  # @ is an abstract socket
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if place else None
        mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        period = int(os.environ.get("WATCHDOG_USEC", "0")) if mine else 0
        self._every = period / 1e6 / 4 if period else None  # systemd asks for at least twice a period
        self._fed = 0.0

    def tell(self, message: str) -> None:
        if self._socket is not None:
            self._socket.sendto(message.encode(), self._place)

    def feed(self, status: str) -> None:
        """Say that a frame came through, at most four times a watchdog's period (once a second without one)."""
        now = time.monotonic()
        if now - self._fed >= (self._every or 1.0):
            self._fed = now
            self.tell(f"STATUS={status}" + ("\nWATCHDOG=1" if self._every else ""))


def main() -> None:
    bundle, uri = sys.argv[1:3]
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    notifier = Notifier()
    model = edgeco.load(bundle)
    pacer = edgeco.Pacer(model.manifest.timeline.fps, threshold=1.0)  # the camera's rate need not be the network's
    with model.stream() as stream, edgeco.open_source(uri) as source:
        while not stopping:
            over = source.state.final  # asked first: the last frame may come just before the end
            frame = source.wait(LOOK)  # raises where the source has failed
            if frame is None and over:
                break
            if frame is None:
                notifier.tell(f"STATUS=no frame, {source.state.value}")  # and no food for the watchdog
                continue
            pace = pacer.decide(frame.stamp)
            if pace.reset:
                stream.reset()  # so much is missing that the past is another scene's
            result = stream.step(frame) if pace.times else None
            if frame.index == 0:
                notifier.tell("READY=1")  # a frame came and went: the camera is there and the network runs
            if result and result.valid:
                print(result.top(1)[0].label, flush=True)
            notifier.feed(f"{frame.index + 1} frames, {'warm' if stream.warm else 'warming up'}")
    notifier.tell("STOPPING=1")
    if not stopping:
        raise SystemExit("the source ended")  # a camera does not: let systemd start us again


if __name__ == "__main__":
    main()
