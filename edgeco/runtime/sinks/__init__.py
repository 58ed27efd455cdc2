"""Where the answers of a run go."""

from edgeco.runtime.sinks.base import Delivery, Sink
from edgeco.runtime.sinks.json_lines import JsonLines

__all__ = ["Delivery", "JsonLines", "Sink"]
