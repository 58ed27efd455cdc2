"""What a node publishes, made of message classes that the caller gives.

``messages`` is whatever has the classes as attributes: ``Classification``, ``ObjectHypothesis`` and ``VisionInfo`` of
vision_msgs 4 (Humble and later), ``DiagnosticArray``, ``DiagnosticStatus`` and ``KeyValue`` of diagnostic_msgs. Their
setters assert the types of Python, so that numpy's scalars are made plain here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeco.bundle.manifest import Manifest
from edgeco.runtime.result import Score
from edgeco.runtime.ros2.worker import FAILED, WorkerStatus

QUIET = 2.0
"""Seconds without a message after which diagnostics warn."""


def classification(messages: Any, header: Any, scores: Sequence[Score], by_label: bool = True) -> Any:
    """A ``Classification`` with the header of the message it answers, best class first.

    ``by_label``: ``class_id`` is the label; otherwise the class's number as text.
    """
    message = messages.Classification()
    message.header = header
    for score in scores:
        hypothesis = messages.ObjectHypothesis()
        hypothesis.class_id = score.label if by_label else str(score.index)
        hypothesis.score = float(score.score)
        message.results.append(hypothesis)
    return message


def vision_info(messages: Any, stamp: Any, manifest: Manifest, location: str) -> Any:
    """A ``VisionInfo`` that says which network answers and in which parameter its labels are."""
    message = messages.VisionInfo()
    message.header.stamp = stamp
    message.method = manifest.name
    message.database_location = location
    message.database_version = 1
    return message


def diagnostics(messages: Any, stamp: Any, name: str, hardware: str, status: WorkerStatus) -> Any:
    """A ``DiagnosticArray`` with one status: an error once the engine failed, a warning while something is amiss."""
    level, text = _judged(messages.DiagnosticStatus, status)
    entry = messages.DiagnosticStatus()
    entry.level = level
    entry.name = name
    entry.message = text
    entry.hardware_id = hardware
    for key, value in status.values():
        pair = messages.KeyValue()
        pair.key, pair.value = key, value
        entry.values.append(pair)
    message = messages.DiagnosticArray()
    message.header.stamp = stamp
    message.status.append(entry)
    return message


def _judged(levels: Any, status: WorkerStatus) -> tuple[Any, str]:
    if status.state == FAILED:
        return levels.ERROR, status.error or "failed"
    if not status.received:
        return levels.WARN, "nothing received yet; check the topic and its QoS"
    if status.quiet > QUIET:
        return levels.WARN, f"nothing received for {status.quiet:.1f} s"
    if status.unreadable_now:
        return levels.WARN, status.error or "messages cannot be read"
    return levels.OK, "answering" if status.valid_now else "warming up"
