"""Stands for NVIDIA's management library, as ctypes would have loaded it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

NOT_SUPPORTED = 3


class FakeNvml:
    """One card. ``answers`` maps a function to the number it writes, None for "not supported"; others do not exist."""

    def __init__(self, name: str = "NVIDIA RTX 4090", cards: int = 1, **answers: int | None) -> None:
        self.name, self.cards, self.answers = name, cards, answers
        self.closed = False

    def __getattr__(self, function: str) -> Callable[..., int]:
        if function not in self.answers:
            raise AttributeError(function)

        def answer(*arguments: Any) -> int:
            value = self.answers[function]
            if value is None:
                return NOT_SUPPORTED
            arguments[-1]._obj.value = value
            return 0

        return answer

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlShutdown(self) -> int:
        self.closed = True
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = self.cards
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:
        handle._obj.value = index.value + 1
        return 0

    def nvmlDeviceGetName(self, handle: Any, text: Any, size: Any) -> int:
        text.value = self.name.encode()
        return 0

    def nvmlDeviceGetUtilizationRates(self, handle: Any, use: Any) -> int:
        use._obj.gpu, use._obj.memory = 75, 30
        return 0
