"""An RTSP server on 127.0.0.1 with a test picture, for a subprocess of a Python that has GStreamer's bindings.

    python rtsp_server.py PORT USER PASSWORD

Prints a line once it listens; ends when it is killed or standard input is closed.
"""

from __future__ import annotations

import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

LAUNCH = (
    "( videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=30/1,format=I420 ! jpegenc "
    "! rtpjpegpay name=pay0 )"
)


def serve(port: str, user: str, password: str) -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(LAUNCH)
    factory.set_shared(True)
    role = "viewer"
    grants = ", ".join(f"media.factory.{what}=(boolean)true" for what in ("access", "construct"))
    factory.add_role_from_structure(Gst.Structure.new_from_string(f"{role}, {grants}"))
    token = GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, role)
    auth = GstRtspServer.RTSPAuth()
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    server.get_mount_points().add_factory("/live", factory)
    if not server.attach(None):
        raise SystemExit(f"port {port} is not free")
    loop = GLib.MainLoop()
    print("listening", flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), loop.quit()), daemon=True).start()
    loop.run()


if __name__ == "__main__":
    serve(*sys.argv[1:4])
