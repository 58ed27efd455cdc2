"""Nothing that a test of sources opens may outlive it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def descriptors() -> dict[str, str]:
    """Open descriptors and what they are, without the event descriptors that GLib keeps from its first use on."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = os.readlink(entry)
        except OSError:
            continue
    return {number: what for number, what in found.items() if what != "anon_inode:[eventfd]"}


def opened_since(before: dict[str, str]) -> dict[str, str]:
    return {number: what for number, what in descriptors().items() if before.get(number) != what}


@pytest.fixture
def leakless() -> Iterator[None]:
    """Fails the test if a thread or a descriptor that it opened is still there at its end."""
    threads, before = set(threading.enumerate()), descriptors()
    yield
    deadline = time.monotonic() + 2.0
    while time.monotonic() < deadline and (set(threading.enumerate()) - threads or opened_since(before)):
        time.sleep(0.01)
    assert set(threading.enumerate()) <= threads
    assert not opened_since(before)
