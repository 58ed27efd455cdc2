"""A page in the browser that shows a run while it runs."""

from edgeco.runtime.preview.preview import Preview

__all__ = ["Preview"]
