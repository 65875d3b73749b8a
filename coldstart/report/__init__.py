"""Reports: pure functions from what the store holds to text. They print nothing and open nothing.

One way: cells -> `document.build` -> the object that scripts read -> a table, Markdown or CSV made from that object
alone. So whatever a person reads is also in the JSON, and a saved document can be shown again without a store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMATS = ("table", "json", "csv", "markdown")


def render(document: Mapping[str, Any], format: str, *, width: int | None = None, colour: bool = False) -> str:
    """A document as text, ending in a newline. width: of the terminal; None if there is none (only a table asks)."""
    # Imported here: rich and numpy cost a tenth of a second that `coldstart --help` must not pay.
    if format == "json":
        from coldstart.report import document as json_document

        return json_document.dumps(document) + "\n"
    if format == "csv":
        from coldstart.report import csv

        return csv.cells(document)
    if format == "markdown":
        from coldstart.report import markdown

        return markdown.render(document)
    if format == "table":
        from coldstart.report import text

        return text.render(document, width=width, colour=colour)
    raise ValueError(f"no report format {format!r}: one of {', '.join(FORMATS)}")
