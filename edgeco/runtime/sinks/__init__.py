"""Where the answers of a run go. OpenCV is imported by the sinks that need it, when they are made."""

from edgeco.runtime.sinks.base import Delivery, Keeps, Sink
from edgeco.runtime.sinks.callback import Callback
from edgeco.runtime.sinks.json_lines import JsonLines, parse_rotation
from edgeco.runtime.sinks.video import AnnotatedVideo
from edgeco.runtime.sinks.window import Window

__all__ = ["AnnotatedVideo", "Callback", "Delivery", "JsonLines", "Keeps", "Sink", "Window", "parse_rotation"]
