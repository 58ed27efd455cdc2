"""Reports as pages: HTML in one file that loads nothing, runs nothing, and is light or dark as its reader likes it."""

from __future__ import annotations

from edgeco.page.charts import bars, chart, histogram
from edgeco.page.document import document, folded, note, paragraph, section, table

__all__ = ["bars", "chart", "document", "folded", "histogram", "note", "paragraph", "section", "table"]
