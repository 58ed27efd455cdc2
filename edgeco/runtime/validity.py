"""In which steps a network answers, counted from a stream's own beginning."""

from __future__ import annotations

from edgeco.bundle.manifest import Manifest


class Validity:
    """What a manifest says of valid answers; from step ``warm_from`` on they rest on a whole receptive field."""

    def __init__(self, manifest: Manifest) -> None:
        self._valid_from = max((output.valid_from for output in manifest.outputs), default=0)
        # A network that strides in time answers in some phases only; in between its latest answers stand.
        self._due = tuple(
            any((phase - output.valid_from) % output.rate == 0 for output in manifest.outputs)
            for phase in range(manifest.timeline.stride)
        )
        self.warm_from = manifest.timeline.warm_from

    def valid(self, step: int) -> bool:
        """Whether a step gives an answer that describes real frames."""
        return step >= self._valid_from and self._due[step % len(self._due)]
