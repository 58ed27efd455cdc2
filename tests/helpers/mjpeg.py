"""A loopback server of MJPEG whose pictures carry the time at which they were made, for cameras there are none of.

As a program, ``mjpeg.py FPS WIDTH HEIGHT``, it prints its address and serves until standard input ends.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from types import TracebackType

import cv2
import numpy as np

_BITS, _BLOCK = 64, 16
_COLUMNS = 16
WIDTH, HEIGHT = _COLUMNS * _BLOCK, _BITS // _COLUMNS * _BLOCK
"""A block of grey for every bit of the time: JPEG may blur its edges, not its middle."""


def stamped(nanoseconds: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A picture (height, width, 3) that holds a time in its upper left part."""
    bits = [(nanoseconds >> place & 1) * 255 for place in range(_BITS)]
    blocks = np.array(bits, np.uint8).reshape(-1, _COLUMNS).repeat(_BLOCK, 0).repeat(_BLOCK, 1)
    picture = np.full((height, width, 3), 90, np.uint8)
    picture[:HEIGHT, :WIDTH] = blocks[:, :, None]
    return picture


def stamp_of(picture: np.ndarray) -> int:
    """The time that ``stamped`` put in."""
    middles = picture[_BLOCK // 2 : HEIGHT : _BLOCK, _BLOCK // 2 : WIDTH : _BLOCK, 1].reshape(-1)
    return sum(int(value > 127) << place for place, value in enumerate(middles))


class MjpegServer:
    """Serves pictures of the present moment at a rate, to any number of clients.

    Args:
        fps: pictures a second for every client.
        size: of a picture; at least 256x64.
        port: of 127.0.0.1; any free one for 0.
    """

    def __init__(self, fps: float = 30.0, size: tuple[int, int] = (WIDTH, HEIGHT), port: int = 0) -> None:
        self.fps, self._size = fps, size
        self.stalled = threading.Event()
        """While set, connections stay open and nothing is sent."""
        self._stop = threading.Event()
        self._clients: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(0.05)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/stream.mjpg"
        self.connections = 0

    def __enter__(self) -> MjpegServer:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self.hang_up()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def hang_up(self) -> None:
        """Close every connection, as a camera does that is switched off."""
        for client in list(self._clients):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                self.connections += 1
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        self._clients.add(client)
        try:
            with client, contextlib.suppress(OSError):
                client.settimeout(None)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.recv(4096)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
                self._send_pictures(client)
        finally:
            self._clients.discard(client)

    def _send_pictures(self, client: socket.socket) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            if not self.stalled.is_set():
                _, data = cv2.imencode(".jpg", stamped(time.monotonic_ns(), *self._size))
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {data.size}\r\n\r\n"
                client.sendall(head.encode() + data.tobytes() + b"\r\n")
            due = max(due + 1 / self.fps, time.monotonic() - 1)
            self._stop.wait(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    with MjpegServer(float(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3]))) as serving:
        print(serving.url, flush=True)
        sys.stdin.read()
